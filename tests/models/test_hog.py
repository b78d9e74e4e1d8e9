"""HOG targets against the paper page's formula, mmpretrain's, and their promises."""

import math

import pytest
import torch
from mmpretrain.models.selfsup import HOGGenerator
from mmpretrain.registry import MODELS
from samples import tiny_model
from torch.nn import functional as F

from mim_plugins.models import HOGTarget, PatchMask
from mim_plugins.models.targets import ImageSpec, hog


def photo_like(n=2, height=32, width=48):
    """Smooth images of few grey levels, so that many gradients tie at bin edges."""
    images = torch.rand(n, 3, height // 4, width // 4)
    images = F.interpolate(images, scale_factor=4, mode="bilinear")
    return (images * 32).round() / 8 - 2


def plain_hog(images, nbins, cell, bias=None):
    """The official way: one map per bin, averaged over cells, then normalised."""
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    weight = torch.stack([kernel, kernel.t()])[:, None]
    channels = []
    for channel in images.split(1, dim=1):
        padded = F.pad(channel, (1, 1, 1, 1), mode="reflect")
        gx, gy = F.conv2d(padded, weight, bias).split(1, dim=1)
        phase = torch.atan2(gx, gy) / math.pi * nbins
        maps = torch.zeros(len(images), nbins, *images.shape[-2:])
        magnitude = (gx**2 + gy**2).sqrt()
        maps.scatter_(1, phase.floor().long() % nbins, magnitude)
        channels.append(F.normalize(F.avg_pool2d(maps, cell), dim=1))
    return torch.cat(channels, dim=1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("bias", [False, True])
def test_histograms__several_cells_equal_the_official_form(bias):
    images = photo_like()
    target = HOGTarget(nbins=9, cell_size=[4, 8, 16, 6], bias=bias)
    for level, (ours, cell) in enumerate(
        zip(target.histograms(images), target.cell_sizes, strict=True)
    ):
        plain = plain_hog(images, 9, cell, target.gradients[level].bias)
        assert ours.shape == (2, 32 // cell, 48 // cell, 27)
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


def test_histograms__equal_mmpretrain_without_its_window():
    images = photo_like(height=64, width=64)
    ours = HOGTarget(cell_size=[4, 8, 16, 32]).histograms(images)
    for cell, values in zip((4, 8, 16, 32), ours, strict=True):
        generator = HOGGenerator(nbins=9, pool=cell, gaussian_window=0)
        generator._reshape = lambda out: out
        theirs = generator(images).permute(0, 3, 4, 1, 2).flatten(3)
        torch.testing.assert_close(values, theirs, rtol=0, atol=1e-6)


def test_histograms__do_not_depend_on_how_the_batch_is_cut(monkeypatch):
    images, target = photo_like(5), HOGTarget(cell_size=[8, 16])
    full = target.histograms(images)
    monkeypatch.setattr(hog, "CPU_CHUNK", 2 * images[0].numel())
    for a, b in zip(full, target.histograms(images), strict=True):
        assert torch.equal(a, b)


def test_responses__as_of_other_devices(monkeypatch):
    images, target = torch.randn(2, 3, 16, 24), HOGTarget(cell_size=[4, 8], bias=True)
    expected = target.responses(images)
    monkeypatch.setattr(hog, "_convolve", hog._convolve_depthwise)
    for pair, wanted in zip(target.responses(images), expected, strict=True):
        for a, b in zip(pair, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_histograms__flat_images_give_zero_or_the_bin_of_the_bias():
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert HOGTarget().histograms(flat)[0].abs().max() == 0
    tilted = HOGTarget(bias=True).histograms(flat)[0]
    assert torch.equal(tilted.unflatten(-1, (3, 9)).sum(-1), torch.ones(1, 2, 2, 3))


def test_forward__cells_of_removed_patches_row_by_row():
    images = photo_like()
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    fine, patch, pooled = HOGTarget(cell_size=[8, 16, 16])(images, mask)
    cells = plain_hog(images, 9, 8)
    assert fine.weights is None
    for image, index in enumerate(mask.ids_masked[:, 0].tolist()):
        y, x = 2 * (index // 3), 2 * (index % 3)
        wanted = cells[image, y : y + 2, x : x + 2].flatten()
        torch.testing.assert_close(fine.values[image, 0], wanted, rtol=0, atol=1e-6)
    wanted = mask.masked(plain_hog(images, 9, 16).flatten(1, 2))
    torch.testing.assert_close(patch.values, wanted, rtol=0, atol=1e-6)
    assert torch.equal(patch.values, pooled.values)


def test_forward__cells_that_pool_patches_count_by_their_removed_share():
    images = photo_like(width=64)
    mask = PatchMask.from_mask(torch.tensor([[1, 1, 0, 0, 1, 1, 0, 1]] * 2), (2, 4))
    values, weights = HOGTarget(cell_size=32)(images, mask)[0]
    assert torch.equal(weights, torch.tensor([[1.0, 0.25]] * 2))
    wanted = plain_hog(images, 9, 32).flatten(1, 2)
    torch.testing.assert_close(values, wanted, rtol=0, atol=1e-6)


def test_forward__float32_under_autocast_and_without_gradient():
    images = photo_like().requires_grad_()
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    target = HOGTarget(cell_size=8)
    exact = target(images, mask)[0].values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = target(images, mask)[0].values
    assert not values.requires_grad and torch.equal(values, exact)


def test_bias__is_drawn_once_per_level_frozen_and_saved():
    target = HOGTarget(cell_size=[8, 16], bias=True)
    first, second = (module.bias for module in target.gradients)
    assert not torch.equal(first, second)
    assert max(first.abs().max(), second.abs().max()) <= 1 / 3
    assert not any(p.requires_grad for p in target.parameters())
    other = HOGTarget(cell_size=[8, 16], bias=True)
    assert not torch.equal(other.gradients[0].bias, first)
    other.load_state_dict(target.state_dict())
    assert torch.equal(other.gradients[0].bias, first)


def test_bias__checkpoint_that_has_none_or_should_not_is_refused():
    plain, biased = HOGTarget(cell_size=[8, 16]), HOGTarget(9, [8, 16], bias=True)
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"without their bias.*gradients.0.bias"):
            biased.load_state_dict(plain.state_dict(), strict=strict)
        with pytest.raises(ValueError, match="set target_generator.bias=True"):
            plain.load_state_dict(biased.state_dict(), strict=strict)
    # A file with nothing of a target in it, such as an encoder alone, says nothing.
    biased.load_state_dict({}, strict=False)


def test_algorithm__any_method_trains_on_it(build):
    target = dict(_delete_=True, type="HOGTarget", cell_size=4)
    cfg = tiny_model() | dict(target_generator=target)
    target.pop("_delete_")
    model = MODELS.build(cfg)
    model.init_weights()
    assert model.neck.out_dims == [2 * 2 * 27] * 3
    sum(model.loss(torch.randn(2, 3, 32, 32)).values()).backward()
    assert model.neck.decoders[0].decoder_pred.weight.grad.abs().sum() > 0
    assert model.reconstruct(torch.randn(1, 3, 32, 32))["levels"] == [None] * 3


@pytest.mark.parametrize(
    ("cell_size", "message"),
    [
        (6, r"neither divide patches of 16 .* \[1, 2, 4, 8, 16, 48\]"),
        (24, "neither divide"),
        (32, "pool 2x2 patches, which do not divide the 3x3 grid"),
        ([8, 0], "integer number of pixels from 1 on, got 0"),
        ([], "empty list"),
        (4.0, "got 4.0"),
    ],
)
def test_build__cells_that_do_not_fit_are_refused(cell_size, message):
    with pytest.raises(ValueError, match=message):
        HOGTarget(cell_size=cell_size).prepare(ImageSpec((3, 3), (16, 16)))


def test_build__bins_and_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="nbins is an integer"):
        HOGTarget(nbins=0)
    with pytest.raises(ValueError, match="need square patches"):
        HOGTarget().prepare(ImageSpec((2, 2), (16, 8)))
