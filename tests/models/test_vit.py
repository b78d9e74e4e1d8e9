"""The masked Vision Transformer against mmpretrain's and against its own promises."""

import pytest
import torch
from mmpretrain.models import VisionTransformer
from samples import TINY_ARCH
from torch import nn

from mim_plugins.models import MIMVisionTransformer, PatchMask
from mim_plugins.models.position import sincos_position_embedding


def encoder(**kwargs) -> MIMVisionTransformer:
    kwargs = dict(arch=dict(TINY_ARCH), img_size=32, patch_size=8) | kwargs
    model = MIMVisionTransformer(**kwargs)
    model.init_weights()
    return model


@pytest.mark.parametrize("out_type", ["raw", "cls_token", "featmap", "avg_featmap"])
def test_without_a_mask__identical_to_mmpretrain(out_type):
    ours = encoder(out_type=out_type, out_indices=[1, 3], img_size=(32, 48))
    theirs = VisionTransformer(
        arch=dict(TINY_ARCH),
        img_size=(32, 48),
        patch_size=8,
        out_type=out_type,
        out_indices=[1, 3],
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.eval(), theirs.eval()
    images = torch.randn(2, 3, 32, 48)
    for a, b in zip(ours(images), theirs(images), strict=True):
        assert torch.equal(a, b)


def test_masked__equals_dropping_tokens_of_the_plain_form():
    model = encoder(taps=(0, 2))
    images = torch.randn(2, 3, 32, 32)
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.75, (4, 4))
    tokens, _ = model.patch_embed(images)
    tokens = mask.visible(tokens + model.pos_embed[:, 1:])
    cls = (model.cls_token + model.pos_embed[:, :1]).expand(2, -1, -1)
    tokens, expected = torch.cat([cls, tokens], dim=1), []
    for index, layer in enumerate(model.layers):
        tokens = layer(tokens)
        if index in (0, 2):
            expected.append(tokens)
    expected.append(model.ln1(tokens))
    latents = model(images, mask)
    assert len(latents) == model.num_levels == 3
    for latent, wanted in zip(latents, expected, strict=True):
        assert latent.shape == (2, 1 + 4, 24)
        torch.testing.assert_close(latent, wanted, rtol=1e-5, atol=1e-6)


def test_masked__removed_pixels_do_not_matter():
    model = encoder(taps=(1,))
    images = torch.randn(2, 3, 32, 32)
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.5, (4, 4))
    removed = nn.functional.interpolate(mask.mask.view(2, 1, 4, 4), scale_factor=8)
    changed = images + removed * torch.randn_like(images) * 100
    for a, b in zip(model(images, mask), model(changed, mask), strict=True):
        assert torch.equal(a, b)


def test_masked__given_mask_tensor_and_images_independent_of_each_other():
    model = encoder()
    images = torch.randn(3, 3, 32, 32)
    given = torch.zeros(3, 16)
    given[:, ::2] = 1
    together = model(images, given)[-1]
    alone = model(images[1:2], given[1:2])[-1]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [False, True])
def test_masked__bool_is_refused(mask):
    with pytest.raises(TypeError, match="None for no masking"):
        encoder()(torch.randn(1, 3, 32, 32), mask)


def test_masked__non_square_many_channels_and_other_sizes():
    model = encoder(img_size=(32, 48), in_channels=5, taps=(1,))
    mask = PatchMask.from_noise(torch.rand(2, 24), 0.75, (4, 6))
    assert model(torch.randn(2, 5, 32, 48), mask)[-1].shape == (2, 7, 24)
    # Another size than img_size: positions are resized, as in the pass without a mask.
    bigger = PatchMask.from_noise(torch.rand(2, 40), 0.75, (5, 8))
    assert model(torch.randn(2, 5, 40, 64), bigger)[0].shape == (2, 11, 24)


def test_masked__mask_of_another_grid_is_refused():
    mask = PatchMask.from_noise(torch.rand(1, 8), 0.5, (2, 4))
    with pytest.raises(ValueError, match=r"covers a grid of \(2, 4\) patches"):
        encoder()(torch.randn(1, 3, 32, 32), mask)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ((4,), "out of range"),
        ((-1,), "out of range"),
        ((1, 1), "twice"),
        ((2, 1), "increase"),
    ],
)
def test_taps__bad_levels_are_refused(taps, message):
    with pytest.raises(ValueError, match=message):
        encoder(taps=taps)


def test_img_size__not_divisible_is_refused():
    with pytest.raises(ValueError, match="not a multiple of the patch size"):
        encoder(img_size=(32, 36))
    with pytest.raises(ValueError, match="not a multiple of the patch size"):
        encoder()(torch.randn(1, 3, 32, 36), torch.zeros(1, 16))


def test_norms__have_the_official_epsilon():
    norms = [m for m in encoder().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * 4 + 1
    assert {m.eps for m in norms} == {1e-6}


def test_init_weights__follows_the_paper():
    model = encoder()
    table = sincos_position_embedding((4, 4), 24)
    assert torch.equal(model.pos_embed, table)
    assert not model.pos_embed.requires_grad
    for layer in model.layers:
        assert not layer.ffn.layers[1].bias.any()
        assert not layer.attn.qkv.bias.any()
    weight = model.patch_embed.projection.weight.flatten(1)
    bound = (6 / sum(weight.shape)) ** 0.5
    assert weight.abs().max() <= bound and weight.abs().max() > 0.9 * bound


def test_init_weights__keeps_loaded_weights(tmp_path):
    source = encoder()
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    state = {f"backbone.{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "pretrained.pth")
    init_cfg = dict(
        type="Pretrained",
        checkpoint=str(tmp_path / "pretrained.pth"),
        prefix="backbone.",
    )
    for given in (init_cfg, [init_cfg]):
        loaded = encoder(init_cfg=given)
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, source.state_dict()[key]), key


def test_sincos__first_half_is_the_column_as_official():
    table = sincos_position_embedding((2, 3), 8, cls_token=False)[0].view(2, 3, 8)
    omega = torch.tensor([1.0, 0.01])
    x, y = 2.0, 1.0
    wanted = torch.cat(
        [(x * omega).sin(), (x * omega).cos(), (y * omega).sin(), (y * omega).cos()]
    )
    torch.testing.assert_close(table[1, 2], wanted)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_position_embedding((2, 2), 6)


def test_layer_depth__covers_every_parameter():
    model = encoder()
    depths = {
        name: model.get_layer_depth(name)[0] for name, _ in model.named_parameters()
    }
    assert depths["cls_token"] == depths["patch_embed.projection.weight"] == 0
    assert depths["layers.2.ffn.layers.1.bias"] == 3
    assert depths["ln1.weight"] == 5
