"""Exponential moving averages of weights, for MIRL's fine-tuning."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor


@MODELS.register_module()
class WarmupEMA(ExponentialMovingAverage):
    """Moving average with a growing decay and a correction for its start from zero.

    At update t = 0, 1, ... the decay is ``min(1 - momentum, (1 + t) / (10 + t))``. The
    average starts from zeros and is divided by ``1 - decay ** (t + 1)`` when it is
    read (fine-tuning of MIRL, released code; exact for the first update, later
    slightly above 1). This class keeps the divided average, which evaluation and
    checkpoints use directly; the undivided one follows from the number of updates.

    Args:
        model: The model to average.
        momentum: One less the largest decay.
        **kwargs: Further arguments of mmengine's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: Any, momentum: float = 2e-4, **kwargs: Any) -> None:
        super().__init__(model, momentum=momentum, **kwargs)

    def avg_func(
        self, averaged_param: Tensor, source_param: Tensor, steps: int | Tensor
    ) -> None:
        """Updates one average in place, from its second update on.

        The first one copies the source, since (1 - decay) / (1 - decay) is 1.

        Args:
            averaged_param: The average.
            source_param: The new value.
            steps: Calls so far, of which every ``interval``-th updates.
        """
        keep, add = self.factors(int(steps) // self.interval)
        averaged_param.mul_(keep).add_(source_param, alpha=add)

    def factors(self, step: int) -> tuple[float, float]:
        """Factors on the average so far and on the new value at an update."""
        decay, before = self.decay(step), self.decay(step - 1)
        share = 1 - decay ** (step + 1)
        return decay * (1 - before**step) / share, (1 - decay) / share

    def decay(self, step: int) -> float:
        """The decay of an update, counted from 0."""
        return min(1 - self.momentum, (1 + step) / (10 + step))


@HOOKS.register_module()
class StepEMAHook(EMAHook):
    """mmengine's ``EMAHook``, updated once per optimiser step.

    mmengine's own updates in every iteration, so that with gradient accumulation the
    average counts each set of weights several times. Arguments as mmengine's.
    """

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Updates the average if the optimiser has just stepped.

        Args:
            runner: The runner of the training process.
            *args: As mmengine's.
            **kwargs: As mmengine's.
        """
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, *args, **kwargs)
