"""MIRL's official keys and layouts."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file, save_file
from samples import ROOT, golden_folder

from dev.parity import run_case
from mim_plugins.checkpoints.layouts.mirl import (
    convert_official,
    convert_to_official,
    is_paddle_layout,
    transpose_linears,
)

FULL_SIZE = {
    "vit_s54_pretrain": "vits54_800e.py",
    "vit_b24_pretrain": "vitb24_300e.py",
    "vit_b48_pretrain": "vitb48_800e.py",
    "vit_s54_finetune": "benchmarks/vits54_finetune-100e_in1k.py",
    "vit_b24_finetune": "benchmarks/vitb24_finetune-100e_in1k.py",
    "vit_b48_finetune": "benchmarks/vitb48_finetune-60e_in1k.py",
    "vit_b12_finetune": "benchmarks/vitb_finetune-100e_in1k.py",
    "vit_s54_finetune_cls_token": "benchmarks/vits54_finetune-100e_in1k.py",
}


def official_state(name):
    """Tensors of the official shapes that hold no memory."""
    content = json.loads(golden_folder(f"mirl/keys/{name}.json").read_text())
    shapes = content["tensors"]
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def meta(state):
    return {key: value.to("meta") for key, value in state.items()}


def shapes(state):
    return {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_keys__convert_with_nothing_missing_or_left_over(name):
    cfg = Config.fromfile(ROOT / "configs" / "mirl" / FULL_SIZE[name])
    cfg.model.backbone.init_cfg = None
    if name.endswith("cls_token"):
        cfg.model.backbone.update(out_type="cls_token", final_norm=True)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    ours = shapes(model.state_dict())
    ours.pop("data_preprocessor.mean", None), ours.pop("data_preprocessor.std", None)
    official = official_state(name)
    converted = convert_official(meta(official))
    assert shapes(converted) == ours
    assert shapes(convert_to_official(converted)) == shapes(official)


def test_full_size__parameters_are_as_many_as_published():
    cfg = Config.fromfile(ROOT / "configs/mirl/benchmarks/vits54_finetune-100e_in1k.py")
    with torch.device("meta"):
        encoder = MODELS.build(cfg.model.backbone)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(96.19e6, 1e-4)


def golden_state():
    folder = golden_folder("mirl/pretrain_b48like")
    return load_file(folder / "weights.safetensors")


def test_round_trip__gives_every_value_back():
    official = golden_state()
    back = convert_to_official(convert_official(official))
    assert set(back) == set(official)
    assert all(torch.equal(back[key], official[key]) for key in official)


def test_torch_layout__is_recognised_and_not_transposed_again():
    paddle = golden_state()
    torch_layout = transpose_linears(paddle)
    assert is_paddle_layout(paddle) and not is_paddle_layout(torch_layout)
    a, b = convert_official(paddle), convert_official(torch_layout)
    assert all(torch.equal(a[key], b[key]) for key in a)
    exported = convert_to_official(a, paddle_layout=False)
    assert all(torch.equal(exported[key], torch_layout[key]) for key in exported)


@pytest.mark.parametrize(
    "key",
    ["blocks.3.attn.proj.weight", "decoder_blocks2.1.cross_attn.q.weight"],
)
def test_square_matrix__left_untransposed_is_caught(tmp_path, key):
    """Its shape does not show it; the values of the official code do."""
    folder = tmp_path / "case"
    shutil.copytree(golden_folder("mirl/pretrain_b48like"), folder)
    state = golden_state()
    assert state[key].shape[0] == state[key].shape[1]
    converted = convert_official(state)
    assert any(torch.equal(value, state[key].T) for value in converted.values())
    assert not any(torch.equal(value, state[key]) for value in converted.values())
    state[key] = state[key].T.contiguous()
    (folder / "weights.safetensors").unlink()
    save_file(state, folder / "weights.safetensors")
    report = run_case(folder)
    assert not report.ok and report.max_rel > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.0.attn.rel_bias": torch.ones(1)}, "blocks.0.attn.rel_bias"),
        ({"decoder_norm6.weight": torch.ones(1)}, "decoder_norm6.weight"),
        ({"norm5.bias": torch.ones(1)}, "norm5.bias"),
    ],
)
def test_unknown_keys__are_named(changes, message):
    with pytest.raises(KeyError, match=message):
        convert_official(golden_state() | changes)


def test_other_layouts__are_refused():
    with pytest.raises(KeyError, match="not an official MIRL checkpoint"):
        convert_official({"conv1.weight": torch.ones(1)})
    with pytest.raises(KeyError, match="it has no blocks.0.attn.qkv"):
        convert_official({"patch_embed.proj.weight": torch.ones(1, 1, 1, 1)})
