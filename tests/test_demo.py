"""What `make demo` does, in its smallest form."""

import io
import re
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mim_plugins.demo import announce, quiet, runs
from mim_plugins.engine import InputError


def test_digits__test_part_is_held_out(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is in the extra [demo]")
    runs.write_digits(tmp_path)
    parts = {
        p: {f.stem for f in (tmp_path / p).rglob("*.png")} for p in ("train", "test")
    }
    assert len(parts["train"]) == 1437 and len(parts["test"]) == 360
    assert not parts["train"] & parts["test"]
    image = cv2.imread(str(next((tmp_path / "test" / "7").glob("*.png"))), -1)
    assert image.shape == (16, 16) and image.max() > 200

    init_default_scope("mmpretrain")
    chosen = runs._few_labels(tmp_path, seed=0)
    assert len(set(chosen)) == 100 and chosen != runs._few_labels(tmp_path, seed=1)
    # Untrained features already separate digits better than chance.
    assert 20 < runs.knn_accuracy(tmp_path, None, seed=0) < 90


def test_images__pre_trains_on_any_folder(tmp_path, monkeypatch, capfd):
    draw = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "photos" / f"{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = draw.integers(0, 255, (80, 70, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
    monkeypatch.setattr(runs, "IMAGES_SEEN", 1)
    with quiet(tmp_path / "out" / "demo.log"):
        results = runs.run_images(tmp_path / "photos", tmp_path / "out")
    shown = capfd.readouterr()
    # A line for the stage, one for every epoch; the rest is in the file.
    assert shown.out.startswith(
        "Pre-training DeepMIM for 11 epochs\n  epoch    1  loss"
    )
    assert len(shown.out.splitlines()) == 12 and not shown.err
    log = (tmp_path / "out" / "demo.log").read_text()
    assert "CheckInputHook" in log and len(log.splitlines()) > 50
    names = [name for name, _, _ in results]
    assert sorted(names) == ["block 3", "block 4", "block 5", "block 6", "loss"]
    assert all(last < first for _, first, last in results)
    assert (tmp_path / "out" / "loss_curves.png").is_file()
    assert list((tmp_path / "out").glob("images/reconstructions/*.png"))
    assert (tmp_path / "out" / "images" / "epoch_11.pth").is_file()
    # It can be repeated.
    assert runs.run_images(tmp_path / "photos", tmp_path / "out") == results


def test_images__missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        runs.run_images(tmp_path / "nowhere", tmp_path / "out")


def test_quiet__loggers_that_keep_the_stream_go_on(tmp_path, capsys):
    with quiet(tmp_path / "log.txt"):
        print("12:00 - INFO - Epoch(train)  [10][11/11]  loss: 0.5  loss_0: 0.1")
        print("a warning", file=sys.stderr)
        stream = sys.stdout
        announce("A stage", every=3)
        print(
            "Epoch(train)  [10][11/11]  loss: 0.5", "Epoch(train)  [12][1/1] loss: 0.4"
        )
    assert capsys.readouterr().out == (
        "  epoch   10  loss 0.5\nA stage\n  epoch   12  loss 0.4\n"
    )
    assert "a warning" in (tmp_path / "log.txt").read_text()
    print("later", file=stream)
    assert capsys.readouterr().out == "later\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_quiet__on_a_terminal_a_bar_of_80_columns(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with quiet(tmp_path / "demo.log"):
        announce("A stage", epochs=1000, every=100)
        for epoch in range(1, 1001):
            print(f"INFO - Epoch(train)  [{epoch}][11/11]  loss: 123.4567  x: 1")
        announce("Another one")
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line for line in re.split("[\r\n]", drawn) if line.strip()]
    assert lines[0] == "A stage" and lines[-1] == "Another one"
    assert all(line.startswith("  epoch ") for line in lines[1:-1])
    assert max(map(len, lines)) <= 80
    assert "1000/1000" in lines[-2] and "loss 123.4567" in lines[-2]
    assert len((tmp_path / "demo.log").read_text().splitlines()) == 1002


def test_digits__says_what_is_evaluated_and_how(tmp_path, monkeypatch, capsys):
    def pretrain(config, data, work_dir, hooks):
        work_dir.mkdir(parents=True)
        model = SimpleNamespace(state_dict=dict)
        return SimpleNamespace(work_dir=work_dir, model=model)

    monkeypatch.setattr(runs, "pretrain", pretrain)
    monkeypatch.setattr(runs, "write_digits", lambda folder: None)
    monkeypatch.setattr(runs, "draw_losses", lambda runners, path: None)
    monkeypatch.setattr(runs, "look_inside", lambda *args: None)
    monkeypatch.setattr(runs, "knn_accuracy", lambda *args: 91.0)
    monkeypatch.setattr(runs, "few_label_accuracy", lambda *args: 88.0)
    with quiet(tmp_path / "demo.log"):
        runs.run_digits(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[8:16] == [
        "Evaluating the encoder of MAE on 360 held-out digits",
        "  k-NN, by the vote of the 20 nearest of 1,437 digits: 91.0 %",
        *(
            line
            for number in (1, 2, 3)
            for line in (
                "  fine-tuning all weights on 10 labelled digits per class, "
                f"{number} of 3",
                "    88.0 % correct",
            )
        ),
    ]


def test_curves__are_named_as_the_pictures(tmp_path):
    values = SimpleNamespace(data=(np.arange(5.0),))
    scalars = {"train/loss": values, "train/loss_0": values, "train/loss_1": values}
    runner = SimpleNamespace(
        model=SimpleNamespace(level_names=["block 3", "block 6"]),
        message_hub=SimpleNamespace(log_scalars={**scalars, "train/lr": values}),
    )
    assert [name for name, _ in runs.losses_of(runner)] == [
        "loss",
        "block 3",
        "block 6",
    ]
    runs.draw_losses({"DeepMIM": runner}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
