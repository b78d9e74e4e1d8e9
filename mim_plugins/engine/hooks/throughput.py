"""Images per second in the training log."""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .runtime_info import logger_interval


def batch_size_of(data_batch: Any) -> int:
    """Return how many samples a batch holds.

    Args:
        data_batch: A batch as a data loader gives it: a dict with ``inputs``, a pair
            of inputs and labels, or a list of samples; inputs of a tracker are a dict
            of images.
    """
    while isinstance(data_batch, dict):
        data_batch = data_batch.get("inputs", next(iter(data_batch.values()), []))
    if isinstance(data_batch, tuple) and data_batch:
        data_batch = data_batch[0]
    return len(data_batch) if isinstance(data_batch, Sized) else 0


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs ``images_per_s`` of all processes together, loading included.

    The rate is the number of images since the last log line divided by the time
    their iterations took. Validation does not count, nor does anything between two
    epochs, such as saving. Time of other hooks after an iteration does count, such as
    saving in a run by iterations. The rate is computed where the log line is written,
    when the losses have just been read from the device, so that work still queued there
    is not mistaken for speed.

    Args:
        interval: Iterations between two log entries; None is that of ``LoggerHook``.
    """

    # After the timer (NORMAL, registered earlier), before LoggerHook (BELOW_NORMAL).
    priority = "NORMAL"

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self._every = 1
        self._images = 0
        self._seconds = 0.0
        self._last = 0.0

    def before_train(self, runner: Runner) -> None:
        """Find the interval of the log lines.

        Args:
            runner: The runner of the training process.
        """
        self._every = self.interval or logger_interval(runner)
        self._images, self._seconds = 0, 0.0

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock.

        Args:
            runner: The runner of the training process.
        """
        self._last = time.perf_counter()

    def after_val(self, runner: Runner) -> None:
        """Restart the clock, so that a validation is not counted as training.

        Args:
            runner: The runner of the validation process.
        """
        self._last = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Count the batch, and log the rate when a line is due.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: The batch, whose samples are counted.
            outputs: Not used.
        """
        now = time.perf_counter()
        self._seconds += now - self._last
        self._last = now
        self._images += batch_size_of(data_batch) * runner.world_size
        due = self.every_n_inner_iters(batch_idx, self._every)
        if due or self.end_of_epoch(runner.train_dataloader, batch_idx):
            rate = self._images / max(self._seconds, 1e-9)
            runner.message_hub.update_scalar("train/images_per_s", rate)
            self._images, self._seconds = 0, 0.0
