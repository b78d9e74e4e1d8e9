"""How many search tokens a tracker keeps, by epoch."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...models.trackers.elimination import keep_rate_at
from .periodic import unwrapped


@HOOKS.register_module()
class KeepRateHook(Hook):
    """Sets the ``keep_rate`` of a ``OneStreamTracker`` before every epoch.

    All search tokens are kept at first, then fewer along half a cosine. Tests are not
    concerned: there each block keeps its own share.

    References:
        - OSTrack, 2022, https://arxiv.org/abs/2203.11991, section 4.1

    Args:
        start: The epoch, counted from 1 as in the official code, up to which all tokens
            are kept.
        end: The epoch from which ``final`` holds.
        final: Share of the tokens that every elimination keeps from then on.

    Raises:
        ValueError: If ``end`` is not after ``start``, or ``final`` is not in (0, 1].
    """

    def __init__(self, start: int = 20, end: int = 100, final: float = 0.7) -> None:
        if not start < end or not 0 < final <= 1:
            raise ValueError(
                "KeepRateHook: start is before end, and final a share in (0, 1]; got "
                f"start={start}, end={end}, final={final}"
            )
        self.start, self.end, self.final = start, end, final

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the rate of the epoch that begins.

        Args:
            runner: The runner of the training process.

        Raises:
            TypeError: If its model is no tracker.
        """
        model = unwrapped(runner.model)
        if not hasattr(model, "keep_rate"):
            raise TypeError(
                f"KeepRateHook is for a OneStreamTracker, not {type(model).__name__}"
            )
        model.keep_rate = keep_rate_at(
            runner.epoch + 1, self.start, self.end, self.final
        )
