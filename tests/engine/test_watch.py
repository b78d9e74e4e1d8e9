"""A process that stops is named with its machine."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed

from mim_plugins.engine.running.watch import WatchProcessesHook


def be_another(says: int) -> None:
    """The second process, until it is killed."""
    hook = WatchProcessesHook(interval=0.1)
    runner: Any = SimpleNamespace(rank=1, world_size=2, iter=6, logger=None)
    hook.before_train(runner)
    os.write(says, b"started")
    time.sleep(60)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.error = self.lines.append

    def wait(self) -> str:
        for _ in range(100):
            if self.lines:
                return self.lines[0]
            time.sleep(0.1)
        raise AssertionError("nothing was logged")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    found = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(found.port))
    yield found


def start(rank: int, iteration: int, log: Log, **options: Any) -> WatchProcessesHook:
    hook = WatchProcessesHook(interval=0.1, **options)
    runner: Any = SimpleNamespace(rank=rank, world_size=2, iter=iteration, logger=log)
    hook.before_train(runner)
    return hook


def test_stopped_process__is_named_with_its_machine(store: Any) -> None:
    said, says = os.pipe()
    other = os.fork()
    if other == 0:
        try:
            be_another(says)
        finally:
            os._exit(1)
    log = Log()
    try:
        assert os.read(said, 7) == b"started"
        hook = start(0, 6, log, silent=1)
        time.sleep(1.5)
        assert not log.lines
        os.kill(other, signal.SIGSTOP)
        message = log.wait()
        time.sleep(1)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    hook.after_train(SimpleNamespace())
    name = f"process 1 on {socket.gethostname()} (pid {other})"
    assert message.startswith(f"{name} has given no sign of life for 1 s")
    assert "since iteration 7: it was stopped or killed" in message
    assert len(log.lines) == 1  # once


def test_process_that_is_behind__is_named(store: Any) -> None:
    """It lives, but waits for its images; the first one has its batch."""
    log, quiet = Log(), Log()
    hooks = [start(1, 6, quiet), start(0, 6, log, behind=1)]
    hooks[1].before_train_iter(SimpleNamespace(iter=6))
    message = log.wait()
    for hook in hooks:
        hook.after_train(SimpleNamespace())
    assert "loads its images for iteration 7 for 1 s" in message
    assert not quiet.lines


def test_without_a_store_or_others__does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASTER_PORT", raising=False)
    hook = start(0, 0, Log())
    hook.after_train(SimpleNamespace())
    alone = WatchProcessesHook()
    alone.before_train(SimpleNamespace(world_size=1))
    assert alone._thread is None
