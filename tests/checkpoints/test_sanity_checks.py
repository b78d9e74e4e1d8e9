"""What is no part of a model, is missing, or has an impossible shape is refused."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import hiera_model, tiny_model
from whole_files import tensors

from mim_plugins.checkpoints import convert, convert_file, to_official
from mim_plugins.checkpoints.files import read

SWIN = dict(
    type="SwinTransformer",
    arch=dict(embed_dims=8, depths=(2, 2), num_heads=(1, 2)),
    img_size=32,
    window_size=4,
    out_indices=(1,),
)
CLASSIFIER = dict(
    type="ImageClassifier",
    backbone=SWIN,
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=16),
)
OURS = {"DeepMIM": tiny_model(), "Hiera": hiera_model(), "Swin": CLASSIFIER}


@pytest.fixture(params=OURS.values(), ids=OURS)
def ours(request):
    return MODELS.build(request.param).state_dict()


def test_ours__goes_through_whole_or_as_an_encoder_alone(ours):
    assert list(convert(ours).state) == [
        key for key in ours if not key.startswith("data_preprocessor.")
    ]
    encoder = {
        key.removeprefix("backbone."): x
        for key, x in ours.items()
        if key.startswith("backbone.")
    }
    assert set(convert(encoder).state) == {f"backbone.{key}" for key in encoder}


@pytest.mark.parametrize(
    "key", ["junk.weight", "backbone.junk.weight", "backbone.layers.0.attn.junk"]
)
def test_ours__with_a_key_of_nothing_is_refused(ours, key):
    with pytest.raises(ValueError, match=f"x.pth .*{key}"):
        convert({**ours, key: torch.ones(2)}, source="x.pth")


def test_official_file_said_to_be_ours__is_refused():
    with pytest.raises(ValueError, match=r"x\.pth .*16 keys are none of our enc"):
        convert(tensors(), "mmpretrain", source="x.pth")


def test_other_networks_with_stages_and_blocks__are_in_no_layout():
    convnext = {
        "stem.0.weight": torch.ones(4, 3, 4, 4),
        "stages.0.blocks.0.conv_dw.weight": torch.ones(4, 1, 7, 7),
        "stages.0.blocks.0.mlp.fc1.weight": torch.ones(16, 4, 1, 1),
    }
    with pytest.raises(ValueError, match="x.pth is in no known layout"):
        convert(convnext, source="x.pth")


LACKING = [
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "blocks.2.mlp.fc1.weight",
    "blocks.0.norm2.bias",
    "blocks.3.attn.qkv.bias",
    "decoder_blocks2.0.attn.proj.bias",
]


@pytest.mark.parametrize("key", LACKING)
def test_missing_tensor__is_refused(key):
    official, _ = to_official(MODELS.build(tiny_model()).state_dict())
    assert official.pop(key) is not None
    with pytest.raises(ValueError, match=r"x\.pth"):
        convert(official, source="x.pth")


def test_missing_block_and_merging__are_named(ours):
    name = "stages.1.blocks" if "backbone.stages.0.norm" in str(ours) else "layers"
    lacking = {k: x for k, x in ours.items() if f"{name}.0." not in k}
    if name == "layers" and any("stages" in key for key in ours):
        lacking = {k: x for k, x in ours.items() if "stages.0.downsample" not in k}
    with pytest.raises(ValueError, match="x.pth is incomplete: it lacks what becomes"):
        convert(lacking, source="x.pth")


def test_missing_tensor_of_one_block__has_no_neighbour_that_shows_it():
    state = tensors()
    convert(state)
    for key in state:
        if key.startswith("blocks.") and key != "blocks.0.attn.qkv.bias":
            with pytest.raises(ValueError, match=r"x\.pth"):
                convert({k: x for k, x in state.items() if k != key}, source="x.pth")


def reshaped(value):
    """A tensor with other dimensions, a tensor of none, and an empty one."""
    return value.flatten()[0], value[None], value[:0]


@pytest.mark.parametrize("layout", ["auto", "timm", "mirl", "localmim", "mae-lite"])
def test_tensor_of_other_dimensions__is_refused_by_name(layout):
    state = tensors()
    for key, value in state.items():
        for other in reshaped(value):
            with pytest.raises(ValueError, match=rf"x\.pth.* {key}\b"):
                convert({**state, key: other}, layout, source="x.pth")


def test_array_among_tensors__is_one_of_them(tmp_path):
    state = tensors()
    key = "blocks.0.attn.qkv.bias"
    array = state[key].numpy().astype(">f4")
    torch.save({"model": {**state, key: array}}, tmp_path / "x.pth")
    assert torch.equal(read(tmp_path / "x.pth").tensors[key], state[key])
    convert_file(tmp_path / "x.pth", tmp_path / "y.pth")
    assert "backbone.layers.0.attn.qkv.bias" in read(tmp_path / "y.pth").tensors


@pytest.mark.parametrize("value", [1.5, np.ones(3, "u4"), [1.0, 2.0]])
def test_numbers_that_are_no_tensor__are_refused(tmp_path, value):
    key = "blocks.0.attn.qkv.bias"
    torch.save({"model": {**tensors(), key: value}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=rf"x\.pth: {key} is a .*, not a tensor"):
        read(tmp_path / "x.pth")
