"""Naming the process that the others wait for."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.distributed import TCPStore

# Of torch: how long processes wait for each other at the least.
_TIMEOUT_SECONDS = 600.0


class RankWatchHook(Hook):
    """Names the rank that keeps the others waiting, and its host, in the log.

    torch's message of a time-out (``env_cfg.dist_cfg.timeout``, in seconds) is of the
    ranks that wait. Here each process has a thread that tells a store, a few times
    within that time, how far its training is. When it has not moved for half of it,
    the first of the others names those that are behind, such as one whose data do not
    come, and those whose threads are silent: stopped, killed, or cut off.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._ended = threading.Event()

    def before_train(self, runner: Runner) -> None:
        """Connect, and begin to watch, where there are several processes.

        Args:
            runner: The runner of the training process.
        """
        if runner.world_size == 1:
            return
        hosts = all_gather_object(f"{socket.gethostname()}, process {os.getpid()}")
        rank, host = get_rank(), os.environ.get("MASTER_ADDR", "127.0.0.1")
        port = [0]
        if rank == 0:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
            port = [store.port]
        broadcast_object_list(port)
        if rank != 0:
            store = TCPStore(host, port[0], is_master=False, wait_for_workers=False)
        store.set(str(rank), "0 -1")
        settings = (runner.cfg.get("env_cfg") or {}).get("dist_cfg") or {}
        timeout = float(settings.get("timeout") or _TIMEOUT_SECONDS)
        arguments = (runner, store, rank, hosts, timeout / 2)
        threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """The batch is there.

        Args:
            runner: Not used.
            *args: Not used.
            **kwargs: Not used.
        """
        self._steps += 1

    def _after_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """An iteration is complete, of training or of validation.

        Args:
            runner: Not used.
            *args: Not used.
            **kwargs: Not used.
        """
        self._steps += 1

    def after_run(self, runner: Runner) -> None:
        """End the watch.

        Args:
            runner: Not used.
        """
        self._ended.set()

    def _watch(
        self, runner: Runner, store: TCPStore, rank: int, hosts: list[str], limit: float
    ) -> None:
        beat, steps, since = 0, -1, time.monotonic()
        before: list[str] | None = None
        keys = [str(r) for r in range(len(hosts))]
        while not self._ended.wait(limit / 6):
            beat += 1
            if self._steps != steps:
                steps, since, before = self._steps, time.monotonic(), None
            stuck = time.monotonic() - since >= limit
            try:
                store.set(str(rank), f"{steps} {beat}")
                if not stuck:
                    continue
                found = [x.decode() for x in store.multi_get(keys)]
            except RuntimeError:
                if not stuck:
                    continue
                # The store is the first rank's.
                found = ["0 gone", *[f"{steps} {beat}"] * (len(keys) - 1)]
            if before is None:
                before = found
                continue
            late = _late(before, found, steps)
            if late and rank == next(r for r in range(len(keys)) if r not in late):
                named = "; ".join(f"rank {r} on {hosts[r]}" for r in late)
                runner.logger.error(
                    f"nothing has moved for {time.monotonic() - since:.0f} s, since "
                    f"iteration {runner.iter + 1}: the others wait for {named}"
                )
                return


def _late(before: list[str], now: list[str], steps: int) -> list[int]:
    """Ranks that were silent between two looks, or else those that are behind.

    Args:
        before: What each rank has said of itself: its steps, and a count.
        now: The same, later.
        steps: Of the rank that asks.
    """
    ranks = range(len(now))
    silent = [r for r in ranks if before[r] == now[r]]
    return silent or [r for r in ranks if int(now[r].split()[0]) < steps]
