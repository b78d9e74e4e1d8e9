"""Masks: counts, order, scales, given masks, draws that depend on the seed alone."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, TINY_HIERA

from mim_plugins.models.mask_samplers import RandomPatchMask, SharedPatchMask
from mim_plugins.models.masking import PatchMask, count_visible

TINY_SWIN = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("length", "ratio", "kept"), [(196, 0.75, 49), (25, 0.75, 6), (64, 0.6, 25)]
)
def test_count_visible__truncates_as_official(length, ratio, kept):
    assert count_visible(length, ratio) == kept


def test_from_noise__keeps_smallest_in_order_of_noise():
    noise = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6]])
    mask = PatchMask.from_noise(noise, 0.5, (2, 4))
    assert mask.ids_keep.tolist() == [[1, 5, 3, 0]]
    assert mask.ids_masked.tolist() == [[7, 4, 6, 2]]
    assert mask.mask.tolist() == [[0, 0, 1, 0, 1, 0, 1, 1]]


def test_visible_masked_restore__round_trip():
    mask = PatchMask.from_noise(torch.rand(3, 12), 0.7, (3, 4))
    tokens = torch.randn(3, 12, 5)
    shuffled = torch.cat([mask.visible(tokens), mask.masked(tokens)], dim=1)
    assert torch.equal(mask.restore(shuffled), tokens)
    assert torch.equal(mask.mask.sum(1), torch.full((3,), float(mask.num_masked)))


def test_from_mask__given_mask_is_honoured_in_raster_order():
    given = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1]])
    mask = PatchMask.from_mask(given, (2, 2))
    assert mask.ids_keep.tolist() == [[1, 3], [0, 1]]
    assert torch.equal(mask.mask, given.float())
    assert torch.equal(PatchMask.from_mask(given.view(2, 2, 2), (2, 2)).mask, mask.mask)


@pytest.mark.parametrize("given", [False, True])
def test_from_mask__bool_is_refused(given):
    with pytest.raises(TypeError, match="None for no masking"):
        PatchMask.from_mask(given, (2, 2))


@pytest.mark.parametrize(
    "encoder",
    [
        dict(type="MIMVisionTransformer", arch=TINY_ARCH, img_size=64, patch_size=32),
        dict(type="MIMHiera", arch=TINY_HIERA, img_size=64),
        dict(type="MIMSwinTransformer", arch=TINY_SWIN, img_size=64, window_size=2),
        dict(type="SimMIMSwin", arch=TINY_SWIN, img_size=64, window_size=2),
    ],
    ids=lambda encoder: encoder["type"],
)
def test_encoders__refuse_masks_of_other_batches_and_grids(encoder):
    model, images = MODELS.build(encoder), torch.randn(3, 3, 64, 64)
    with pytest.raises(ValueError, match="the mask is of 2 images, the batch has 3"):
        model(images, torch.tensor([[0, 1, 1, 1]] * 2))
    other = PatchMask.from_noise(torch.rand(3, 8), 0.5, (2, 4))
    with pytest.raises(
        ValueError, match=r"covers a grid of \(2, 4\) patches.*\(2, 2\)"
    ):
        model(images, other)


def test_from_mask__unequal_counts_are_refused():
    with pytest.raises(ValueError, match="same number of patches"):
        PatchMask.from_mask(torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]), (2, 2))


def test_from_mask__nothing_visible_is_refused():
    with pytest.raises(ValueError, match="keeps no patch"):
        PatchMask.from_mask(torch.ones(2, 4), (2, 2))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5])
def test_mask_ratio__outside_open_interval_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        RandomPatchMask(ratio)


def test_mask_ratio__that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="keeps none of 4 patches"):
        PatchMask.from_noise(torch.rand(1, 4), 0.9, (2, 2))


def test_at_scale__finer_repeats_and_coarser_averages():
    mask = PatchMask.from_mask(torch.tensor([[1, 0, 1, 1, 0, 0, 0, 1]]), (2, 4))
    assert mask.at_scale(1).tolist() == mask.mask.tolist()
    fine = mask.at_scale(2).view(4, 8)
    assert torch.equal(fine[::2, ::2].flatten(), mask.mask[0])
    assert torch.equal(fine[1::2, 1::2].flatten(), mask.mask[0])
    assert mask.at_scale(0.5).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("scale", [0, 1.5, 0.3, 0.25])
def test_at_scale__impossible_scales_are_refused(scale):
    mask = PatchMask.from_noise(torch.rand(1, 8), 0.5, (2, 4))
    with pytest.raises(ValueError):
        mask.at_scale(scale)


def test_sampler__depends_on_the_seed_not_the_batch():
    sampler = RandomPatchMask(0.75)
    seeds = torch.tensor([3, 2**62 + 11, 5, 7])
    together = sampler(4, (4, 4), "cpu", seeds).mask
    halves = [sampler(2, (4, 4), "cpu", s).mask for s in seeds.split(2)]
    assert torch.equal(together, torch.cat(halves))
    assert not torch.equal(together[0], together[2])


def test_shared_mask__one_for_all_images_by_the_first_seed():
    sampler = SharedPatchMask(0.75)
    seeds = torch.tensor([3, 5, 7])
    mask = sampler(3, (7, 7), "cpu", seeds)
    assert (mask.mask == mask.mask[0]).all()
    # As official: int(36.75) + 1 of 49 are removed.
    assert (mask.num_masked, mask.num_visible) == (37, 12)
    assert torch.equal(mask.ids_keep, mask.ids_keep.sort(1).values)
    assert torch.equal(mask.ids_host, mask.ids_keep)
    assert torch.equal(sampler(1, (7, 7), "cpu", seeds[:1]).mask, mask.mask[:1])
    assert not torch.equal(sampler(3, (7, 7), "cpu", seeds + 1).mask, mask.mask)
    assert not torch.equal(sampler(2, (7, 7)).mask, sampler(2, (7, 7)).mask)


def test_shared_mask__lowest_ranks_go():
    ranks = torch.tensor([5, 0, 3, 1, 4, 2])
    mask = SharedPatchMask(0.5).from_ranks(ranks, 2, (2, 3))
    assert mask.mask.tolist() == [[0, 1, 1, 1, 0, 1]] * 2
    with pytest.raises(ValueError, match="keeps none of 4 patches"):
        SharedPatchMask(0.75).count_visible(4)
