"""CLIP files of every layout give one tower; others are refused, their keys named."""

import re

import clip_files
import pytest
import torch
from clip_files import (
    WIDTH,
    hugging_face,
    save_hugging_face,
    visual,
    whole_clip,
    write_json,
)
from safetensors.torch import save_file
from samples import clip_state_dict

from mim_plugins.models.targets.clip_weights import read_clip


@pytest.fixture
def tower():
    return clip_files.tower()


@pytest.mark.parametrize("save", clip_files.LAYOUTS, ids=lambda f: f.__name__)
def test_read_clip__every_layout_gives_the_same_bits(save, tower, tmp_path):
    (tmp_path / "theirs").mkdir()
    read = read_clip(save(tower, tmp_path / "theirs"))
    torch.save(tower, tmp_path / "plain.pth")
    plain = read_clip(tmp_path / "plain.pth")
    assert read.state.keys() == plain.state.keys()
    for key, value in plain.state.items():
        assert value.dtype == read.state[key].dtype == torch.float32
        assert torch.equal(read.state[key], value), key
    assert read.describe() == plain.describe()
    assert (read.num_heads, read.act, read.norm_eps) == (2, "quick_gelu", 1e-5)


def test_read_clip__sizes_come_from_the_tensors(tmp_path):
    torch.save(clip_state_dict(width=768, layers=3, patch=32, size=96), tmp_path / "x")
    read = read_clip(tmp_path / "x")
    assert (read.width, read.depth, read.num_heads, read.hidden) == (768, 3, 12, 3072)
    assert (read.patch_size, read.image_size, read.out_dims) == (
        (32, 32),
        (96, 96),
        512,
    )


def test_read_clip__configurations_tell_what_tensors_do_not(tower, tmp_path):
    save_file(visual(tower), tmp_path / "open_clip_model.safetensors")
    write_json(
        tmp_path / "open_clip_config.json",
        model_cfg=dict(vision_cfg=dict(width=WIDTH, head_width=32)),
        preprocess_cfg=dict(mean=[0.5, 0.4, 0.2], std=[0.2, 0.2, 0.2]),
    )
    read = read_clip(tmp_path)
    assert (read.num_heads, read.act) == (4, "gelu")
    assert read.mean == (0.5 * 255, 0.4 * 255, 0.2 * 255)

    save_file(hugging_face(tower), tmp_path / "model.safetensors")
    vision = dict(hidden_size=WIDTH, num_attention_heads=8)
    write_json(
        tmp_path / "config.json",
        vision_config=dict(vision, hidden_act="gelu", layer_norm_eps=1e-6),
    )
    write_json(
        tmp_path / "preprocessor_config.json", image_mean=[0, 0, 0], image_std=[1, 1, 1]
    )
    read = read_clip(tmp_path)
    assert (read.num_heads, read.act, read.norm_eps) == (8, "gelu", 1e-6)
    assert read.std == (255, 255, 255)
    assert read_clip(tmp_path, num_heads=4, act="quick_gelu").num_heads == 4


def test_read_clip__what_is_missing_is_said_with_what_to_give(tmp_path):
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(FileNotFoundError) as info:
            read_clip(path)
        for word in (str(path), "OpenAI CLIP ViT-B/16", "state dict", "Hugging Face"):
            assert word in str(info.value)
    assert "model.safetensors" in str(info.value)


def resnet(_tower):
    return {
        "visual.conv1.weight": torch.zeros(4, 3, 3, 3),
        "visual.attnpool.positional_embedding": torch.zeros(50, 8),
    }


def text_only(tower):
    whole = whole_clip(tower).state_dict()
    return {k: v for k, v in whole.items() if not k.startswith("visual.")}


def hugging_face_text(_tower):
    return {"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2)}


def siglip(_tower):
    return hugging_face_text(_tower) | {
        "vision_model.embeddings.patch_embedding.bias": torch.zeros(2)
    }


def a_classifier(_tower):
    return {"backbone.cls_token": torch.zeros(1), "backbone.pos_embed": torch.zeros(1)}


def layer_scale(tower):
    return visual(tower) | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(1)}


def without_projection(tower):
    return {k: v for k, v in hugging_face(tower).items() if "visual" not in k}


def without_a_norm(tower):
    return {k: v for k, v in visual(tower).items() if "1.ln_2" not in k}


def without_key_projection(tower):
    state = hugging_face(tower)
    del state["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    return state


def oblong(tower):
    return tower | {"positional_embedding": torch.zeros(1 + 12, WIDTH)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (resnet, "a CLIP with a ResNet.*visual.conv1.weight.*give the OpenAI"),
        (text_only, "the text half of a CLIP, and.*text_projection.*give the OpenAI"),
        (hugging_face_text, "the text half.*text_model"),
        (siglip, "no Vision Transformer of CLIP's.*patch_embedding.bias"),
        (a_classifier, "no image tower of a CLIP.*backbone.cls_token.*give the OpenAI"),
        (layer_scale, "another architecture.*resblocks.0.ls_1.gamma.*give the OpenAI"),
        (
            without_projection,
            "lacks visual_projection.weight: give.*projection included",
        ),
        (without_a_norm, "lacks .*1.ln_2.bias, transformer.resblocks.1.ln_2.weight"),
        (without_key_projection, "layers.1.self_attn.q_proj.bias"),
        (oblong, "12 positions, which are no square"),
    ],
)
def test_read_clip__another_model_is_refused_with_its_keys(
    content, message, tower, tmp_path
):
    torch.save(content(tower), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path / "x.pth")


def test_read_clip__heads_that_cannot_be_are_refused(tmp_path, tower, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(tower, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="num_heads=5 does not divide the width 128"):
        read_clip(tmp_path / "x.pth", num_heads=5)
    # open_clip's ViT-H has 16 heads of 80 channels: 64 would divide it too.
    for width in (32, 1280):
        torch.save(clip_state_dict(width=width, layers=1, patch=8, size=16), "x.pth")
        with pytest.raises(ValueError, match=f"width {width} .* give num_heads"):
            read_clip("x.pth")
    assert read_clip("x.pth", num_heads=16).num_heads == 16


def test_read_clip__unknown_activation_and_wrong_neighbour_are_refused(tmp_path, tower):
    save_hugging_face(tower, tmp_path)
    with pytest.raises(ValueError, match=re.escape("act='relu' is none of CLIP's")):
        read_clip(tmp_path, act="relu")
    write_json(tmp_path / "config.json", vision_config=dict(hidden_size=1024))
    with pytest.raises(
        ValueError, match="width 1024, but the weights next to it have 128"
    ):
        read_clip(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{bad", "config.json is no JSON"),
        ("[1]", "config.json holds a list, not a mapping"),
        (
            dict(model_type="vit", hidden_size=WIDTH, num_attention_heads=4),
            "config.json is the configuration of another model .*'vit'",
        ),
        (dict(vision_config=None), "another model"),
        (dict(vision_config=[1]), r"vision_config is \[1\], not a mapping"),
        (
            dict(
                vision_config=dict(
                    hidden_size=WIDTH, num_attention_heads=2, layer_norm_eps="x"
                )
            ),
            "config.json gives 'x' for the LayerNorms' eps",
        ),
    ],
)
def test_read_clip__a_foreign_or_damaged_configuration_is_refused(
    content, message, tower, tmp_path
):
    save_hugging_face(tower, tmp_path)
    file = tmp_path / "config.json"
    if isinstance(content, str):
        file.write_text(content)
    else:
        write_json(file, **content)
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dict(model_cfg=dict(vision_cfg=dict(head_width=0))), "head_width=0"),
        (dict(model_cfg=3), "model_cfg is 3, not a mapping"),
        (dict(preprocess_cfg=dict(mean=0.5, std=0.5)), "0.5 as mean or standard"),
    ],
)
def test_read_clip__a_damaged_open_clip_configuration_is_refused(
    content, message, tower, tmp_path
):
    save_file(visual(tower), tmp_path / "open_clip_model.safetensors")
    write_json(tmp_path / "open_clip_config.json", **content)
    with pytest.raises(ValueError, match=f"open_clip_config.json .*{message}"):
        read_clip(tmp_path)


@pytest.mark.parametrize(
    ("key", "shape", "wanted"),
    [
        ("transformer.resblocks.0.mlp.c_fc.weight", (10, WIDTH), "512, 128"),
        ("transformer.resblocks.1.attn.in_proj_bias", (WIDTH,), "384"),
        ("transformer.resblocks.1.ln_1.weight", (WIDTH, 1), "128"),
        ("conv1.weight", (WIDTH, 1, 8, 8), "128, 3, any, any"),
        ("class_embedding", (1, 1, 5, 7), "35"),
        ("proj", (3,), "128, any"),
    ],
)
def test_read_clip__tensors_that_do_not_fit_together_are_named(
    key, shape, wanted, tower, tmp_path
):
    torch.save(tower | {key: torch.zeros(shape)}, tmp_path / "x.pth")
    message = f"{key} has the shape {shape}, but ({wanted}"
    with pytest.raises(ValueError, match=f"{re.escape(message)}.*give the OpenAI"):
        read_clip(tmp_path / "x.pth")


def test_read_clip__arguments_of_other_types_are_refused(tower, tmp_path):
    with pytest.raises(TypeError, match="checkpoint=None is no path: give the OpenAI"):
        read_clip(None)
    torch.save(tower, tmp_path / "x.pth")
    for heads in ("2", 2.0, True):
        with pytest.raises(TypeError, match=f"num_heads={heads!r} is no whole number"):
            read_clip(tmp_path / "x.pth", num_heads=heads)
