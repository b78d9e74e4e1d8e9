"""Going back to a checkpoint, with the images in another order, when training fails."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...checkpoints.loading import SCHEME
from ...datasets.seeding import sample_key
from ..config.schedules import run_length
from ..config.settings import global_batch
from ..hooks.checkpoint import AtomicCheckpointHook
from ..hooks.non_finite import NonFiniteStepsError
from ..running.loading import sampler_of
from .newest import newest_checkpoint, progress_at
from .same_batch import SameBatchHook
from .same_run import SameRunHook

# How often a run goes back, in one go of the program.
_MOST = 3

# Keeps the keys of orders apart from those of samples.
_ORDERS = 0x4F52444552


class DataOrderHook(Hook):
    """Shuffles the images in another order after going back; checkpoints say which.

    The order of a sampler is that of its seed, which follows from the run's seed and
    the number of times that the run went back; 0 is the run's own. Crops and masks of
    an image stay those of the run's seed.
    """

    def __init__(self) -> None:
        self.number = 0
        self._seed: int | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save which order it is.

        Args:
            runner: The runner of the training process.
            checkpoint: What is about to be written.
        """
        if self.number:
            checkpoint["meta"]["data_order"] = self.number

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on with the order of the checkpoint.

        Args:
            runner: The runner of the training process.
            checkpoint: What was read.
        """
        order = (checkpoint.get("meta") or {}).get("data_order", 0)
        if runner._resume and max(order, self.number):
            self.use(runner, max(order, self.number))

    def use(self, runner: Runner, number: int) -> None:
        """Shuffle in another order, from the next time on that batches are drawn.

        Args:
            runner: The runner of the training process.
            number: Which order.
        """
        sampler = sampler_of(runner.train_dataloader)
        if self._seed is None:
            self._seed = sampler.seed
        self.number = number
        sampler.seed = sample_key(self._seed, number, _ORDERS) % 2**31
        if hasattr(sampler, "_indices_of_rank"):
            # An endless sampler has one iterator for all of the run.
            sampler.indices = sampler._indices_of_rank()


def train(runner: Runner, order: DataOrderHook) -> None:
    """Train; go back to a checkpoint where too many steps in a row are not finite.

    It is the newest checkpoint of before these steps that the run did not go back to
    yet, at most three times.

    Args:
        runner: The runner.
        order: Its hook of this kind.

    Raises:
        NonFiniteStepsError: If that does not help, or is not possible: without a
            checkpoint or a shuffling sampler, or with sharded parameters.
    """
    tried: list[Path] = []
    run = runner.train
    while True:
        try:
            run()
            return
        except NonFiniteStepsError as error:
            path = _earlier(runner, tried, error.before)
            if path is None:
                raise
            tried.append(path)
            message = str(error)
        runner.logger.warning(
            f"{message}\nGoing back to {path}, with the images in another order "
            f"({len(tried)} of at most {_MOST} times)"
        )
        order.use(runner, order.number + 1)
        # Hooks ask whether this is the run of the checkpoint.
        runner._resume = True
        for hook in runner.hooks:
            if isinstance(hook, (SameBatchHook, SameRunHook)):
                hook.resuming = True
        runner.optim_wrapper.zero_grad()
        runner.resume(f"{SCHEME}{path}")
        runner.optim_wrapper.initialize_count_status(
            runner.model, runner.iter, runner.max_iters
        )

        def run() -> None:
            runner.train_loop.run()
            runner.call_hook("after_run")


def _earlier(runner: Runner, tried: list[Path], before: int) -> Path | None:
    """The checkpoint to go back to, the same on all processes, if there is one."""
    sampler = sampler_of(runner.train_dataloader)
    shuffles = getattr(sampler, "shuffle", False) and hasattr(sampler, "seed")
    if not isinstance(runner, Runner) or not shuffles or len(tried) == _MOST:
        return None
    for hook in runner.hooks:
        if isinstance(hook, AtomicCheckpointHook):
            hook.wait()
    chosen: list[Path | None] = [None]
    if is_main_process():
        batch = global_batch(runner.cfg, runner.world_size)
        by_epoch = run_length(runner.cfg)[1] == "epoch"
        length = len(runner.train_dataloader) if by_epoch else 0
        reached = progress_at(before, length, batch.accumulated if batch else 1)
        chosen = [newest_checkpoint(runner.cfg, tried, reached, length).newest]
    broadcast_object_list(chosen)
    return chosen[0]
