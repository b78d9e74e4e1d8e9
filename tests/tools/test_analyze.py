"""The command line: tables and plots of every quantity, and what is refused."""

import csv
import json
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, tiny_model

TOOL = ROOT / "tools" / "analyze.py"
BLOCKS = TINY_ARCH["num_layers"]


@pytest.fixture
def tool(capsys, monkeypatch, tmp_path):
    """Runs the tool in this process, in a folder of its own."""
    main = runpy.run_path(str(TOOL))["main"]
    monkeypatch.chdir(tmp_path)

    def run(*args):
        main([*map(str, args), "--workers", "0", "--batch-size", "6"])
        return capsys.readouterr().out

    return run


def write_images(folder, classes=("cat", "dog"), count=6):
    rng = np.random.default_rng(0)
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(0, 60, (32, 32, 3)) + 150 * shade
            path = folder / name / f"{index}.png"
            cv2.imwrite(str(path), picture.astype(np.uint8))
    return folder


@pytest.fixture
def run_folder(tmp_path):
    """A config and two checkpoints of a run."""
    (tmp_path / "tiny.py").write_text(f"model = {tiny_model()!r}\n")
    for epoch in (1, 2):
        model = MODELS.build(tiny_model())
        model.init_weights()
        path = tmp_path / f"epoch_{epoch}.pth"
        torch.save({"state_dict": model.state_dict()}, path)
    write_images(tmp_path / "val")
    write_images(tmp_path / "train")
    return tmp_path


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("options", [[], ["--exact-cka"], ["--paper-figures"]])
def test_two_checkpoints_of_a_run_are_compared(tool, run_folder, options):
    given = ["tiny.py", "epoch_1.pth", "epoch_2.pth", "--data", "val"]
    said = tool(*given, "--train-data", "train", *options)
    assert "12 images" in said
    out = run_folder / "analysis"
    found = json.loads((out / "analysis.json").read_text())
    paper = "--paper-figures" in options
    assert found["images"] == 12
    assert found["paper_figures"] == paper
    assert ("paper figures" in found["quantities"]["distance"]) == paper
    assert list(found["blocks"]) == ["epoch_1", "epoch_2"]
    assert len(found["blocks"]["epoch_1"]) == BLOCKS
    for row in found["blocks"]["epoch_1"]:
        # Dark and bright images are told apart by anything.
        assert row["linear"] == row["knn"] == 100
        assert all(0 < x < 46 for x in row["distance"])
    own, between, _ = found["cka"]
    assert own["models"] == ["epoch_1"] * 2
    assert between["models"] == ["epoch_1", "epoch_2"]
    assert np.diag(own["values"]) == pytest.approx(1, abs=1e-5)
    assert np.shape(between["values"]) == (BLOCKS + paper,) * 2
    heads, blocks = table(out / "heads.csv"), table(out / "blocks.csv")
    assert len(heads) == 2 * BLOCKS * TINY_ARCH["num_heads"]
    assert len(blocks) == 2 * BLOCKS
    assert {"mean_entropy", "token_similarity", "linear"} < set(blocks[0])
    names = {path.name for path in out.iterdir()}
    for stem in ("distance", "entropy", "linear", "cka_epoch_1_epoch_2"):
        assert {f"{stem}.png", f"{stem}.svg"} < names
    assert cv2.imread(str(out / "distance.png")).shape[1] > 300


def test_without_labels_there_are_no_probes(tool, run_folder):
    tool("tiny.py", "epoch_1.pth", "--data", "val", "--num-images", "7")
    out = run_folder / "analysis"
    assert "linear" not in table(out / "blocks.csv")[0]
    assert not (out / "linear.png").exists()
    # 7 images in batches of 6: the last one is too small for an unbiased estimate.
    assert json.loads((out / "analysis.json").read_text())["images"] == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["epoch_1.pth", "--data", "val"], "epoch_1.pth comes first"),
        (["tiny.py", "epoch_1.pth", "epoch_1.pth", "--data", "val"], "given twice"),
        (["tiny.py", "epoch_1.pth", "--data", "empty"], "no folder empty"),
        (
            ["tiny.py", "epoch_1.pth", "--data", "val", "--train-data", "other"],
            "other class folders: bird, cat",
        ),
        (["tiny.py", "--data", "val"], "no weights are known"),
        (
            ["tiny.py", "epoch_1.pth", "--data", "val", "--num-images", "3"],
            "has 3 images, at least 4",
        ),
    ],
)
def test_bad_input_ends_in_a_sentence(tool, run_folder, given, message):
    write_images(run_folder / "other", ("bird", "dog"))
    with pytest.raises(SystemExit, match=message):
        tool(*given)
