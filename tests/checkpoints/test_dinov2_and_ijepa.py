"""Encoders of DINOv2 and I-JEPA, each a layout in one file, load and go back."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH

from mim_plugins.checkpoints import convert, convert_file, read, to_official
from mim_plugins.checkpoints.files import save_state

WIDTH = TINY_ARCH["embed_dims"]
VIT = dict(type="VisionTransformer", arch=TINY_ARCH, img_size=32, patch_size=8)


def official_vit(tokens, **parts):
    """A Vision Transformer as timm, DINOv2 and I-JEPA name its tensors."""
    hidden, state = TINY_ARCH["feedforward_channels"], {}
    shapes = {
        "pos_embed": (1, tokens, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 8, 8),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for block in range(TINY_ARCH["num_layers"]):
        for name, shape in {
            "norm1": (WIDTH,),
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH,),
            "mlp.fc1": (hidden, WIDTH),
            "mlp.fc2": (WIDTH, hidden),
        }.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        if "cls_token" in parts:
            shapes[f"blocks.{block}.ls1.gamma"] = (WIDTH,)
            shapes[f"blocks.{block}.ls2.gamma"] = (WIDTH,)
    for key, shape in (shapes | parts).items():
        state[key] = torch.randn(shape) * 0.1
    return state


@pytest.fixture
def dinov2():
    return official_vit(17, cls_token=(1, 1, WIDTH), mask_token=(1, WIDTH))


@pytest.fixture
def ijepa(tmp_path):
    """A training file: what is evaluated is the target encoder."""
    target, online = official_vit(16), official_vit(16)
    prefixed = [{f"module.{k}": x for k, x in s.items()} for s in (target, online)]
    path = tmp_path / "jepa-ep300.pth.tar"
    content = dict(encoder=prefixed[1], target_encoder=prefixed[0], epoch=300)
    torch.save(content, path)
    return path, target


def reference(state, images, scaled):
    """The official encoders' features, written out."""
    weight, bias = (state[f"patch_embed.proj.{name}"] for name in ("weight", "bias"))
    x = torch.nn.functional.conv2d(images, weight, bias, 8).flatten(2).transpose(1, 2)
    if "cls_token" in state:
        x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + state["pos_embed"]

    def norm(x, name):
        scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, (WIDTH,), scale, shift, 1e-6)

    def linear(x, name):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return torch.nn.functional.linear(x, weight, bias)

    for block in range(TINY_ARCH["num_layers"]):
        start = f"blocks.{block}."
        qkv = linear(norm(x, start + "norm1"), start + "attn.qkv")
        q, k, v = qkv.unflatten(2, (3, TINY_ARCH["num_heads"], -1)).permute(
            2, 0, 3, 1, 4
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        y = linear(mixed.transpose(1, 2).flatten(2), start + "attn.proj")
        x = x + (y * state[start + "ls1.gamma"] if scaled else y)
        y = linear(norm(x, start + "norm2"), start + "mlp.fc1")
        y = linear(torch.nn.functional.gelu(y), start + "mlp.fc2")
        x = x + (y * state[start + "ls2.gamma"] if scaled else y)
    return norm(x, "norm")


def features(path, images, **options):
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    model = MODELS.build(VIT | dict(out_type="raw", init_cfg=init_cfg) | options)
    model.init_weights()
    with torch.no_grad():
        model.eval()
        return model(images)[0]


def test_dinov2__computes_what_the_official_code_computes(tmp_path, dinov2):
    # Heads of 64 channels: this width has none, so the heads are not recorded.
    conversion = convert(dinov2)
    assert conversion.layout.name == "dinov2"
    assert list(conversion.report.dropped) == ["mask_token"]
    save_state(conversion.state, tmp_path / "ours.pth")
    images = torch.randn(2, 3, 32, 32)
    layers = dict(layer_scale_init_value=1.0)
    found = features(tmp_path / "ours.pth", images, layer_cfgs=layers)
    torch.testing.assert_close(found, reference(dinov2, images, scaled=True))


def test_dinov2__goes_back_without_its_mask_token_and_refuses_registers(dinov2):
    conversion = convert(dinov2)
    back, _ = to_official(conversion.state, conversion.metadata)
    del dinov2["mask_token"]
    assert back.keys() == dinov2.keys()
    assert all(torch.equal(back[key], dinov2[key]) for key in back)
    registers = dinov2 | dict(register_tokens=torch.ones(1, 4, WIDTH))
    with pytest.raises(ValueError, match="has register_tokens.*without registers"):
        convert(registers | dict(mask_token=torch.ones(1, WIDTH)))


def test_dinov2__giant_model_has_gated_mlps():
    state = official_vit(17, cls_token=(1, 1, WIDTH), mask_token=(1, WIDTH))
    for block in range(TINY_ARCH["num_layers"]):
        for old, new in (("fc1", "w12"), ("fc2", "w3")):
            for name in ("weight", "bias"):
                start = f"blocks.{block}.mlp."
                state[f"{start}{new}.{name}"] = state.pop(f"{start}{old}.{name}")
    assert "backbone.layers.0.ffn.w12.weight" in convert(state).state


def test_ijepa__the_target_encoder_is_taken_on_every_way(tmp_path, ijepa):
    path, target = ijepa
    images = torch.randn(2, 3, 32, 32)
    wanted = reference(target, images, scaled=False)
    options = dict(with_cls_token=False)
    torch.testing.assert_close(features(path, images, **options), wanted)
    (report,) = convert_file(path, tmp_path / "ours.pth")
    assert report.layout == "I-JEPA's official layout" and not report.dropped
    torch.testing.assert_close(
        features(tmp_path / "ours.pth", images, **options), wanted
    )
    checkpoint = read(path)
    assert checkpoint.wrapper == "target_encoder"
    conversion = convert(checkpoint.tensors, *checkpoint.candidates)
    back, _ = to_official(conversion.state, conversion.metadata)
    assert all(torch.equal(back[key], target[key]) for key in target)
