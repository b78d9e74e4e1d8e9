"""Distance, entropy and diversity of attention in closed form."""

import math

import pytest
import torch

from mim_plugins.analysis import AttentionStatistics, grid_distances
from mim_plugins.analysis.attention import token_similarity

GRID, PATCH = (14, 14), (16, 16)


def statistics(logits, grid=GRID, **kwargs):
    found = AttentionStatistics(grid_distances(grid, PATCH), **kwargs)
    for batch in logits:
        found.update(batch)
    return found.compute()


def test_uniform_attention():
    found = statistics([torch.zeros(2, 3, 196, 196)])
    assert found.entropy.tolist() == pytest.approx([math.log(196)] * 3, abs=1e-5)
    assert math.log(196) == pytest.approx(5.278, abs=5e-4)
    # The mean distance of all pairs of the grid, itself included.
    points = [(16 * i, 16 * j) for i in range(14) for j in range(14)]
    expected = sum(math.dist(a, b) for a in points for b in points) / 196**2
    assert found.distance.tolist() == pytest.approx([expected] * 3, rel=1e-6)
    assert found.divergence.tolist() == pytest.approx([0] * 3, abs=1e-5)


def test_attention_to_oneself():
    found = statistics([1e4 * torch.eye(196).expand(1, 2, 196, 196)])
    assert found.distance.tolist() == [0, 0]
    assert found.entropy.tolist() == [0, 0]


def test_divergence_of_two_heads_by_hand():
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.2, 0.2, 0.6])
    logits = torch.stack([p, q]).log()[None, :, None].expand(1, 2, 3, 3)
    found = statistics([logits], grid=(1, 3))
    expected = [(a * (a / b).log()).sum().item() for a, b in ((p, q), (q, p))]
    assert found.divergence.tolist() == pytest.approx(expected, abs=1e-6)


def test_one_head_has_no_divergence():
    assert statistics([torch.zeros(1, 1, 4, 4)], grid=(2, 2)).divergence.isnan().all()


def test_images_weigh_the_same_in_batches_of_any_size():
    logits = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = statistics([logits], grid=(2, 2))
    parts = statistics(logits.split([4, 1]), grid=(2, 2))
    for name in whole._fields:
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6
        )
    figures = statistics(logits.split([4, 1]), grid=(2, 2), paper_figures=True)
    halves = [statistics([part], grid=(2, 2)).distance for part in logits.split([4, 1])]
    torch.testing.assert_close(figures.distance, sum(halves) / 2)


def test_distances_on_oblong_grids_and_patches():
    distances = grid_distances((2, 3), (8, 16))
    assert distances[0, 5].item() == pytest.approx(math.hypot(8, 32))
    assert distances[0, 3].item() == 8


def test_token_similarity():
    token = torch.ones(1, 1, 4)
    assert token_similarity(token.expand(1, 5, 4)).item() == pytest.approx(1)
    assert token_similarity(torch.eye(4)[None]).item() == pytest.approx(0)
    opposite = torch.tensor([[[1.0, 0], [-1.0, 0]]])
    assert token_similarity(opposite).item() == pytest.approx(-1)
