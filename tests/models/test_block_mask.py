"""Block-wise masks: their number, their shape, and what they depend on."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import tiny_model

from mim_plugins.models import BlockPatchMask, RandomPatchMask


def borders(mask):
    """Neighbouring patches of which one alone is removed, per image."""
    maps = mask.mask.unflatten(1, mask.grid)
    return sum(maps.diff(dim=dim).abs().sum((1, 2)) for dim in (1, 2)).mean()


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (2, 30), (1, 5)])
@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.9])
def test_every_image__loses_as_many_patches_as_of_a_random_mask(grid, ratio):
    length = grid[0] * grid[1]
    if int(length * (1 - ratio)) == 0:
        with pytest.raises(ValueError, match="keeps none"):
            BlockPatchMask(ratio)(3, grid)
        return
    sampler = BlockPatchMask(ratio)
    mask = sampler(16, grid, seeds=torch.arange(16) * 2**58)
    random = RandomPatchMask(ratio)(16, grid)
    assert mask.num_visible == random.num_visible == sampler.count_visible(length)
    assert mask.grid == grid


def test_blocks__are_far_fewer_pieces_than_random_patches():
    seeds = torch.arange(50)
    blocks = BlockPatchMask(0.4)(50, (14, 14), seeds=seeds)
    assert borders(blocks) < 0.5 * borders(RandomPatchMask(0.4)(50, (14, 14)))
    # Every place is removed now and then.
    assert blocks.mask.mean(0).min() > 0


def test_mask__depends_on_the_seed_of_the_image_alone():
    sampler, seeds = BlockPatchMask(0.5), torch.tensor([3, -7, 2**62])
    together = sampler(3, (8, 8), seeds=seeds).mask
    for index, seed in enumerate(seeds):
        torch.rand(1)
        alone = sampler(1, (8, 8), seeds=seed[None]).mask
        assert torch.equal(alone[0], together[index])
    torch.manual_seed(0)
    first = sampler(2, (8, 8)).mask
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(0)
    assert torch.equal(sampler(2, (8, 8)).mask, first)


def test_smallest_rectangle__is_kept():
    # As long as the rest is at least as large.
    sampler = BlockPatchMask(0.5, min_patches=32, min_aspect=1)
    mask = sampler(20, (8, 8)).mask.unflatten(1, (8, 8)).numpy()
    # One rectangle of 6 by 6, cut short after 32 patches.
    for image in mask:
        rows, cols = np.nonzero(image)
        assert np.ptp(rows) == np.ptp(cols) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(mask_ratio=1.0), "between 0 and 1"),
        (dict(min_patches=0), "min_patches is at least 1, got 0"),
        (dict(min_aspect=2), "at most 1; got 2"),
    ],
)
def test_settings__that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        BlockPatchMask(**options)


def test_model__trains_with_it():
    config = tiny_model()
    config["mask_sampler"] = dict(type="BlockPatchMask", mask_ratio=0.5, min_patches=2)
    model = MODELS.build(config)
    losses = model.loss(torch.randn(2, 3, 32, 32), dict(seed=torch.tensor([1, 2])))
    assert all(torch.isfinite(value).all() for value in losses.values())
