"""What hooks measure: to the log, the visualizer backends, and ``save_best``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner


def report(
    runner: Runner, figures: Mapping[str, float], step: int, by_epoch: bool
) -> None:
    """Records what a hook has measured, and saves the checkpoint if it is the best.

    Called after a training epoch or iteration, before the checkpoint hook. Which
    checkpoint is best is decided by the ``save_best`` and ``rule`` of the run's
    checkpoint hook, as after a validation.

    Args:
        runner: The runner of the training process.
        figures: Values by name.
        step: The number of epochs (or iterations) that are finished; 0 before training.
        by_epoch: Whether ``step`` counts epochs.
    """
    for name, value in figures.items():
        runner.message_hub.update_scalar(name, value)
    unit = "epoch" if by_epoch else "iter"
    runner.visualizer.add_scalars({**figures, unit: step}, step=step)
    for hook in runner.hooks if step else ():
        if not isinstance(hook, CheckpointHook) or not hook.save_best:
            continue
        if set(hook.key_indicators) & set(figures):
            # Figures of other hooks are judged when these report them.
            known = {name: figures.get(name) for name in hook.key_indicators}
            hook._save_best_checkpoint(_Finished(runner, by_epoch), known)


class _Finished:
    """A runner that counts the epoch, or iteration, which has just been finished.

    mmengine decides after a validation, when the runner has counted it.
    """

    def __init__(self, runner: Runner, by_epoch: bool) -> None:
        self._runner = runner
        self.epoch = runner.epoch + by_epoch
        self.iter = runner.iter + (not by_epoch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)
