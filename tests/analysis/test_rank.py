"""Ranks of features in closed form."""

import math

import pytest
import torch

from mim_plugins.analysis.rank import alpha_req, feature_std, lidar, rankme


def test_rankme_of_orthogonal_constant_and_random_features():
    assert rankme(torch.eye(16)) == pytest.approx(16)
    assert rankme(torch.ones(50, 8)) == pytest.approx(1)
    assert rankme(torch.zeros(5, 3)) == 0
    # Two directions, one twice as strong: exp of the entropy of (2/3, 1/3).
    expected = math.exp(2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3))
    assert rankme(torch.diag(torch.tensor([2.0, 1.0]))) == pytest.approx(expected)
    random = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert rankme(random) == pytest.approx(16, rel=1e-2)


def test_alpha_of_a_power_law():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    rows = torch.linalg.qr(rows - rows.mean(dim=0)).Q
    decay = torch.arange(1, 13, dtype=torch.float64) ** -0.75
    assert alpha_req(rows * decay) == pytest.approx(1.5)
    assert alpha_req(rows) == pytest.approx(0, abs=1e-9)
    assert math.isnan(alpha_req(torch.ones(10, 3)))


def test_lidar_counts_what_differs_between_images_and_not_between_views():
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(400, 1, 8)
    images[..., :3] = torch.randn(400, 1, 3, generator=generator)
    views = images.repeat(1, 4, 1)
    noise = torch.randn(views.shape, generator=generator)
    assert lidar(views + 1e-2 * noise) == pytest.approx(3, rel=0.02)
    noise[..., 0] *= 1e3  # a direction in which the views of an image differ
    assert lidar(views + 1e-2 * noise) == pytest.approx(2, rel=0.02)


def test_standard_deviation_shows_collapse():
    random = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(random) == pytest.approx(1 / 8, rel=1e-2)
    assert feature_std(torch.ones(10, 64)) == pytest.approx(0)
