"""LocalMIM on a ViT: scales by rule, weighted losses, what it refuses and saves."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model
from torch.nn import functional as F

from mim_plugins.models import PatchMask
from mim_plugins.models.patches import patchify
from mim_plugins.models.targets.cells import cells_by_patch


def local_model(target=None, **overrides):
    """Config of a tiny LocalMIM on 32x32 images, patch 8."""
    cfg = tiny_model(taps=(0, 1, 2))
    cfg |= dict(
        type="LocalMIM",
        neck=dict(type="MultiScaleDecoder", embed_dims=16, depth=1, num_heads=2),
        target_generator=target or dict(type="HOGTarget", nbins=4),
    )
    for part, changes in overrides.items():
        old = cfg.get(part)
        cfg[part] = {**old, **changes} if isinstance(old, dict) else changes
    return cfg


def build(target=None, **overrides):
    model = MODELS.build(local_model(target, **overrides))
    model.init_weights()
    return model


def test_loss__each_level_is_the_masked_mean_of_the_paper():
    model = build()
    images = torch.randn(2, 3, 32, 32)
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.75, (4, 4))
    losses = model.loss(images, dict(mask=mask.mask))
    predictions = model.neck(model.backbone(images, mask), mask, masked_only=False)
    histograms = model.target_generator.histograms(images)
    for level, (scale, cell) in enumerate(
        zip((4, 2, 1, 0.5), (2, 4, 8, 16), strict=True)
    ):
        prediction = predictions[level]
        if scale > 1:  # patch by patch -> every cell in raster order
            grid = (2, 4, 4, scale, scale, 12)
            prediction = prediction.view(grid).transpose(2, 3).reshape(2, -1, 12)
        target = histograms[level].flatten(1, 2)
        assert target.shape[1] == (32 // cell) ** 2
        weight = F.interpolate(
            mask.mask.view(2, 1, 4, 4), scale_factor=scale, mode="area"
        ).flatten(1)
        error = (prediction - target).square().mean(-1)
        wanted = (error * weight).sum() / weight.sum()
        torch.testing.assert_close(losses[f"loss_{level}"], wanted)


def test_loss__every_trainable_parameter_gets_a_gradient():
    model = build()
    sum(model.loss(torch.randn(2, 3, 32, 32)).values()).backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    without = {n for n, p in model.named_parameters() if p.grad is None}
    kernels = {f"target_generator.gradients.{k}.weight" for k in range(4)}
    positions = {f"neck.decoders.{k}.pos_embed" for k in range(4)}
    assert without == frozen == {"backbone.pos_embed", *kernels, *positions}


def test_loss__float32_under_autocast_and_close():
    model, images = build(), torch.randn(2, 3, 32, 32)
    seeds = dict(seed=torch.arange(2))
    exact = model.loss(images, seeds)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(images, seeds)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], value, rtol=3e-2, atol=0)


@pytest.mark.parametrize(
    ("backbone", "cells"),
    [
        (dict(patch_size=16, img_size=64), [4, 8, 16, 32]),
        (dict(patch_size=8, img_size=(32, 48)), [2, 4, 8, 16]),
        (dict(patch_size=4, img_size=32), [1, 2, 4, 8]),
    ],
)
def test_cells__follow_from_patch_and_scale(backbone, cells):
    model = build(backbone=backbone)
    assert model.target_generator.cell_sizes == cells
    size = model.backbone.img_size
    assert len(model.loss(torch.randn(1, 3, *size))) == 4


def test_cells__given_sizes_scales_and_lists_of_targets():
    given = build(dict(type="HOGTarget", cell_size=[4, 4, 8, 8]))
    assert given.target_generator.cell_sizes == [4, 4, 8, 8]
    finer = build(scales=(2, 2, 1, 1))
    assert finer.target_generator.cell_sizes == [4, 4, 8, 8]
    hog, pixels = dict(type="HOGTarget"), dict(type="PixelTarget")
    mixed = build([hog, pixels, hog, pixels])
    sizes = [t.cell_sizes for t in mixed.target_generator.targets]
    assert sizes == [[2], [4], [8], [16]]
    assert len(mixed.loss(torch.randn(1, 3, 32, 32))) == 4


def test_loss__images_of_another_size_than_built_for():
    model = build()
    assert len(model.loss(torch.randn(1, 3, 48, 32))) == 4
    with pytest.raises(ValueError, match="pool 2x2 patches, .* 3x4 grid"):
        model.loss(torch.randn(1, 3, 24, 32))


def test_reconstruct__pixel_cells_of_every_scale_as_images():
    model = build(dict(type="PixelTarget", norm_pix=True))
    images = torch.randn(2, 3, 32, 32)
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.75, (4, 4))
    shapes = [t.values.shape[1:] for t in model.target_generator(images, mask)]
    assert shapes == [(12, 192)] * 3 + [(4, 768)]
    levels = model.reconstruct(images, mask)["levels"]
    assert [level.shape for level in levels] == [images.shape] * 4
    # A perfect prediction gives the image back, whatever the cell.
    target = model.target_generator
    perfect = []
    for cell in (2, 4, 8, 16):
        grid = (32 // cell, 32 // cell)
        cells = target.normalise(patchify(images, grid))
        by_patch = cells_by_patch(cells.unflatten(1, grid), 8 // cell or 1)
        perfect.append(by_patch)
    for picture in model.pictures(perfect, images, mask):
        torch.testing.assert_close(picture, images)
    # Without the cells' own mean and deviation, it is what the loss compares.
    plain = model.pictures(perfect, images, mask, patch_statistics=False)
    for picture, cell in zip(plain, (2, 4, 8, 16), strict=True):
        wanted = target.normalise(patchify(images, (32 // cell, 32 // cell)))
        found = patchify(picture, (32 // cell, 32 // cell))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(backbone=dict(img_size=24)), r"pool 2x2 patches.* 3x3 grid"),
        (dict(backbone=dict(taps=(1, 3, 9))), "tap 9 is out of range"),
        (dict(backbone=dict(taps=(1, 3, 3))), "supervised twice"),
        (dict(backbone=dict(taps=(1, 2))), "targets for 4 levels, the model has 3"),
        (dict(backbone=dict(patch_size=2)), "not squares of whole pixels"),
        (dict(scales=(3, 2, 1, 1)), "3 cells per axis of a 8x8 patch"),
        (dict(scales=(8, 2, 1, 1)), "1x1 tokens per patch, its target 8x8 cells"),
        (dict(scales=(4, 2)), "targets for 2 levels, the model has 4"),
        (dict(neck=dict(type="MIMDecoder")), "or a MultiScaleDecoder"),
        (dict(neck=dict(scales=[4, 2, 1, 1])), "leave the neck's scales out"),
    ],
)
def test_build__what_does_not_fit_is_refused(changes, message):
    with pytest.raises(Exception, match=message) as info:
        MODELS.build(local_model(**changes))
    assert isinstance(info.value, ValueError)


def test_build__lists_of_targets_and_scales_must_match():
    with pytest.raises(ValueError, match="lists 2 targets for 4 scales"):
        MODELS.build(local_model([dict(type="HOGTarget")] * 2))
    with pytest.raises(ValueError, match="scales is a list .* got 2"):
        MODELS.build(local_model() | dict(scales=2))


def test_checkpoint__without_its_bias_is_refused_on_load(tmp_path):
    biased = dict(type="HOGTarget", nbins=4, bias=True)
    state = build(biased).state_dict()
    path = str(tmp_path / "pretrained.pth")
    torch.save(
        {k: v for k, v in state.items() if not k.endswith("gradients.0.bias")}, path
    )
    with pytest.raises(ValueError, match=r"target_generator\.gradients\.0\.bias"):
        load_checkpoint(build(biased), path)
    # An encoder alone is no statement about the target.
    torch.save({k: v for k, v in state.items() if k.startswith("backbone.")}, path)
    load_checkpoint(build(biased), path)


def test_checkpoint__holds_mmpretrains_encoder_and_keeps_tap_norms_outside():
    classifier = MODELS.build(
        dict(
            type="VisionTransformer",
            arch=dict(TINY_ARCH),
            img_size=32,
            patch_size=8,
            out_type="avg_featmap",
            final_norm=False,
        )
    )
    given = {k for k in build().state_dict() if k.startswith("backbone.")}
    needed = {f"backbone.{k}" for k in classifier.state_dict()}
    assert needed - given == {"backbone.ln2.weight", "backbone.ln2.bias"}
    assert given - needed == {"backbone.ln1.weight", "backbone.ln1.bias"}


def test_optimiser__decays_tokens_and_weights_not_norms_and_biases():
    model = build(dict(type="HOGTarget", nbins=4, bias=True))
    cfg = dict(
        constructor="LayerDecayOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
        paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0),
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert len(groups) == 2
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in decay, name
            continue
        wanted = 0 if parameter.ndim == 1 or name.endswith(".bias") else 0.05
        assert decay[id(parameter)] == wanted, name
    for token in (model.backbone.cls_token, model.neck.decoders[0].mask_token):
        assert decay[id(token)] == 0.05
