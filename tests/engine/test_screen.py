"""What a run shows on the screen, and what only its log file has."""

import io
import logging
import re
import sys
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from samples import ROOT

from mim_plugins.engine import screen, train

CONFIG = ROOT / "configs" / "demo" / "mae_digits.py"
_names = count()

# What mmengine says at the start, and at the end of every epoch.
HIDDEN = (
    "System environment",
    "Hooks will be",
    "Exp name",
    "deprecated",
    "Saving check",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path):
    """Trains on eight images: ``run(epochs, verbose)`` -> the text of the log file."""
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(8):
        image = draw.integers(0, 255, (20, 24), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)

    def call(verbose: bool = False) -> str:
        runner = train(
            CONFIG,
            work_dir=str(tmp_path / "work"),
            verbose=verbose,
            cfg_options={
                "data_root": str(tmp_path / "images"),
                "train_dataloader.batch_size": 4,
                "train_dataloader.num_workers": 0,
                "train_dataloader.persistent_workers": False,
                "auto_scale_lr.base_batch_size": 4,
                "train_cfg.max_epochs": 12,
                "experiment_name": f"screen_{next(_names)}",
            },
        )
        return Path(runner.logger.log_file).read_text()

    return call


def test_run__a_summary_then_a_line_per_epoch(run, capfd) -> None:
    log = run()
    shown = capfd.readouterr()
    lines = shown.out.splitlines()
    first = next(i for i, line in enumerate(lines) if "Epoch(train)" in line)
    assert first <= 10
    summary = "\n".join(lines[:first])
    for words in (
        "precision: fp32 on cpu",
        "schedule: 12 epochs",
        "for the real batch of 4",
        "8 images below ",
        "model: MaskedImageModel with MIMVisionTransformer of 6 blocks",
        "images of 16x16 pixels",
        "data: 8 training images from ",
        "all log lines are in ",
    ):
        assert words in summary
    figures = lines[first:]
    assert len(figures) == 12 and not shown.err
    for epoch, line in enumerate(figures, 1):
        pattern = (
            rf" Epoch\(train\) \[{epoch}\]\[2/2\]  loss: \d+\.\d{{4}}  lr: .* eta: "
        )
        assert re.search(pattern, line) and line.endswith("images/s")
    assert not any(words in shown.out for words in HIDDEN)
    # The file has them, and all figures of mmengine's line.
    assert all(words in log for words in (*HIDDEN, "Config:", "data_time: "))
    assert log.count("Epoch(train)") == 12


def test_run__verbose_shows_all_that_the_file_gets(run, capfd) -> None:
    run(verbose=True)
    shown = capfd.readouterr().out
    assert all(words in shown for words in (*HIDDEN, "Config:", "data_time: "))


def test_run__on_a_terminal_everything_with_the_bar_fits_80_columns(
    run, monkeypatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    run()
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in re.split("[\r\n]", drawn) if line.strip()]
    bars = [line for line in lines if line.startswith("epoch ")]
    figures = [line for line in lines if line.startswith("Epoch(train)")]
    assert "24/24" in bars[-1] and "ETA" in bars[-1] and "loss " in bars[-1]
    assert len(figures) == 12 and set(lines[lines.index(bars[0]) :]) <= {
        *bars,
        *figures,
    }
    assert max(map(len, bars + figures)) <= 80
    assert lines.index(bars[0]) <= 10


class Said:
    """A logger with a screen, and what is on it; ``now`` is its clock."""

    def __init__(self, folder: Path, monkeypatch, stream: io.StringIO) -> None:
        monkeypatch.setattr(sys, "stdout", stream)
        self.file, self.stream, self.now = folder / "run.log", stream, 0.0
        self.logger = MMLogger(f"said_{next(_names)}", log_file=str(self.file))
        screen.show(self.logger)
        monkeypatch.setattr(screen.time, "monotonic", lambda: self.now)

    def by(self, module: str, message: str, level: int = logging.INFO) -> list[str]:
        """What is new on the screen after a module has logged."""
        before = len(self.stream.getvalue())
        namespace = dict(__name__=module, logger=self.logger)
        exec("def say(*args): logger.log(*args)", namespace)
        namespace["say"](level, message)
        new = self.stream.getvalue()[before:]
        return [re.sub(r"^\d\d/\d\d [\d:]{8}  ", "", line) for line in new.splitlines()]


@pytest.fixture
def said(tmp_path, monkeypatch) -> Said:
    return Said(tmp_path, monkeypatch, io.StringIO())


def test_warnings__are_shown_whoever_says_them(said) -> None:
    for module in ("mim_plugins.engine.launch", "mmengine.runner.runner", "mmdet.x"):
        for level in (logging.WARNING, logging.ERROR):
            name = logging.getLevelName(level)
            assert said.by(module, f"{module} {level}", level) == [
                f"{name}: {module} {level}"
            ]


def test_warnings__keys_are_not_listed_again_below_our_table(said) -> None:
    ours, theirs = "mim_plugins.checkpoints.loading.adapt", "mmengine.runner.checkpoint"
    keys = "The model and loaded state dict do not match exactly\n\nunexpected key in x"
    # Of a model that we have no table of, they are.
    assert said.by(theirs, keys, logging.WARNING)[0].startswith("WARNING: The model")
    for table in ("loaded\nx.pth: 3 tensors", "converted on load\nx.pth: 3 tensors"):
        assert said.by(ours, table) == table.splitlines()
        assert said.by(theirs, f"{keys} {table}", logging.WARNING) == []
        # The table is of one model only.
        assert said.by(theirs, f"{keys} {table}.", logging.WARNING)
    assert said.file.read_text().count("do not match exactly") == 5


def test_libraries__what_only_mmengine_finds_interesting_is_in_the_file(said) -> None:
    for module, message in (
        ("mmengine.runner.runner", "Config:\nx = 1"),
        ("mmengine.runner.checkpoint", "load model from: x"),
        ("mmengine.hooks.logger_hook", "Exp name: x"),
        ("mmengine.hooks.checkpoint_hook", "Saving checkpoint at 3 epochs"),
        ("mmengine.optim.optimizer.default_constructor", "paramwise_options -- x"),
    ):
        assert said.by(module, message) == []
        assert message in said.file.read_text()
    for module, message in (
        ("mmengine.hooks.checkpoint_hook", "The best checkpoint with 0.9 is saved"),
        ("mmengine.hooks.early_stopping_hook", "the monitored metric did not improve"),
        ("mmseg.evaluation.metrics.iou_metric", "per class results:"),
        ("mmengine.evaluator.metric", "a table"),
        ("my_project.hooks", "mine"),
        ("mim_plugins.evaluation.knn_hook", "k-NN after epoch 3: knn_top1: 50 %"),
    ):
        assert said.by(module, message) == [message]


LINE = (
    "Epoch(train)   [{}][{:>4}/1251]  base_lr: 1.0000e-03 lr: 2.0000e-04  "
    "eta: 1 day, 2:03:04  time: 0.5000  data_time: 0.0100  memory: 9000  loss: 0.5000  "
    "loss_0: 0.2500  loss_1: 0.2500  images_per_s: 812.3456"
)


def test_figures__by_the_minute_and_by_epoch_without_a_terminal(said) -> None:
    hook = "mmengine.hooks.logger_hook"
    said.logger.handlers[0].filters[-1].interval = 50
    shown = []
    for epoch in (1, 2):
        for done in range(50, 1251, 50):
            said.now += 25
            if lines := said.by(hook, LINE.format(epoch, done)):
                shown.append((epoch, done))
    # The first, then the first after a minute each time, and the last of an epoch.
    first = [50, *range(200, 1251, 150)]
    assert shown[: len(first)] == [(1, done) for done in first]
    assert shown[-1] == (2, 1250)
    assert lines == [
        "Epoch(train) [2][1250/1251]  loss: 0.5000  lr: 2.00e-04  eta: 1 day, 2:03:04  "
        "812 images/s  memory: 9000  loss_0: 0.2500  loss_1: 0.2500"
    ]


def test_figures__on_a_terminal_by_epoch_and_in_80_columns(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = Said(tmp_path, monkeypatch, Terminal())
    said.logger.handlers[0].filters[-1].interval = 50
    hook = "mmengine.hooks.logger_hook"
    shown = []
    for done in range(50, 1251, 50):
        said.now += 25
        shown += said.by(hook, LINE.format(1, done))
    assert shown == [
        "Epoch(train) [1][1250/1251]  loss: 0.5000  lr: 2.00e-04  eta: 1 day, 2:03:04"
    ]
    # The bar shows no validation; the minute counts there, and results are shown.
    for result in (
        "Epoch(val) [1][2/2]    accuracy/top1: 90.1250  beta: 0.1",
        "Epoch(test) [2/2]    precision: [90.1, 80.2]  matrix: \ntensor([[1, 2]])",
    ):
        lines = said.by(hook, f"{result}  data_time: 0.0100  time: 0.1000")
        assert lines == result.split("\n")
    assert said.by(hook, "Iter(train) [  50/9000]  lr: 1.0e-01  loss: nan") == []
    said.now += 60
    assert said.by(hook, "Iter(train) [ 100/9000]  lr: 1.0e-01  loss: nan") == [
        "Iter(train) [100/9000]  loss: nan  lr: 1.00e-01"
    ]


def test_long_lines__are_cut_on_the_screen_only(said) -> None:
    (line,) = said.by("mim_plugins.engine.optimizers", "groups " * 100)
    assert len(line) < 250 and line.endswith(" …")
    assert "groups " * 100 in said.file.read_text()
    # A warning is complete.
    (line,) = said.by("mim_plugins.engine", "why " * 100, logging.WARNING)
    assert len(line) > 390
