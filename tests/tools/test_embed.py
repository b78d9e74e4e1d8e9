"""The command line: a folder of images in, a file of features out."""

import runpy
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import ROOT, tiny_model

TOOL = ROOT / "tools" / "embed.py"


@pytest.fixture
def tool(capsys):
    """Runs the tool in this process; returns what it printed."""
    main = runpy.run_path(str(TOOL))["main"]

    def run(*args):
        main([str(arg) for arg in args])
        return capsys.readouterr().out

    return run


@pytest.fixture
def run_folder(tmp_path):
    """What training leaves, and two images."""
    (tmp_path / "tiny.py").write_text(f"model = {tiny_model()!r}\n")
    model = MODELS.build(tiny_model())
    torch.save({"state_dict": model.state_dict()}, tmp_path / "epoch_1.pth")
    (tmp_path / "images").mkdir()
    for name in "ab":
        picture = np.full((40, 32, 3), ord(name), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), picture)
    return tmp_path


def test_help__answers_at_once():
    out = subprocess.run(
        [sys.executable, TOOL, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "torchrun --nproc_per_node 8 tools/embed.py" in out
    assert "--skip-unreadable" in out


def test_folder__becomes_a_file(run_folder, tool):
    out = tool(
        *(run_folder / "images", "-o", run_folder / "x.npz"),
        *("--checkpoint", run_folder / "epoch_1.pth", "--features", "mean", "patch"),
        *("--batch-size", 1, "--workers", 0, "--device", "cpu"),
    )
    line = "x.npz: mean (2, 24), patch (2, 16, 24)"
    assert out.strip().splitlines()[-1].endswith(line)
    found = np.load(run_folder / "x.npz")
    assert found["files"].tolist() == ["a.jpg", "b.jpg"]
    assert found["patch"].shape == (2, 16, 24)


def test_options__replace_values_of_the_config(run_folder, tool):
    smaller = "model.backbone.img_size=16"
    out = tool(
        *(run_folder / "images", "-o", run_folder / "x.npz", "--workers", 0),
        *("--model", run_folder / "tiny.py", "--features", "patch"),
        *("--checkpoint", run_folder / "epoch_1.pth", "--cfg-options", smaller),
    )
    assert "patch (2, 4, 24)" in out


def test_mistakes__are_one_line(run_folder, tool):
    images = run_folder / "images"
    with pytest.raises(SystemExit, match="^error: name the model.*--debug shows"):
        tool(images, "-o", run_folder / "x.npz")
    (images / "c.png").touch()
    with pytest.raises(SystemExit, match="c.png cannot be read"):
        tool(
            *(images, "-o", run_folder / "x.npz", "--workers", 0),
            *("--checkpoint", run_folder / "epoch_1.pth"),
        )
    assert not (run_folder / "x.npz").exists()
    with pytest.raises(ValueError, match="name the model"):
        tool(images, "-o", run_folder / "x.npz", "--debug")
