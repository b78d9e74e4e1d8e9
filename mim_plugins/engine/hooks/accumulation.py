"""Schedules that count steps of the optimiser where gradients are accumulated."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import ParamSchedulerHook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader


@HOOKS.register_module()
class AccumulationHook(ParamSchedulerHook):
    """mmengine's ``ParamSchedulerHook``, with accumulation as in one large batch.

    mmengine counts iterations from the start of the run: a step of the optimiser may
    mix two epochs, a checkpoint at the end of an epoch loses what was accumulated, and
    a schedule moves while gradients are summed. Here an epoch starts with a new sum;
    what is left at its end, less than a step, makes a smaller step if the loader keeps
    incomplete batches, and none if it drops them, as one large batch would. Schedulers
    that count iterations count steps.

    Args:
        recipe_batch: The global batch that accumulation keeps, or None if the config
            asked for it.
    """

    def __init__(self, recipe_batch: int | None = None) -> None:
        self.recipe_batch = recipe_batch

    def before_train_epoch(self, runner: Runner) -> None:
        """Start a new sum, also where a resumed run goes on inside an epoch.

        Args:
            runner: The runner of the training process.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        loader, wrapper = runner.train_dataloader, runner.optim_wrapper
        wrapper.zero_grad()
        done = runner.iter - runner.epoch * len(loader)
        last = -1 if drops_last(loader) else len(loader)
        wrapper.initialize_count_status(runner.model, done, last)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Let schedulers step if the optimiser has.

        Args:
            runner: The runner of the training process.
            *args: As mmengine's.
            **kwargs: As mmengine's.
        """
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)


def drops_last(loader: DataLoader) -> bool:
    """Whether a loader leaves out a last batch that is incomplete.

    Args:
        loader: The loader.
    """
    return bool(getattr(loader.batch_sampler, "drop_last", loader.drop_last))


def steps_per_epoch(loader: DataLoader, count: int) -> int:
    """Steps of the optimiser in an epoch.

    Args:
        loader: The loader of the training.
        count: Iterations of a step.
    """
    full, rest = divmod(len(loader), count)
    return full + (rest > 0 and not drops_last(loader))
