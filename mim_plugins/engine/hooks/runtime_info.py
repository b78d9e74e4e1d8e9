"""Training logs that do not make the host wait for the device."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..running.deferred import DeferredScalars


def logger_interval(runner: Runner, default: int = 10) -> int:
    """Return after how many iterations this run writes a log line.

    Args:
        runner: The runner whose hooks are searched.
        default: The answer for a run without a ``LoggerHook``.
    """
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook):
            return hook.interval
    return default


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """A ``RuntimeInfoHook`` that reads the losses only when they are logged.

    mmengine's own hook reads every loss of every step, and reading waits until the
    device has finished that step. This hook keeps the values on the device and copies
    them together when ``LoggerHook`` is about to use them: every ``interval``
    iterations, at the end of an epoch, and before a checkpoint is written. The logged
    numbers and the stored history are those of mmengine's hook.

    Args:
        interval: Iterations between two reads; None is the interval of the run's
            ``LoggerHook``, which is what makes both logs equal.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise ValueError(
                f"DeferredRuntimeInfoHook: interval must be at least 1 or None (the "
                f"interval of LoggerHook), but got {interval}."
            )
        self.interval = interval
        self.scalars = DeferredScalars()
        self._flush_every = 1
        self._first_iteration = True

    def before_train(self, runner: Runner) -> None:
        """Find the interval, and take over the logging of the gradient norm.

        Args:
            runner: The runner of the training process.
        """
        super().before_train(runner)
        self._flush_every = self.interval or logger_interval(runner)
        self._first_iteration = True
        if hasattr(runner.optim_wrapper, "deferred"):
            runner.optim_wrapper.deferred = self.scalars

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Queue the step's log values, and write all of them when they are due.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: The batch; not used.
            outputs: The values to log, by name.
        """
        for key, value in (outputs or {}).items():
            self.scalars.add(f"train/{key}", value)
        # The first step is written at once: it fixes the order of the names in the log
        # line, and an output that cannot be logged is an error right away.
        if (
            self._first_iteration
            or self.every_n_inner_iters(batch_idx, self._flush_every)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        ):
            self.scalars.flush(runner.message_hub)
            self._first_iteration = False

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the remaining values, for loops that end between two intervals.

        Args:
            runner: The runner of the training process.
        """
        self.scalars.flush(runner.message_hub)

    def before_val(self, runner: Runner) -> None:
        """Write the remaining values before a validation within a run by iterations.

        Args:
            runner: The runner of the validation process.
        """
        self.scalars.flush(runner.message_hub)
        super().before_val(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Make the saved history complete.

        Of several processes only the first saves, and the means over all of them of the
        last few iterations are not in the history.

        Args:
            runner: The runner of the training process.
            checkpoint: What is about to be written; mmengine has already put the
                message hub's state into it.
        """
        if len(self.scalars) and runner.world_size == 1:
            self.scalars.flush(runner.message_hub)
            checkpoint["message_hub"] = runner.message_hub.state_dict()
