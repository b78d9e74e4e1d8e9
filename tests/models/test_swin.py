"""The masked Swin Transformer against mmpretrain's, a dense form, and its promises."""

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models import SwinTransformer
from torch import nn

from mim_plugins.models import MIMSwinTransformer, PatchMask, PooledNorm
from mim_plugins.models.backbones.window_groups import pack_windows

ARCH = dict(embed_dims=8, depths=[2, 2, 1], num_heads=[1, 2, 2])


def encoder(**kwargs) -> MIMSwinTransformer:
    """Maps of 28, 14 and 7 tokens, 7x7 cells of 8 pixels."""
    kwargs = dict(arch=dict(ARCH), img_size=56, patch_size=2) | kwargs
    model = MIMSwinTransformer(drop_path_rate=0.0, **kwargs)
    # Biases and position tables that cannot be missed.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def draw(model, batch_size=2, ratio=0.75):
    noise = torch.rand(batch_size, model.grid[0] * model.grid[1])
    return PatchMask.from_noise(noise, ratio, model.grid)


def images_for(model, batch_size=2):
    height, width = model.patch_embed.init_input_size
    return torch.randn(batch_size, 3, height, width)


def dense_latents(model, images, mask, official=False):
    """Every stage's output by attention over all visible tokens, one image at a time.

    Written from the definition: tokens meet if the floor of (coordinate + (w - shift)
    mod w) / w agrees in both axes; positions from the relative table.
    """
    results = []
    for image, cells in zip(images, mask.ids_keep, strict=True):
        tokens, _ = model.patch_embed(image[None])
        side = 2 ** (len(model.stages) - 1)
        rows, cols = model.grid
        cell_major = torch.arange(rows * side * cols * side)
        cell_major = cell_major.view(rows, side, cols, side).transpose(1, 2).flatten(2)
        x = tokens[:, cell_major.flatten(0, 1)[cells].flatten()]
        outputs = []
        for index, stage in enumerate(model.stages):
            height, width = rows * side, cols * side
            raster = torch.arange(height * width)
            order = raster.view(rows, side, cols, side).transpose(1, 2).flatten()
            if official and index > 0:
                order = raster
            number = order.view(-1, side**2)[cells].flatten()
            place = torch.stack([number // width, number % width], dim=-1)
            for block in stage.blocks:
                x = dense_block(block, x, place, min(height, width))
            if stage.downsample is not None:
                x = x.view(1, -1, side // 2, 2, side // 2, 2, x.shape[-1])
                x = x.permute(0, 1, 2, 4, 6, 3, 5).reshape(1, -1, 4 * x.shape[-1])
                x, side = (
                    stage.downsample.reduction(stage.downsample.norm(x)),
                    side // 2,
                )
            outputs.append(x)
        outputs[-1] = getattr(model, f"norm{index}")(x)
        results.append(outputs)
    return [torch.cat(level) for level in zip(*results, strict=True)]


def dense_block(block, x, place, map_size):
    msa, window = block.attn.w_msa, block.attn.window_size
    shift = block.attn.shift_size if map_size > window else 0
    region = (place + (window - shift) % window) // window
    together = (region[:, None] == region[None]).all(-1)
    row, col = (place[:, None] - place[None]).unbind(-1)
    pairs = (row + window - 1) * (2 * window - 1) + col + window - 1
    bias = msa.relative_position_bias_table[pairs.where(together, 0)].permute(2, 0, 1)
    qkv = msa.qkv(block.norm1(x)).unflatten(-1, (3, msa.num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
    weights = logits.masked_fill(~together, -torch.inf).softmax(-1)
    x = x + msa.proj((weights @ value).transpose(1, 2).flatten(2))
    return block.ffn(block.norm2(x), identity=x)


SIZES = {
    "window 7": {},
    "window 14": dict(window_size=14, img_size=112),
    "window larger than the last map": dict(window_size=14),
    "wide": dict(img_size=(56, 112)),
    "two stages": dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 1])),
}


@pytest.mark.parametrize("size", SIZES)
def test_without_a_mask__identical_to_mmpretrain_and_to_an_empty_mask(
    size,
):
    model = encoder(**SIZES[size])
    theirs = SwinTransformer(
        arch=model.arch_settings,
        img_size=model.patch_embed.init_input_size,
        patch_size=2,
        out_indices=model.out_indices,
        stage_cfgs=[
            dict(window_size=stage.blocks[0].attn.window_size) for stage in model.stages
        ],
    )
    theirs.load_state_dict(model.state_dict(), strict=True)
    model.eval(), theirs.eval()
    images = images_for(model)
    features = model(images)[-1]
    assert torch.equal(features, theirs(images)[-1])
    nothing = torch.zeros(2, model.grid[0] * model.grid[1])
    last = model(images, nothing)[-1].transpose(1, 2).view_as(features)
    torch.testing.assert_close(last, features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coordinates", ["correct", "official"])
@pytest.mark.parametrize("shared", [True, False])
def test_masked__values_and_gradients_of_the_dense_form(coordinates, shared):
    model = encoder(merge_coordinates=coordinates, img_size=(56, 112))
    images = images_for(model)
    mask = draw(model)
    if shared:
        mask = PatchMask.from_mask(mask.mask[:1].expand(2, -1), model.grid)
    latents = model(images, mask)
    wanted = dense_latents(model, images, mask, coordinates == "official")
    assert len(latents) == model.num_levels == 3
    for level, (ours, dense) in enumerate(zip(latents, wanted, strict=True)):
        tokens = mask.num_visible * model.level_scales[level] ** 2
        assert ours.shape == (2, tokens, model.level_dims[level])
        torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-5)
    parameters = list(model.parameters())
    ours, dense = (
        torch.autograd.grad(sum(x.sin().sum() for x in levels), parameters)
        for levels in (latents, wanted)
    )
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_masked__the_two_geometries_differ_after_the_first_merging_only():
    model = encoder()
    images, mask = images_for(model), draw(model)
    correct = model(images, mask)
    model.merge_coordinates = "official"
    official = model(images, mask)
    assert torch.equal(correct[0], official[0])
    assert (correct[1] - official[1]).abs().max() > 1e-2


def test_masked__removed_pixels_and_other_images_do_not_matter():
    model = encoder()
    images, mask = images_for(model), draw(model)
    removed = nn.functional.interpolate(mask.mask.view(2, 1, 7, 7), scale_factor=8)
    changed = images + removed * torch.randn_like(images) * 100
    alone = model(images[1:], mask.mask[1:])
    raster = PatchMask.from_mask(mask.mask, mask.grid)
    for a, b, c in zip(
        model(images, raster), model(changed, raster), alone, strict=True
    ):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[1:], c, rtol=1e-5, atol=1e-6)


def test_masked__visible_cells_come_in_the_order_of_the_mask():
    model = encoder()
    images, mask = images_for(model), draw(model)
    raster = PatchMask.from_mask(mask.mask, mask.grid)
    shuffled = model(images, mask)
    for level, tokens in enumerate(model(images, raster)):
        by_cell = tokens.unflatten(1, (-1, model.level_scales[level] ** 2))
        order = mask.ids_keep.argsort(1).argsort(1)[:, :, None, None].expand_as(by_cell)
        wanted = by_cell.gather(1, order).flatten(1, 2)
        torch.testing.assert_close(shuffled[level], wanted, rtol=1e-5, atol=1e-6)


def test_masked__checkpointing_and_attention_scale_give_the_same_gradients():
    plain = encoder(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qk_scale=0.3))))
    saving = encoder(
        with_cp=True,
        stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qk_scale=0.3))),
    )
    saving.load_state_dict(plain.state_dict())
    images, mask = images_for(plain), draw(plain)
    full = plain(images, torch.zeros(2, 49))[-1].transpose(1, 2)
    torch.testing.assert_close(full, plain(images)[-1].flatten(2), rtol=1e-5, atol=1e-5)
    grads = [
        torch.autograd.grad(model(images, mask)[-1].sum(), list(model.parameters()))
        for model in (plain, saving)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_masked__bf16_is_close():
    model = encoder()
    images, mask = images_for(model), draw(model)
    exact = model(images, mask)[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(images, mask)[-1]
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_taps__choose_the_supervised_stages():
    model = encoder(taps=(1,))
    assert (model.num_levels, model.level_dims) == (2, [32, 32])
    assert model.level_scales == [1, 1]
    images, mask = images_for(model), draw(model)
    everything = encoder()
    everything.load_state_dict(model.state_dict())
    for a, b in zip(model(images, mask), everything(images, mask)[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mask", [False, True])
def test_masked__bool_is_refused(mask):
    with pytest.raises(TypeError, match="None for no masking"):
        encoder()(torch.randn(1, 3, 56, 56), mask)


def test_masked__mask_of_another_grid_is_refused():
    mask = PatchMask.from_noise(torch.rand(1, 8), 0.5, (2, 4))
    with pytest.raises(ValueError, match=r"covers a grid of \(2, 4\) patches"):
        encoder()(torch.randn(1, 3, 56, 56), mask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(img_size=60), "not a multiple of the mask's cells of (8, 8) pixels"),
        (dict(img_size=64), "stage 0 has a map of 32x32 tokens, which windows of 7"),
        (dict(img_size=(56, 64)), "stage 0 has a map of 28x32 tokens"),
        (dict(window_size=4), "stage 1 has a map of 14x14 tokens, which windows of 4"),
        (dict(taps=(3,)), "tap 3 is out of range"),
        (dict(taps=(1, 0)), "increase"),
        (dict(merge_coordinates="wrong"), "merge_coordinates is one of"),
        (dict(use_abs_pos_embed=True), "relative positions only"),
        (dict(out_indices=(0, 1)), "leaves out the last stage"),
    ],
)
def test_build__what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError) as info:
        encoder(**changes)
    assert message in str(info.value)


def test_masked__images_that_do_not_fit_are_refused():
    model = encoder()
    for size, message in ((60, "mask's cells"), (64, "windows of 7 do not divide")):
        with pytest.raises(ValueError, match=message):
            model(torch.randn(1, 3, size, size), torch.zeros(1, 49))
    # Another size that fits needs no other model.
    assert model(torch.randn(1, 3, 56, 112), torch.zeros(1, 98))[-1].shape[1] == 98
    dense = encoder(pad_small_map=True, img_size=64)
    assert dense(torch.randn(1, 3, 64, 64))[-1].shape == (1, 32, 8, 8)
    with pytest.raises(ValueError, match="pad_small_map"):
        dense(torch.randn(1, 3, 56, 56), torch.zeros(1, 49))


def test_norms__have_the_official_epsilons():
    def epsilons(model):
        norms = [m for m in model.named_modules() if isinstance(m[1], nn.LayerNorm)]
        assert len(norms) >= 1 + 2 * 5 + 2
        return {name: norm.eps for name, norm in norms}

    assert set(epsilons(encoder(norm_eps=1e-6)).values()) == {1e-6}
    # mmpretrain's default stays unless it is asked for.
    assert set(epsilons(encoder()).values()) == {1e-5}
    finetuning = encoder(norm_eps=1e-6, mlp_norm_eps=1e-5, norm_cfg=None)
    for name, eps in epsilons(finetuning).items():
        assert eps == (1e-5 if name.endswith(".norm2") else 1e-6), name


def test_init_weights__follows_the_released_code():
    model = MIMSwinTransformer(arch=dict(ARCH), img_size=56, patch_size=2)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith("bias_table"):
            assert 0.01 < parameter.std() < 0.03, name
        elif name.endswith("norm.weight") or ".norm1.weight" in name:
            assert (parameter == 1).all(), name
        elif name.endswith(".bias") and "patch_embed.projection" not in name:
            assert not parameter.any(), name
        elif parameter.ndim > 1:
            fan_out, fan_in = parameter.flatten(1).shape
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert 0.85 * bound < parameter.abs().max() <= bound, name


def test_init_weights__keeps_loaded_weights(tmp_path):
    source = encoder()
    state = {f"backbone.{k}": v for k, v in source.state_dict().items()}
    path = str(tmp_path / "pretrained.pth")
    torch.save({"state_dict": state}, path)
    init_cfg = dict(type="Pretrained", checkpoint=path, prefix="backbone.")
    for given in (init_cfg, [init_cfg]):
        loaded = MIMSwinTransformer(
            arch=dict(ARCH), img_size=56, patch_size=2, init_cfg=given
        )
        loaded.init_weights()
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize("sizes", [(7, 14), (14, 7), (7, 28)])
def test_load__position_tables_fit_other_windows(sizes, tmp_path):
    old, new = (encoder(window_size=w, img_size=4 * 28) for w in sizes)
    path = str(tmp_path / "pretrained.pth")
    torch.save(old.state_dict(), path)
    load_checkpoint(new, path, strict=True)
    for stage in (0, 1):
        table, source = (
            model.stages[stage].blocks[0].attn.w_msa.relative_position_bias_table
            for model in (new, old)
        )
        side, before = (round(len(t) ** 0.5) for t in (table, source))
        assert side == 2 * sizes[1] - 1
        wanted = nn.functional.interpolate(
            source.T.view(1, -1, before, before), size=(side, side), mode="bicubic"
        )
        torch.testing.assert_close(table, wanted[0].flatten(1).T)
    index = new.stages[0].blocks[0].attn.w_msa.relative_position_index
    assert index.max() == side**2 - 1
    new(images_for(new))


def test_pooled_norm__averages_first():
    neck = PooledNorm(6)
    nn.init.normal_(neck.norm.weight)
    features = torch.randn(2, 6, 3, 5)
    (pooled,) = neck((features,))
    wanted = nn.functional.layer_norm(
        features.mean((2, 3)), (6,), neck.norm.weight, eps=1e-6
    )
    torch.testing.assert_close(pooled, wanted)
    tokens_first = nn.functional.layer_norm(
        features.permute(0, 2, 3, 1), (6,), neck.norm.weight
    ).mean((1, 2))
    assert (pooled - tokens_first).abs().max() > 0.1
    assert neck.norm.eps == 1e-6


def test_pack_windows__whole_windows_in_few_groups():
    rng = np.random.default_rng(0)
    for capacity in (4, 49):
        sizes = rng.integers(1, capacity + 1, 200)
        sizes[0] = capacity
        group, start = pack_windows(sizes, capacity)
        taken = np.zeros((group.max() + 1, capacity), dtype=int)
        for size, g, s in zip(sizes, group, start, strict=True):
            taken[g, s : s + size] += 1
        # No two windows in one place, none beyond a group.
        assert taken.max() == 1 and taken.sum() == sizes.sum()
        assert len(taken) <= 1.1 * np.ceil(sizes.sum() / capacity)
