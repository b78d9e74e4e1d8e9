"""Hiera: against timm's, with and without a mask, and what it refuses."""

import json
from functools import partial

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from samples import TINY_HIERA, golden_folder, hiera_model
from torch.nn import functional as F

from mim_plugins.checkpoints.layouts.hiera import ENCODER_RULES, convert_to_official
from mim_plugins.checkpoints.layouts.key_rules import KeyRules
from mim_plugins.models import Hiera, MIMHiera, PatchMask
from mim_plugins.models.backbones.hiera import feature_map
from mim_plugins.models.backbones.hiera_block import max_pool, reroll, unroll

PAPER_TINY = dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1)


def build(cls=Hiera, **kwargs):
    """A tiny encoder whose biases are not all zero."""
    encoder = cls(**{"arch": TINY_HIERA, "img_size": (64, 96), **kwargs})
    encoder.init_weights()
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1 or name == "pos_embed":
            torch.nn.init.normal_(parameter, mean=float("ln" in name), std=0.2)
    encoder.eval()
    return encoder


def random_mask(grid=(2, 3), ratio=0.5, batch=2):
    drawn = PatchMask.from_noise(torch.rand(batch, grid[0] * grid[1]), ratio, grid)
    # As timm and the official code, visible units in raster order.
    return PatchMask.from_mask(drawn.mask, grid)


@pytest.fixture
def timm_hiera():
    """Builds timm's Hiera with the weights of one of ours."""
    hiera = pytest.importorskip("timm.models.hiera")

    def _build(ours):
        theirs = hiera.Hiera(
            img_size=tuple(side * 32 for side in ours.grid),
            embed_dim=8,
            num_heads=1,
            stages=TINY_HIERA["depths"],
            q_pool=ours.q_pool,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_classes=5,
        )
        rules = KeyRules((a, b.removeprefix("backbone.")) for a, b in ENCODER_RULES)
        state = {
            rules.to_official(key) or f"head.norm.{key.split('.')[-1]}": value
            for key, value in ours.state_dict().items()
        }
        missing, unexpected = theirs.load_state_dict(state, strict=False)
        assert not unexpected
        assert set(missing) <= {
            f"head.{layer}.{p}" for layer in ("norm", "fc") for p in ("weight", "bias")
        }
        return theirs.eval()

    return _build


@pytest.mark.parametrize("q_pool", [1, 2, 3])
def test_forward__equals_timm(timm_hiera, q_pool):
    ours = build(q_pool=q_pool)
    theirs, images = timm_hiera(ours), torch.randn(2, 3, 64, 96)
    _, stages = theirs.forward_features(images, return_intermediates=True)
    grid = ours.image_grid(images)
    for mine, other in zip(
        ours.stage_outputs(ours.run_blocks(ours.embed(images))), stages, strict=True
    ):
        torch.testing.assert_close(
            feature_map(mine, grid), other.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5
        )
    pooled = theirs.forward_head(stages[-1].flatten(1, 2), pre_logits=True)
    torch.testing.assert_close(ours(images)[0], pooled, rtol=1e-5, atol=1e-5)


def test_masked__equals_timm(timm_hiera):
    ours = build(MIMHiera, taps=(0, 1, 2))
    theirs, images, mask = timm_hiera(ours), torch.randn(2, 3, 64, 96), random_mask()
    _, stages = theirs.forward_features(
        images, mask=~mask.mask.bool(), return_intermediates=True
    )
    for mine, other in zip(ours(images, mask), stages, strict=True):
        other = other.reshape(mine.shape)
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_masked__order_of_units_is_that_of_the_mask():
    ours, images = build(MIMHiera), torch.randn(2, 3, 64, 96)
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    raster = PatchMask.from_mask(mask.mask, (2, 3))
    order = mask.ids_keep.argsort(dim=1)
    for drawn, sorted_, side in zip(
        ours(images, mask), ours(images, raster), (8, 4, 2), strict=True
    ):
        units = drawn.unflatten(1, (3, side**2))
        units = torch.stack([unit[ids] for unit, ids in zip(units, order, strict=True)])
        torch.testing.assert_close(units.flatten(1, 2), sorted_)


def test_masked__removed_pixels_reach_nothing():
    ours, images, mask = build(MIMHiera), torch.randn(2, 3, 64, 96), random_mask()
    removed = mask.at_scale(32).view(2, 1, 64, 96).bool()
    garbage = images.masked_fill(removed, float("nan"))
    for clean, dirty in zip(ours(images, mask), ours(garbage, mask), strict=True):
        assert torch.equal(clean, dirty)


def test_masked__with_nothing_removed_equals_the_whole():
    ours, images = build(MIMHiera, taps=(0, 1, 2)), torch.randn(2, 3, 64, 96)
    latents = ours(images, torch.zeros(2, 6))
    for latent, wanted, side in zip(
        latents, ours(images), ours.level_scales, strict=True
    ):
        unrolled = unroll(latent.unflatten(1, (6, side**2)))
        torch.testing.assert_close(feature_map(unrolled, (2, 3)), wanted)


def test_unroll__pools_as_the_map_does_and_back():
    image = torch.randn(2, 5, 16, 24)
    units = image.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1)
    tokens = units.reshape(2, 6, 64, 5)
    assert torch.equal(reroll(unroll(tokens)), tokens)
    unrolled = unroll(tokens)
    for _ in range(3):
        unrolled, image = max_pool(unrolled), F.max_pool2d(image, 2)
        assert torch.equal(feature_map(unrolled, (2, 3)), image)


def test_logits__are_those_the_layer_attends_with():
    encoder = build(MIMHiera, q_pool=3)
    stream = list(encoder.stream(torch.randn(2, 3, 64, 96), random_mask()))
    for index, (block, tokens) in enumerate(
        zip(encoder.blocks, stream[:-1], strict=True)
    ):
        logits = encoder.attention_logits(block, tokens)
        heads, *shape = encoder.attention_shape(index)
        units = 1 if block.attn.local else 2  # 3 of 6 units are visible
        assert logits.shape[1] == heads
        assert [side * units for side in logits.shape[2:]] == shape
        attn, normed = block.attn, block.ln1(tokens)
        values = attn.heads(attn.qkv(normed).chunk(3, dim=-1)[2])
        out = (logits.softmax(-1) @ values).transpose(1, 2)
        out = attn.proj(out.reshape(2, 3, -1, attn.embed_dims))
        torch.testing.assert_close(attn(normed), out)
        tokens_per_image, width = encoder.hidden_shape(index)
        assert (tokens.shape[2] * 6, tokens.shape[3]) == (tokens_per_image, width)


def test_attention_only_block__has_logits_of_the_last_stage():
    encoder = build(MIMHiera)
    block = encoder.attention_only_block()
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {
        "ln1",
        "attn",
    }
    *_, tokens = encoder.stream(torch.randn(2, 3, 64, 96), random_mask())
    assert encoder.attention_logits(block, tokens).shape == (2, 8, 12, 12)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(mask_unit_attn=(True,) * 4),
        dict(q_pool=3, arch=TINY_HIERA | dict(depths=(1, 1, 1, 1))),
    ],
)
def test_attention_only_block__has_the_shape_that_is_said_of_it(options):
    encoder = build(MIMHiera, **options)
    *_, tokens = encoder.stream(torch.randn(2, 3, 64, 96), torch.zeros(2, 6))
    logits = encoder.attention_logits(encoder.attention_only_block(), tokens)
    assert logits.shape[1:] == encoder.attention_shape(encoder.num_layers)


def test_taps__count_stages():
    with pytest.raises(ValueError, match="tap 4 is out of range.* 4 stages, 0 to 3"):
        build(MIMHiera, taps=(4,))


def test_maps__strides_and_widths_of_four_stages():
    encoder = build(out_type="featmap", out_indices=(0, 2, 3))
    maps = encoder(torch.randn(1, 3, 64, 96))
    sizes = [tuple(each.shape) for each in maps]
    assert sizes == [(1, 8, 16, 24), (1, 32, 4, 6), (1, 64, 2, 3)]
    assert not hasattr(encoder, "ln2")


def test_other_image_sizes__positions_are_resized_when_run_and_when_loaded():
    small, large = build(img_size=64), build(img_size=96)
    images = torch.randn(1, 3, 96, 96)
    large.load_state_dict(small.state_dict())
    assert large.pos_embed.shape == (1, 576, 8)
    torch.testing.assert_close(small(images), large(images))
    state = {**small.state_dict(), "pos_embed": torch.zeros(1, 384, 8)}
    with pytest.raises(ValueError, match="384 positions, which is no square grid"):
        large.load_state_dict(state)


def test_checkpointing__same_output_and_gradients():
    images, losses, grads = torch.randn(1, 3, 64, 96), [], []
    for with_cp in (False, True):
        torch.manual_seed(1)
        encoder = build(MIMHiera, with_cp=with_cp)
        loss = encoder(images, random_mask(batch=1))[-1].square().mean()
        loss.backward()
        losses.append(loss)
        grads.append(encoder.pos_embed.grad)
    assert torch.equal(*losses)
    torch.testing.assert_close(*grads)


def test_parameters__as_many_as_the_papers_hiera_tiny_has():
    with torch.device("meta"):
        full = Hiera(arch=PAPER_TINY)
        masked = MODELS.build(
            hiera_model(arch=PAPER_TINY, img_size=224)
            | dict(neck=dict(type="FusionDecoder", embed_dims=96, num_heads=3))
        )
    head = 1000 * 369
    assert sum(p.numel() for p in full.parameters()) + head == 6_694_966
    assert sum(p.numel() for p in masked.parameters()) == 6_973_838
    assert all(p.requires_grad for p in masked.parameters())
    norms = [m for m in masked.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 12 + 1 + 2 + 1 and {m.eps for m in norms} == {1e-6}
    assert full.ln2.eps == 1e-6


def test_init__classifier_and_mae():
    full = Hiera(arch=TINY_HIERA | dict(embed_dims=32), img_size=64)
    full.init_weights()
    full.requires_grad_(False)
    assert full.layers[3].attn.qkv.weight.std() == pytest.approx(0.02, rel=0.05)
    assert full.pos_embed.std() == pytest.approx(0.02, rel=0.05)
    for bias in (full.ln2.bias, full.layers[0].ffn.layers[1].bias):
        assert (bias == 0.02).all()
    assert (full.ln2.weight == 1).all()
    # A convolution's bias keeps torch's default.
    assert full.patch_embed.projection.bias.std() > 0.02

    model = MODELS.build(hiera_model(arch=TINY_HIERA | dict(embed_dims=32)))
    model.init_weights()
    assert all(p.requires_grad for p in model.parameters())
    model.requires_grad_(False)
    linear = model.backbone.layers[3].attn.qkv
    bound = (6 / sum(linear.weight.shape)) ** 0.5
    assert linear.weight.abs().max() == pytest.approx(bound, rel=0.01)
    assert (linear.bias == 0).all() and (model.backbone.layers[3].ln1.bias == 0).all()
    decoder = model.neck.decoders[0]
    for table in (model.backbone.pos_embed, decoder.pos_embed, decoder.mask_token):
        assert table.std() == pytest.approx(0.02, rel=0.6)


def test_init__pretrained_weights_stay(tmp_path):
    state = build().state_dict()
    torch.save(state, tmp_path / "hiera.pth")
    loaded = Hiera(
        arch=TINY_HIERA,
        img_size=(64, 96),
        init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "hiera.pth")),
    )
    loaded.init_weights()
    assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_layer_decay__groups_equal_the_official_ones():
    with torch.device("meta"):
        model = MODELS.build(
            dict(
                type="ImageClassifier",
                backbone=dict(type="Hiera", arch=PAPER_TINY),
                head=dict(type="LinearClsHead", num_classes=1000, in_channels=368),
            )
        )
    table = golden_folder("maelite/lr_groups/hiera_tiny_finetune.json")
    recipe = json.loads(table.read_text())
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor="LayerDecayOptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=recipe["base_lr"], weight_decay=0.05),
            paramwise_cfg=dict(
                layer_decay_rate=recipe["layer_decay"],
                flat_decay_mult=0.0,
                custom_keys={"pos_embed": dict(decay_mult=0.0)},
            ),
        ),
    )
    settings = {
        id(p): (group["lr"] / recipe["base_lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }
    official = convert_to_official(dict(model.named_parameters()))
    assert set(official) == set(recipe["params"])
    for key, parameter in official.items():
        wanted = recipe["params"][key]
        assert settings[id(parameter)] == pytest.approx(
            (wanted["lr_scale"], wanted["weight_decay"]), rel=1e-9
        ), key


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(img_size=(64, 80)), r"\(64, 80\) is not a multiple of .* 32 pixels"),
        (dict(img_size=0), "not a multiple"),
        (dict(arch="tinny"), "no arch 'tinny': choose one of .*'tiny'"),
        (dict(arch=dict(embed_dims=8)), "a dict with .*depths"),
        (dict(arch=TINY_HIERA | dict(num_heads=3)), "multiple of num_heads"),
        (dict(q_pool=4), "between 0 and 3"),
        (dict(mask_unit_attn=(True, False)), "2 entries for 4 stages"),
        (dict(out_type="cls_token"), "out_type is one of"),
        (dict(out_indices=(4,)), "names stage 4; Hiera has stages 0 to 3"),
    ],
)
def test_bad_settings__are_refused_at_build(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Hiera(**{"arch": TINY_HIERA, "img_size": 64, **kwargs})


def test_bad_inputs__are_refused_by_name():
    encoder = build(MIMHiera)
    with pytest.raises(ValueError, match=r"\(64, 80\) is not a multiple"):
        encoder(torch.randn(1, 3, 64, 80), torch.zeros(1, 4))
    mask = PatchMask.from_mask(torch.zeros(1, 4), (2, 2))
    with pytest.raises(ValueError, match=r"grid of \(2, 2\) patches.*have \(2, 3\)"):
        encoder(torch.randn(1, 3, 64, 96), mask)
    with pytest.raises(TypeError, match="a mask is a tensor"):
        encoder(torch.randn(1, 3, 64, 96), True)
    with pytest.raises(ValueError, match="tap 4 is out of range"):
        MIMHiera(arch=TINY_HIERA, taps=(0, 4))
