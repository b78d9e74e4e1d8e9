"""Tests of the progress bar."""

import io
import logging
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from toy_run import make_runner

from mim_plugins.engine import ProgressBarHook
from mim_plugins.engine.hooks.progress_bar import _AboveTheBar


def terminal() -> Console:
    return Console(force_terminal=True, file=io.StringIO(), width=160, height=20)


def plain(console: Console) -> str:
    """What was drawn, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_terminal__shows_progress_losses_and_speed(tmp_path: Path) -> None:
    console = terminal()
    streams = sys.stdout, sys.stderr
    runner = make_runner(tmp_path, custom_hooks=[dict(type="ThroughputHook")])
    handler_streams = [getattr(h, "stream", None) for h in runner.logger.handlers]
    hook = ProgressBarHook(refresh=0.0, console=console)
    runner.register_hook(hook)
    runner.train()
    drawn = console.file.getvalue()
    assert "epoch 1/2" in drawn and "epoch 2/2" in drawn
    assert "6/6" in drawn and "ETA" in drawn
    assert "loss_0 " in drawn and "loss_1 " in drawn and "img/s" in drawn
    # Everything is as it was.
    assert (sys.stdout, sys.stderr) == streams
    assert [
        getattr(h, "stream", None) for h in runner.logger.handlers
    ] == handler_streams


def test_terminal__the_bar_is_one_line_of_80_columns(tmp_path: Path) -> None:
    console = Console(force_terminal=True, file=io.StringIO(), width=80, height=20)
    hooks = [dict(type="ThroughputHook")]
    runner = make_runner(tmp_path, custom_hooks=hooks, log_level="WARNING")
    runner.register_hook(ProgressBarHook(refresh=0.0, console=console))
    runner.train()
    drawn = re.split("[\r\n]", plain(console))
    bars = [line for line in drawn if line.strip() and " - mmengine - " not in line]
    assert len(bars) > 6 and all(line.startswith("epoch ") for line in bars)
    assert max(map(len, bars)) <= 80
    for figure in ("6/6", "ETA 0:00:00", "loss ", "img/s", "loss_0 "):
        assert figure in bars[-1]


@pytest.mark.parametrize("width", [60, 80])
def test_terminal__long_runs_keep_to_one_line(tmp_path: Path, width: int) -> None:
    epochs = dict(by_epoch=True, max_epochs=1600)
    runner = make_runner(tmp_path, train_cfg=epochs, log_level="WARNING")
    hub = runner.message_hub
    for name in ("loss", "loss_0", "loss_1"):
        hub.update_scalar(f"train/{name}", 123.4567)
    hub.update_scalar("train/images_per_s", 12345.0)
    console = Console(force_terminal=True, file=io.StringIO(), width=width, height=20)
    hook = ProgressBarHook(refresh=0.0, console=console)
    assert runner.train_loop is not None  # builds it
    runner.train_loop._max_iters = runner.train_loop._iter = 9_999_999
    runner.train_loop._epoch = 1599
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.close()
    lines = [line for line in re.split("[\r\n]", plain(console)) if line.strip()]
    assert all(line.startswith("epoch 1600/1600") for line in lines)
    assert max(map(len, lines)) <= width
    assert width < 80 or "loss 123.4567" in lines[-1]


def test_terminal__log_lines_stay_whole_above_the_bar(tmp_path: Path) -> None:
    console = terminal()
    runner = make_runner(tmp_path)
    assert runner.train_loop is not None  # builds it
    hook = ProgressBarHook(refresh=0.0, console=console)
    hook.before_train(runner)
    line = ("a long line " * 30).strip()
    runner.logger.info(line)
    print("in two ", end="")
    print("pieces")
    hook.close()
    drawn = console.file.getvalue()
    # Neither wrapped nor mixed with the bar, which is drawn again behind each of them.
    assert f"{line}\n" in drawn and "in two pieces\n" in drawn
    assert drawn.index("epoch 1/2") < drawn.index(line)
    assert drawn.rindex("epoch 1/2") > drawn.index("in two pieces")


def test_terminal__a_forked_worker_does_not_draw() -> None:
    console, original = terminal(), io.StringIO()
    stream = _AboveTheBar(console, original)
    stream._owner = os.getpid() + 1
    stream.write("from a worker\n")
    assert original.getvalue() == "from a worker\n"
    assert console.file.getvalue() == ""


def test_file__gets_plain_log_lines_only(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    runner = make_runner(tmp_path, custom_hooks=[dict(type="ProgressBarHook")])
    stream = next(
        h for h in runner.logger.handlers if type(h) is logging.StreamHandler
    ).stream
    runner.train()
    assert "\x1b[?25l" not in capsys.readouterr().out
    hook = next(h for h in runner.hooks if isinstance(h, ProgressBarHook))
    assert hook._progress is None and not hook._streams
    assert stream is runner.logger.handlers[0].stream


def test_terminal__other_processes_than_the_first_draw_nothing(tmp_path: Path) -> None:
    console = terminal()
    runner = make_runner(tmp_path)
    runner._rank = 1
    ProgressBarHook(console=console).before_train(runner)
    assert console.file.getvalue() == ""
