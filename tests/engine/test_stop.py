"""Tests of what a signal leaves behind, wherever and whenever it comes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.runner import Runner
from toy_run import make_runner

from mim_plugins.engine import launch
from mim_plugins.engine.hooks import stop
from mim_plugins.engine.hooks.checkpoint import AtomicCheckpointHook
from mim_plugins.engine.hooks.stop import StopHook
from mim_plugins.engine.running.signals import Interrupted, SignalWatch


def signalled(watch: SignalWatch, number: int = signal.SIGUSR1) -> SignalWatch:
    watch.training = True
    watch._receive(number)
    return watch


def fail_after(call: Callable[[], object]) -> Callable[..., Any]:
    """In place of the training."""

    def train(watch: SignalWatch, *args: Any, **options: Any) -> None:
        call()
        limit = time.monotonic() + 10
        while not watch.received and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(1)
        raise RuntimeError("Connection closed by peer")

    return train


def test_usr1__before_the_first_step_leaves_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the folder is not there yet."""
    run = fail_after(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    monkeypatch.setattr(launch, "_train", run)
    with pytest.raises(Interrupted) as stopped:
        launch.train("config.py", work_dir=str(tmp_path / "run"))
    assert stopped.value.code == 0
    assert (tmp_path / "run" / "requeue").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_error_after_a_signal__is_that_of_the_first_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Others lose the connection to it when it has saved and ends."""

    def begin(watch: SignalWatch, *args: Any, **options: Any) -> None:
        signalled(watch)
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(launch, "_train", begin)
    monkeypatch.setenv("RANK", str(rank))
    with pytest.raises(Interrupted if rank else RuntimeError):
        launch.train("config.py", work_dir=str(tmp_path), launcher="pytorch")
    assert (tmp_path / "requeue").exists()


def test_other_signals__leave_no_mark(tmp_path: Path) -> None:
    signalled(SignalWatch(tmp_path), signal.SIGTERM)
    assert not list(tmp_path.iterdir())


def toy(folder: Path) -> Runner:
    hooks = dict(checkpoint=dict(type="AtomicCheckpointHook", interval=1))
    runner = make_runner(folder, default_hooks=hooks)
    # As before the first step.
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook("before_train")
    return runner


def test_validation__of_a_flexible_runner_ends_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    runner: Any = SimpleNamespace(logger=SimpleNamespace(warning=said.append))
    with pytest.raises(Interrupted):
        StopHook(signalled(SignalWatch(tmp_path))).after_val_iter(runner)
    assert "--resume goes on from the newest checkpoint" in said[0]
    assert (tmp_path / "requeue").exists()


def test_validation__of_other_processes_goes_on_until_the_first_has_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = toy(tmp_path)
    hook = StopHook(signalled(SignalWatch(tmp_path)))
    monkeypatch.setattr(runner, "_rank", 1)
    monkeypatch.setattr(stop, "_PATIENCE", 0.2)
    hook.after_val_iter(runner)  # the first process was not signalled
    hook = StopHook(hook.watch)
    monkeypatch.setattr(stop, "_PATIENCE", 20)
    saved = tmp_path / "work" / "iter_0.pth"
    threading.Timer(0.3, saved.touch).start()
    with pytest.raises(Interrupted):
        hook.after_val_iter(runner)
    assert saved.exists()


@pytest.mark.parametrize("written", [True, False])
def test_usr1__is_a_failure_if_nothing_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    runner = toy(tmp_path)
    if not written:
        monkeypatch.setattr(AtomicCheckpointHook, "save", lambda *_: None)
    hook = StopHook(signalled(SignalWatch(tmp_path)))
    with pytest.raises(Interrupted) as stopped:
        hook.after_train_iter(runner)
    assert stopped.value.code == (0 if written else 1)
