"""Ending a run between two iterations, on all processes at the same one."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import distributed

from ..running.signals import Interrupted, SignalWatch
from .checkpoint import AtomicCheckpointHook
from .saving import INSIDE_EPOCH

# Seconds that a process waits for the first one to save, if that is signalled as well.
_PATIENCE = 30.0


class StopHook(Hook):
    """Ends the run after a signal, with a checkpoint.

    A signal may reach a single process. In every iteration all of them exchange what
    they have received, over gloo, on the CPU, and without waiting: the answer is taken
    an iteration later, when it has long been there. A signal during a validation ends
    it; the checkpoint is then that of the last iteration of the training. If only other
    processes than the first are signalled then, the run ends after the validation.

    Args:
        watch: What notes the signals.
    """

    def __init__(self, watch: SignalWatch) -> None:
        self.watch = watch
        self._group: Any = None
        # The exchange under way: its handle and the signal, which is in place.
        self._exchange: tuple[Any, torch.Tensor] | None = None
        self._waited = False

    def before_train(self, runner: Runner) -> None:
        """Prepare the exchange.

        Args:
            runner: The runner of the training process.
        """
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            self._group = distributed.new_group(backend="gloo")

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """From here on there is something to save.

        Args:
            runner: Not used.
            *args: Not used.
            **kwargs: Not used.
        """
        self.watch.training = True

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the run if a process has received a signal.

        Args:
            runner: The runner of the training process.
            *args: Not used.
            **kwargs: Not used.

        Raises:
            Interrupted: If so.
        """
        if number := self._agreed():
            self._stop(runner, number, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End a validation during training if this process has received a signal.

        Args:
            runner: The runner of the training process.
            *args: Not used.
            **kwargs: Not used.

        Raises:
            Interrupted: If so.
        """
        if not self.watch.received or not self.watch.training:
            return
        if not isinstance(runner, Runner):  # parameters may be sharded
            runner.logger.warning(
                f"{signal.Signals(self.watch.received).name}: stopped in a validation; "
                "the same command with --resume goes on from the newest checkpoint"
            )
            raise Interrupted(self.watch.received)
        if runner.rank > 0:
            # The launcher would end the first process while it writes.
            if self._first_has_saved(runner):
                raise Interrupted(self.watch.received)
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                # Takes the averages out of the model again.
                hook.after_val_epoch(runner)
        # Others may still validate: no agreement is needed for what one writes.
        self._group = None
        self._stop(runner, self.watch.received, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Let the last exchange end.

        Args:
            runner: Not used.
        """
        if self._exchange is not None:
            self._exchange[0].wait()
            self._exchange = None

    def _agreed(self) -> int:
        """The signal that any process had received an iteration ago, or 0."""
        if self._group is None:
            return self.watch.received
        number = 0
        if self._exchange is not None:
            handle, received = self._exchange
            handle.wait()
            number = int(received)
        received = torch.tensor(self.watch.received)
        if not number:
            handle = distributed.all_reduce(
                received, distributed.ReduceOp.MAX, self._group, async_op=True
            )
            self._exchange = handle, received
        return number

    def _stop(self, runner: Runner, number: int, iteration: int) -> None:
        path = write_checkpoint(runner, iteration)
        written = f"{path} is written" if path else "its checkpoint cannot be written"
        name = signal.Signals(number).name
        runner.logger.warning(
            f"{name}: stopped after iteration {iteration}; {written}, and the same "
            "command with --resume goes on from the newest one"
        )
        lost = torch.tensor(int(path is None))
        if self._group is not None:
            # A process that has ended has the launcher end the one that writes.
            distributed.all_reduce(lost, distributed.ReduceOp.MAX, self._group)
        raise Interrupted(number, lost=bool(lost))

    def _first_has_saved(self, runner: Runner) -> bool:
        """Whether the first process has saved after a signal to all, in a validation.

        It waits for that once.
        """
        since = time.time() - _PATIENCE
        end = time.monotonic() + (0 if self._waited else _PATIENCE)
        self._waited = True
        path = Path(runner.work_dir, INSIDE_EPOCH.format(runner.iter))
        for hook in runner.hooks:
            if isinstance(hook, AtomicCheckpointHook):
                path = hook.path_at(runner.iter)
        while True:
            with suppress(OSError):
                if path.stat().st_mtime >= since:
                    return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)


def write_checkpoint(runner: Runner, iteration: int) -> str | None:
    """Write a checkpoint now, on all processes.

    Args:
        runner: The runner of the training process.
        iteration: Iterations that are complete.

    Returns:
        The file, or None if it could not be written.
    """
    for hook in runner.hooks:
        if isinstance(hook, AtomicCheckpointHook):
            return hook.save(runner, iteration)
    # Configs of the toolboxes have mmengine's hook.
    path = Path(runner.work_dir, f"iter_{iteration}.pth")
    meta = dict(epoch=runner.epoch, iter=iteration)
    runner.save_checkpoint(runner.work_dir, path.name, by_epoch=False, meta=meta)
    return str(path)
