"""Names the process, and its machine, that the others of a run wait for."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed

# Under these keys every process says where it is.
_KEY = "mim_plugins/process_{}"
_HERE = "mim_plugins/process_{}_is_here"


class WatchProcessesHook(Hook):
    """Logs which process has stopped, where several train together.

    Where one of them stops, is killed, or waits for its images, all others wait inside
    an exchange of gradients, and say nothing until torch's time-out. Every process says
    every few seconds where it is, in the store over which they were connected, and the
    first one compares; the second one watches the first.

    Args:
        interval: Seconds between two signs of life.
        silent: Seconds without one after which a process is named.
        behind: Seconds without progress after which those that are behind are named.
    """

    # After the hooks that work in an iteration.
    priority = "LOWEST"

    def __init__(
        self, interval: float = 10, silent: float = 60, behind: float = 180
    ) -> None:
        self.interval = interval
        self.silent = silent
        self.behind = behind
        self._place = (0, 0)  # iteration, and whether its batch is loaded
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def before_train(self, runner: Runner) -> None:
        """Start to give and to look for signs of life.

        Args:
            runner: The runner of the training process.
        """
        self.after_train(runner)
        if runner.world_size < 2:
            return
        self._ended.clear()
        self._place = (runner.iter, 0)
        self._thread = threading.Thread(
            target=self._run, args=(runner,), daemon=True, name="watch processes"
        )
        self._thread.start()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note that the batch is loaded.

        Args:
            runner: The runner of the training process.
            *args: Not used.
            **kwargs: Not used.
        """
        self._place = (runner.iter, 1)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note that the next batch is due.

        Args:
            runner: The runner of the training process.
            *args: Not used.
            **kwargs: Not used.
        """
        self._place = (runner.iter + 1, 0)

    def after_train(self, runner: Runner) -> None:
        """Stop to watch.

        Args:
            runner: The runner of the training process.
        """
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=self.interval)
            self._thread = None

    def _run(self, runner: Runner) -> None:
        """Gives signs of life, and looks for those of others, until the end."""
        store = _connect()
        me = dict(host=socket.gethostname(), pid=os.getpid())
        watched = {0: range(1, runner.world_size), 1: range(1)}.get(runner.rank, ())
        seen: dict[int, _Seen] = {}
        named: dict[int, tuple[int, int]] = {}
        count = 0
        while store is not None:
            count += 1
            sign = json.dumps({**me, "place": self._place, "count": count})
            try:
                store.set(_KEY.format(runner.rank), sign)
                if count == 1:
                    store.add(_HERE.format(runner.rank), 1)
                for rank in watched:
                    key = _KEY.format(rank)
                    # To get what is not there would wait for it.
                    if store.add(_HERE.format(rank), 0):
                        given = json.loads(store.get(key))
                        seen.setdefault(rank, _Seen()).update(given)
            except RuntimeError:
                # It is gone with the process, or the launcher, that had it.
                if 0 in watched and not self._ended.is_set():
                    runner.logger.error(
                        f"process 0, or what has started it, on "
                        f"{os.environ['MASTER_ADDR']} does not answer any more: it was "
                        "stopped or killed, or its machine cannot be reached"
                    )
                return
            for rank, text in self._missing(seen).items():
                if named.get(rank) != seen[rank].place:
                    named[rank] = seen[rank].place
                    # Warnings of other processes than the first are not shown.
                    runner.logger.error(f"process {rank} {text}")
            if self._ended.wait(self.interval):
                return

    def _missing(self, seen: Mapping[int, _Seen]) -> dict[int, str]:
        """What is wrong with processes that the others wait for."""
        now = time.monotonic()
        found = {}
        for rank, other in seen.items():
            iteration, loaded = other.place
            where = f"on {other.host} (pid {other.pid})"
            doing = "computes" if loaded else "loads its images"
            if now - other.heard > self.silent:
                silent = f"{now - other.heard:.0f} s"
                found[rank] = (
                    f"{where} has given no sign of life for {silent}, since "
                    f"iteration {iteration + 1}: it was stopped or killed, or its "
                    "machine cannot be reached. The other processes wait for it"
                )
            elif now - other.moved > self.behind and other.place < self._place:
                found[rank] = (
                    f"{where} {doing} for iteration {iteration + 1} for "
                    f"{now - other.moved:.0f} s, and the other processes wait for it"
                )
        return found


class _Seen:
    """The last sign of life of another process."""

    def __init__(self) -> None:
        self.host, self.pid, self.place = "", 0, (0, 0)
        self.heard = self.moved = time.monotonic()
        self._count = -1

    def update(self, sign: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if sign["count"] != self._count:
            self.heard = now
        if tuple(sign["place"]) != self.place:
            self.moved = now
        self.host, self.pid, self._count = sign["host"], sign["pid"], sign["count"]
        self.place = (sign["place"][0], sign["place"][1])


def _connect() -> Any:
    """A connection of its own to the store, since one may block; None without one."""
    with suppress(RuntimeError, ValueError, KeyError):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        wait = timedelta(seconds=30)
        return distributed.TCPStore(address, port, is_master=False, timeout=wait)
    return None
