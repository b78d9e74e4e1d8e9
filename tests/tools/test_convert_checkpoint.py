"""The command line: any official file in, any layout out, nothing silent."""

import os
import runpy
import subprocess
import sys

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import ROOT, clip_state_dict, golden_folder, tiny_model

from mim_plugins.checkpoints.files import read

TOOL = ROOT / "tools" / "convert_checkpoint.py"


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed."""
    main = runpy.run_path(str(TOOL))["main"]

    def run(*args):
        main([str(arg) for arg in args])
        return capsys.readouterr().out

    return run


def official_file(case, path):
    weights = load_file(golden_folder(case) / "weights.safetensors")
    torch.save({"model": weights, "epoch": 3}, path)
    return path, weights


def test_help__explains_by_example_at_once():
    out = subprocess.run(
        [sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--to timm" in out and "checkpoint_path='timm.pth'" in out
    assert "--trust" in out


def test_official_to_ours_and_back(tmp_path, tool):
    source, official = official_file("deepmim/mae_pixel", tmp_path / "x.pth")
    out = tool(source, tmp_path / "ours.pth")
    assert f"{source}: DeepMIM's official layout, {len(official)} tensors" in out
    assert f"converted   {len(official)}" in out
    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert "backbone.layers.0.ln1.weight" in content["state_dict"]
    tool(tmp_path / "ours.pth", tmp_path / "back.pth", "--to", "official")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], official[key]) for key in back)


def test_paddle_file__and_back(tmp_path, tool):
    official = load_file(golden_folder("mirl/pretrain_b48like") / "weights.safetensors")
    from mim_plugins.checkpoints.files import save_state

    save_state(official, tmp_path / "x.pdparams")
    tool(tmp_path / "x.pdparams", tmp_path / "ours.safetensors")
    tool(tmp_path / "ours.safetensors", tmp_path / "back.pdparams", "--to", "official")
    back = read(tmp_path / "back.pdparams").tensors
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], official[key]) for key in back)
    with pytest.raises(SystemExit, match="only MIRL's official layout has"):
        tool(tmp_path / "x.pdparams", tmp_path / "t.pdparams", "--to", "timm")


def test_encoder_only_at_another_size(tmp_path, tool):
    source, official = official_file("deepmim/mae_pixel", tmp_path / "x.pth")
    patch = official["patch_embed.proj.weight"].shape[-1]
    size = (3 * patch, 5 * patch)
    out = tool(
        source, tmp_path / "y.pth", "--encoder-only", "--img-size", *size, "--antialias"
    )
    state = read(tmp_path / "y.pth").tensors
    assert state["backbone.pos_embed"].shape[1] == 16
    assert all(key.startswith("backbone.") for key in state)
    assert "the encoder alone is asked for" in out and "positions to 3x5" in out
    # From there, whose grid is not square, only with a word on it.
    with pytest.raises(SystemExit, match="--old-size H W"):
        tool(tmp_path / "y.pth", tmp_path / "z.pth", "--img-size", 4 * patch)
    tool(
        *(tmp_path / "y.pth", tmp_path / "z.pth", "--img-size", 4 * patch),
        *("--old-size", *size),
    )
    assert read(tmp_path / "z.pth").tensors["backbone.pos_embed"].shape[1] == 17


def test_window_size__resizes_swins_tables(tmp_path, tool):
    source, official = official_file("localmim/swin_hog", tmp_path / "x.pth")
    out = tool(source, tmp_path / "y.pth", "--window-size", "5")
    tables = {
        key: len(value)
        for key, value in read(tmp_path / "y.pth").tensors.items()
        if key.endswith("bias_table")
    }
    assert set(tables.values()) == {81} and "offsets to 81" in out
    with pytest.raises(SystemExit, match="for a Swin Transformer give --window-size"):
        tool(source, tmp_path / "z.pth", "--img-size", 64)


def test_clip__becomes_an_encoder(tmp_path, tool):
    tower = {f"visual.{k}": x for k, x in clip_state_dict(size=64).items()}
    torch.save(tower | {"token_embedding.weight": torch.ones(1)}, tmp_path / "x.pth")
    out = tool(tmp_path / "x.pth", tmp_path / "y.pth")
    state = read(tmp_path / "y.pth").tensors
    assert state["backbone.pre_norm.weight"].shape == (64,)
    assert "the projection into the space of texts" in out and "text tower" in out


def test_code_in_a_file__is_refused_by_name_and_runs_when_trusted(tmp_path, tool):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    state = MODELS.build(tiny_model()).state_dict()
    torch.save({"state_dict": state, "extra": Evil()}, tmp_path / "x.pth")
    with pytest.raises(SystemExit, match=r"refused: it refers to \w+\.mkdir.*--trust"):
        tool(tmp_path / "x.pth", tmp_path / "y.pth")
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "y.pth").exists()
    tool(tmp_path / "x.pth", tmp_path / "y.pth", "--trust")
    assert (tmp_path / "was_run").exists() and (tmp_path / "y.pth").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "localmim"], "does not fit it.*name it .--from"),
        (["--num-heads", "3"], "was trained with 12 attention heads"),
        (["--img-size", "1", "2", "3"], "takes a side, or height and width"),
        (["--img-size", "33"], "does not divide into patches"),
        (["--window-size", "7"], "give --img-size"),
        (["--part", "teacher"], "holds no teacher"),
    ],
)
def test_options_that_do_not_fit__are_one_line(tmp_path, tool, options, message):
    width = 192
    state = {
        "cls_token": torch.zeros(1, 1, width),
        "pos_embed": torch.zeros(1, 5, width),
        "patch_embed.proj.weight": torch.zeros(width, 3, 16, 16),
        "patch_embed.proj.bias": torch.zeros(width),
        "decoder_embed.weight": torch.zeros(8, width),
    }
    for name, rows in {"attn.qkv": 3 * width, "mlp.fc1": width}.items():
        state[f"blocks.0.{name}.weight"] = torch.zeros(rows, width)
        state[f"blocks.0.{name}.bias"] = torch.zeros(rows)
    for name in ("attn.proj", "mlp.fc2"):
        state[f"blocks.0.{name}.weight"] = torch.zeros(width, width)
        state[f"blocks.0.{name}.bias"] = torch.zeros(width)
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
        state[f"blocks.0.{name}"] = torch.zeros(width)
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(SystemExit, match=message):
        tool(tmp_path / "x.pth", tmp_path / "y.pth", *options)
    assert not (tmp_path / "y.pth").exists()


def test_missing_file_and_folder__are_named(tmp_path, tool):
    with pytest.raises(SystemExit, match="no checkpoint file"):
        tool(tmp_path / "none.pth", tmp_path / "y.pth")
    source, _ = official_file("deepmim/mae_pixel", tmp_path / "x.pth")
    with pytest.raises(SystemExit, match="no folder"):
        tool(source, tmp_path / "none" / "y.pth")
