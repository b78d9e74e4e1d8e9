"""Decoders with scales against the official form: raster order, real convolutions."""

import pytest
import torch
from torch import nn

from mim_plugins.models import MIMDecoder, MultiScaleDecoder, PatchMask
from mim_plugins.models.targets import LevelSpec
from mim_plugins.models.targets.cells import cells_by_patch

GRID = (2, 4)
VIT = dict(in_dims=[24] * 4, out_dims=[16 * 5, 4 * 5, 5, 5], scales=[4, 2, 1, 0.5])
SWIN = dict(
    in_dims=[12, 24, 48, 48],
    out_dims=[16 * 5, 4 * 5, 5, 5],
    scales=[4, 2, 1, 1],
    level_scales=[4, 2, 1, 1],
    num_extra_tokens=0,
    embed_dims=[8, 16, 16, 16],
)
# One token pools, and makes more than one cell, on levels with several tokens.
MIXED = dict(
    in_dims=[12, 24, 48],
    out_dims=[4 * 5, 16 * 5, 5],
    scales=[2, 4, 0.5],
    level_scales=[4, 2, 1],
    num_extra_tokens=0,
)


def neck(**kwargs) -> MultiScaleDecoder:
    sizes = dict(grid=GRID, embed_dims=16, num_heads=2, depth=2)
    model = MultiScaleDecoder(**{**sizes, **kwargs})
    model.init_weights()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


def latents_for(model, mask):
    return [
        torch.randn(
            len(mask.mask),
            model.decoders[0].num_extra_tokens + mask.num_visible * t**2,
            width,
            requires_grad=True,
        )
        for t, width in zip(model.level_scales, model.in_dims, strict=True)
    ]


def plain_cells(part, latent, mask):
    """The official way: every token of the grid in raster order, NCHW at the end."""
    t, extra = part.tokens, part.num_extra_tokens
    n, (rows, cols) = len(latent), mask.grid
    tokens = part.decoder_embed(part.latent_norm(latent))
    cls, visible = tokens[:, :extra], tokens[:, extra:]
    removed = part.mask_token.expand(n, mask.num_masked * t * t, -1)
    blocks = torch.cat([visible, removed], dim=1).view(n, rows * cols, -1)
    blocks = mask.restore(blocks).view(n, rows, cols, t, t, -1).transpose(2, 3)
    tokens = torch.cat([cls, blocks.flatten(1, 4)], dim=1) + part.pos_embed
    for block in part.decoder_blocks:
        tokens = block(tokens)
    tokens = part.ln1(tokens)[:, extra:]
    if isinstance(part.decoder_pred, nn.Linear):
        return part.decoder_pred(tokens).view(n, rows * t, cols * t, -1)
    image = tokens.transpose(1, 2).reshape(n, -1, rows * t, cols * t)
    for layer in part.decoder_pred:
        if isinstance(layer, nn.LayerNorm):
            image = layer(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            image = layer(image)
    return image.permute(0, 2, 3, 1)


@pytest.mark.parametrize("sizes", [VIT, SWIN, MIXED], ids=["vit", "swin", "mixed"])
def test_forward__equals_the_official_form_in_value_and_gradient(sizes):
    model = neck(**sizes)
    mask = PatchMask.from_noise(torch.rand(2, 8), 0.75, GRID)
    latents = latents_for(model, mask)
    cells = [plain_cells(*x, mask) for x in zip(model.decoders, latents, strict=True)]
    # As targets have them: patch by patch, or every cell in raster order.
    full = [
        c.flatten(1, 2) if s < 1 else cells_by_patch(c, int(s))
        for c, s in zip(cells, model.scales, strict=True)
    ]
    wanted = [
        c if s < 1 else mask.masked(c) for c, s in zip(full, model.scales, strict=True)
    ]
    found = model(latents, mask)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = []
    for predictions in (found, wanted):
        loss = sum(
            (p * torch.linspace(-1, 1, p.numel()).view_as(p)).sum() for p in predictions
        )
        gradients.append(
            torch.autograd.grad(loss, [*parameters, *latents], retain_graph=True)
        )
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(model(latents, mask, masked_only=False), full, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_forward__other_image_sizes_resize_the_positions():
    model = neck(**VIT)
    mask = PatchMask.from_noise(torch.rand(1, 24), 0.5, (4, 6))
    shapes = [p.shape[1:] for p in model(latents_for(model, mask), mask)]
    assert shapes == [(12, 80), (12, 20), (12, 5), (6, 5)]


def test_with_cp__same_predictions_and_gradients():
    mask = PatchMask.from_noise(torch.rand(1, 8), 0.75, GRID)
    plain, lean = neck(**VIT), neck(**VIT, with_cp=True)
    lean.load_state_dict(plain.state_dict())
    latents = latents_for(plain, mask)
    for model in (plain, lean):
        sum(p.square().sum() for p in model(latents, mask)).backward()
    for a, b in zip(plain.parameters(), lean.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_norms__of_all_latents_but_the_last_with_the_official_epsilon():
    model = neck(**VIT)
    kinds = [type(decoder.latent_norm) for decoder in model.decoders]
    assert kinds == [nn.LayerNorm] * 3 + [nn.Identity]
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    # Two per block, one after them, one per latent, one between deconvolutions.
    assert len(norms) == 4 * (2 * 2 + 1) + 3 + 1
    assert {norm.eps for norm in norms} == {1e-6}


def test_init__convolutions_keep_torchs_default_linear_layers_are_maes():
    for sizes, zero in ((VIT, False), (SWIN, True)):
        model = MultiScaleDecoder(**{**dict(grid=GRID, embed_dims=16), **sizes})
        model.init_weights()
        last = [d.decoder_pred if zero else d.decoder_pred[-1] for d in model.decoders]
        assert all(bool((layer.bias == 0).all()) == zero for layer in last)
        assert all(0 < d.mask_token.std() < 0.06 for d in model.decoders)
        assert all(bool((d.decoder_embed.bias == 0).all()) for d in model.decoders)


def test_positions__are_fixed_saved_and_of_each_levels_grid():
    model = neck(**SWIN)
    shapes = [tuple(d.pos_embed.shape) for d in model.decoders]
    assert shapes == [(1, 128, 8), (1, 32, 16), (1, 8, 16), (1, 8, 16)]
    assert not any(d.pos_embed.requires_grad for d in model.decoders)
    assert "decoders.2.pos_embed" in model.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(scales=[8, 2, 1, 1]), "level 0 has 1x1 tokens .* target 8x8 cells"),
        (dict(scales=[4, 2, 1, 0.25]), "pools 4x4 patches, .* 2x4 grid"),
        (dict(scales=[1, 1]), "scales has 2 entries for 4 levels"),
        (dict(out_dims=[81, 20, 5, 5]), "out_dims=81 of level 0 does not divide"),
        (dict(embed_dims=18), "not a multiple of 4"),
        (dict(num_heads=3), "num_heads=3"),
        (dict(depth=0), "at least one block"),
    ],
)
def test_build__bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        neck(**{**VIT, **changes})


def test_check_target__necks_refuse_what_they_cannot_predict():
    neck(**VIT).check_target(3, LevelSpec(5, 0.5))
    with pytest.raises(ValueError, match="predicts 4 cells .* its target has 2"):
        neck(**VIT).check_target(0, LevelSpec(5, 2))
    plain = MIMDecoder(GRID, [24], 5, embed_dims=16, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="or a MultiScaleDecoder"):
        plain.check_target(0, LevelSpec(5, 0.5))
