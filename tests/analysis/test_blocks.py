"""What is read of a block is what the block computes."""

import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models.backbones import vision_transformer
from mmpretrain.models.utils import attention
from mmpretrain.registry import MODELS
from torch.nn import functional

from mim_plugins.analysis.blocks import BlockReader

VIT = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
ENCODERS = {
    "vit": dict(type="MIMVisionTransformer", arch=VIT, img_size=32, patch_size=8),
    "mmpretrain_vit": dict(
        type="VisionTransformer", arch=VIT, img_size=(32, 48), patch_size=8
    ),
    "rel_pos": dict(
        type="RelPosVisionTransformer", arch=VIT, img_size=32, patch_size=8
    ),
    "swin": dict(
        type="MIMSwinTransformer",
        arch=dict(embed_dims=12, depths=[2, 2], num_heads=[3, 3]),
        img_size=32,
        window_size=4,
    ),
    "hiera": dict(
        type="Hiera",
        arch=dict(embed_dims=12, depths=(1, 1, 2), num_heads=1),
        img_size=(32, 64),
        mask_unit_attn=(True, True, False),
        q_pool=2,
    ),
    "timm": None,
}


def build(name):
    torch.manual_seed(0)
    if name == "timm":
        encoder = timm.create_model("test_vit")
        encoder.eval()
        return encoder
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        encoder = MODELS.build(ENCODERS[name])
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder.eval()
    return encoder


def images_of(encoder):
    size = getattr(encoder, "img_size", (160, 160))
    size = (size, size) if isinstance(size, int) else size
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def read(encoder, images):
    found = {}
    reader = BlockReader(encoder)
    with torch.no_grad(), reader.reading(images.shape[-2:], found.__setitem__):
        encoder(images)
    assert list(found) == list(range(len(reader)))
    return [found[index] for index in range(len(reader))]


@pytest.fixture
def computed(monkeypatch):
    """The logits of every attention that is computed, class tokens included."""
    logits = []
    fused = functional.scaled_dot_product_attention

    def record(query, key, value, attn_mask=None, dropout_p=0.0, scale=None, **kwargs):
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        found = query @ key.transpose(-2, -1) * factor
        logits.append(found if attn_mask is None else found + attn_mask)
        return fused(query, key, value, attn_mask, dropout_p, scale=scale, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", record)
    for host in (vision_transformer, attention):
        if hasattr(host, "scaled_dot_product_attention"):
            monkeypatch.setattr(host, "scaled_dot_product_attention", record)
    return logits


@pytest.mark.parametrize("name", ENCODERS)
def test_attention_that_is_read_is_the_one_computed(name, computed):
    encoder = build(name)
    images = images_of(encoder)
    readings = read(encoder, images)
    assert len(readings) == len(computed) > 1
    for reading, expected in zip(readings, computed, strict=True):
        queries, keys = reading.logits.shape[-2:]
        expected = expected[..., -queries:, -keys:]
        # Windows may have joined the heads.
        expected = expected.reshape(-1, *reading.logits.shape[1:])
        torch.testing.assert_close(reading.logits, expected, rtol=1e-4, atol=1e-4)
        assert reading.distances.shape == (queries, keys)
        assert reading.tokens.shape[0] == reading.normed.shape[0] == 2


@pytest.mark.parametrize("name", ENCODERS)
def test_nothing_is_left_behind(name):
    encoder = build(name)
    images = images_of(encoder)
    with torch.no_grad():
        before = encoder(images)
        read(encoder, images)
        after = encoder(images)
    torch.testing.assert_close(before, after)
    hooks = [m._forward_pre_hooks or m._forward_hooks for m in encoder.modules()]
    assert not any(hooks) or name == "rel_pos"  # which checks the grid by a hook


def test_distances_of_swin_are_in_pixels_of_each_stage():
    readings = read(build("swin"), torch.randn(1, 3, 32, 32))
    # Neighbours are 4 pixels apart in the first stage, 8 in the second.
    assert [reading.distances[0, 1].item() for reading in readings] == [4, 4, 8, 8]


def test_distances_of_hiera_are_those_of_the_tokens_it_pools():
    local, pooling, _, across = read(build("hiera"), torch.randn(1, 3, 32, 64))
    # Units of 16 x 16 pixels: 4 x 4 tokens, of which the first two are 8 pixels apart
    # in the order of unrolled tokens.
    assert local.distances.shape == (16, 16)
    assert local.distances.max().item() == pytest.approx(12 * 2**0.5)
    assert pooling.distances.shape == (4, 16)
    # A pooled query is at the centre of its four tokens.
    assert sorted(pooling.distances[0].tolist())[:4] == pytest.approx([8**0.5] * 4)
    # One token per unit is left, 2 x 4 of them, 16 pixels apart.
    assert across.distances.shape == (8, 8)
    assert across.distances.max().item() == pytest.approx((16**2 + 48**2) ** 0.5)


def test_encoder_without_attention_is_refused():
    with pytest.raises(ValueError, match="a Sequential has no attention"):
        BlockReader(torch.nn.Sequential(torch.nn.Linear(2, 2)))
