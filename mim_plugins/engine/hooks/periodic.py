"""Base class of hooks that evaluate the model every few epochs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ...datasets.seeding import preserve_rng_state

if TYPE_CHECKING:
    from ...models.selfsup.base import MaskedImageModel


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run the model in evaluation mode and without autograd, then restore its mode.

    Args:
        model: The model.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _checkpoint_if_failing(
    runner: Runner, batch_idx: int | None = None
) -> Iterator[None]:
    """Writes the checkpoint that is due before an evaluation's error ends the run."""
    try:
        yield
    except Exception:
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                if batch_idx is None:
                    hook.after_train_epoch(runner)
                else:
                    hook.after_train_iter(runner, batch_idx)
        raise


class PeriodicHook(Hook):
    """Calls :meth:`evaluate` every few epochs or iterations, and at the end.

    An error there ends the run, but not before the checkpoint that is due is written.

    Args:
        interval: Epochs (or iterations) between two calls.
        by_epoch: Whether ``interval`` counts epochs.

    Raises:
        ValueError: If ``interval`` is not a positive integer.
    """

    # Before CheckpointHook (VERY_LOW), so that checkpoints have the newest results.
    priority = "LOW"

    def __init__(self, interval: int, by_epoch: bool = True) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(
                f"{type(self).__name__}: interval must be a positive number of "
                f"{'epochs' if by_epoch else 'iterations'}, but got {interval!r}."
            )
        self.interval = interval
        self.by_epoch = by_epoch

    @abstractmethod
    def evaluate(self, runner: Runner, model: MaskedImageModel, step: int) -> None:
        """Evaluate the model, which is in evaluation mode and without autograd.

        Args:
            runner: The runner of the training process.
            model: The model without its distributed wrapper.
            step: The number of epochs (or iterations) that are finished.
        """

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate if the interval ends with this epoch.

        Args:
            runner: The runner of the training process.
        """
        due = self.every_n_epochs(runner, self.interval)
        if self.by_epoch and (due or self.is_last_train_epoch(runner)):
            with _checkpoint_if_failing(runner):
                self._evaluate(runner, runner.epoch + 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Evaluate if the interval ends with this iteration.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: Not used.
            outputs: Not used.
        """
        if self.by_epoch:
            return
        due = self.every_n_train_iters(runner, self.interval)
        if due or self.is_last_train_iter(runner):
            with _checkpoint_if_failing(runner, batch_idx):
                self._evaluate(runner, runner.iter + 1)

    def _evaluate(self, runner: Runner, step: int) -> None:
        model = unwrapped(runner.model)
        with evaluation_mode(model), preserve_rng_state():
            self.evaluate(runner, model, step)


def unwrapped(model: Any) -> Any:
    """Return the model inside a distributed wrapper, or the model itself.

    Args:
        model: A model, wrapped or not.
    """
    return model.module if is_model_wrapper(model) else model
