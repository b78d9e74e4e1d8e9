"""Pixel targets against the formula, its edge case and its inverse."""

import pytest
import torch

from mim_plugins.models import PatchMask, PixelTarget
from mim_plugins.models.patches import patchify, unpatchify
from mim_plugins.models.targets import ImageSpec, LevelSpec


def test_patchify__order_is_row_column_channel_and_invertible():
    images = torch.arange(2 * 3 * 4 * 6).float().view(2, 3, 4, 6)
    patches = patchify(images, (2, 3))
    assert patches.shape == (2, 6, 2 * 2 * 3)
    # Patch 4 is row 1, column 1: pixels (2..3, 2..3), channels last.
    assert torch.equal(patches[1, 4], images[1, :, 2:4, 2:4].permute(1, 2, 0).flatten())
    assert torch.equal(unpatchify(patches, (2, 3), (2, 2)), images)


def test_forward__raw_and_normalised_pixels_of_removed_patches():
    images = torch.randn(2, 3, 8, 12)
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    raw = PixelTarget(norm_pix=False)(images, mask)[0].values
    assert torch.equal(raw, mask.masked(patchify(images, (2, 3))))
    mean = raw.mean(-1, keepdim=True)
    std = (raw.var(-1, unbiased=True, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(
        PixelTarget()(images, mask)[0].values, (raw - mean) / std
    )


def test_forward__constant_patch_gives_zero_not_nan():
    mask = PatchMask.from_noise(torch.rand(1, 4), 0.5, (2, 2))
    target = PixelTarget()(torch.full((1, 3, 8, 8), 0.7), mask)[0].values
    assert target.abs().max() < 1e-3


def test_forward__epsilon_is_inside_the_root():
    # Variance 1e-6: with eps inside the root the values shrink by sqrt(2).
    noise = torch.randn(1, 1, 4, 4)
    noise = (noise - noise.mean()) / noise.std() * 1e-3
    mask = PatchMask.from_mask(torch.tensor([[1, 0]]), (1, 2))
    images = torch.cat([noise, noise], dim=3).double().float()
    target = PixelTarget()(images, mask)[0].values
    torch.testing.assert_close(
        target.std(), torch.tensor(0.5).sqrt(), rtol=1e-3, atol=0
    )


def test_denormalise__undoes_the_normalisation():
    images = torch.randn(2, 3, 8, 12)
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    target = PixelTarget()
    patches = mask.masked(patchify(images, (2, 3)))
    torch.testing.assert_close(
        target.denormalise([target(images, mask)[0].values], patches)[0], patches
    )


def test_forward__no_gradient_and_float32_under_autocast():
    images = torch.randn(1, 3, 8, 8, requires_grad=True)
    mask = PatchMask.from_noise(torch.rand(1, 4), 0.5, (2, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        target = PixelTarget()(images, mask)[0].values
    assert target.dtype == torch.float32 and not target.requires_grad


def test_cells__of_removed_patches_each_normalised_by_itself():
    images = torch.randn(2, 3, 8, 12)
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    target = PixelTarget(cell_size=[2, 4])
    specs = target.prepare(ImageSpec((2, 3), (4, 4)))
    assert specs == [LevelSpec(12, 2.0), LevelSpec(48, 1.0)]
    fine, per_patch = target(images, mask)
    torch.testing.assert_close(per_patch.values, PixelTarget()(images, mask)[0].values)
    # Cells row by row; inside a cell rows, then columns, then channels.
    index = int(mask.ids_masked[1, 0])
    y, x = 4 * (index // 3), 4 * (index % 3)
    for number, (dy, dx) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        cell = images[1, :, y + dy : y + dy + 2, x + dx : x + dx + 2]
        cell = cell.permute(1, 2, 0).flatten()
        wanted = (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()
        found = fine.values[1, 0].view(4, 12)[number]
        torch.testing.assert_close(found, wanted)
    assert fine.weights is None and per_patch.weights is None


def test_cells__that_pool_patches_are_all_there_and_weighted():
    images = torch.randn(1, 3, 8, 16)
    mask = PatchMask.from_mask(torch.tensor([[1, 1, 0, 0, 1, 0, 0, 0]]), (2, 4))
    values, weights = PixelTarget(norm_pix=False, cell_size=8)(images, mask)[0]
    assert torch.equal(weights, torch.tensor([[0.75, 0.0]]))
    assert torch.equal(values, patchify(images, (1, 2)))


def test_cells__that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"cells of 3 pixels .* \[1, 2, 4\]"):
        PixelTarget(cell_size=3).prepare(ImageSpec((3, 4), (4, 4)))
    with pytest.raises(ValueError, match="integer number of pixels"):
        PixelTarget(cell_size=[2, 1.5])
