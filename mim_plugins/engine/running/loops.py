"""Loops that go on at any iteration as if they had never stopped.

All that is random is a function of a few numbers: a sample's crop and mask of (seed,
epoch, index), by ``SeededDataset``; the order of an epoch of (seed, epoch), by the
sampler; what the model draws in a step, such as dropout, of (seed, iteration, rank),
here. So neither generators nor loaded batches are part of a checkpoint, and no process
asks the others for theirs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
    ValLoop,
)
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from ...datasets.epoch_sampler import find_seeded_dataset
from ...datasets.seeding import sample_key, seed_rng
from .loading import batches as load
from .loading import sampler_of

# Keeps the keys of steps apart from those of samples.
_STEPS = 0x5354455053

_ENDED = object()


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which also goes on inside an epoch.

    Batches that were trained on are left out without being loaded, if the sampler
    gives an epoch's order again; see :func:`order_repeats`. Arguments as mmengine's.
    """

    def run_epoch(self) -> None:
        """Train what is left of an epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        batches = load(self.dataloader, done)
        try:
            while True:
                seed_step(self.runner)
                batch = next(batches, _ENDED)
                if batch is _ENDED:
                    break
                self.run_iter(done, batch)
                done += 1
        finally:
            # Ends the loading processes, whatever still refers to this frame.
            batches.close()
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, which loads nothing twice when it goes on.

    Arguments as mmengine's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # mmengine 0.10.7 has begun to load, and to draw from the sampler.
        self.dataloader_iterator = self.dataloader._iterator = None
        sampler = sampler_of(self.dataloader)
        if isinstance(sampler, InfiniteSampler):
            sampler.indices = sampler._indices_of_rank()

    def run(self) -> nn.Module:
        """Train from the iteration that is reached."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        batches = _endless(self.dataloader, self._iter)
        try:
            while self._iter < self._max_iters and not self.stop_training:
                runner.model.train()
                seed_step(runner)
                self.run_iter(next(batches))
                self._decide_current_val_interval()
                due = self._iter % self.val_interval == 0
                last = self._iter == self._max_iters
                begun = self._iter >= self.val_begin
                if runner.val_loop is not None and begun and (due or last):
                    runner.val_loop.run()
        finally:
            batches.close()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model


@LOOPS.register_module()
class WatchedValLoop(ValLoop):
    """mmengine's ``ValLoop``, whose loading processes are replaced where they fail.

    Arguments as mmengine's.
    """

    def run(self) -> dict:
        """Validate."""
        loader: Any = self.dataloader
        watched = _Watched(loader)
        self.dataloader: Any = watched
        try:
            return super().run()
        finally:
            watched.close()
            self.dataloader = loader


class _Watched:
    """A loader whose batches are those of :func:`.loading.batches`."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._batches: Generator[Any, None, None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self.close()
        self._batches = load(self._loader, name="val_dataloader")
        return self._batches

    def close(self) -> None:
        """End the loading processes, whatever still refers to the batches."""
        if self._batches is not None:
            self._batches.close()


def seed_step(runner: Runner) -> None:
    """Seed what a step draws outside its samples: dropout, mixing of images.

    Args:
        runner: The runner, before it loads the step's batch.
    """
    key = step_key(runner.seed or 0, runner.iter, get_rank())
    seed_rng(key)
    # Asking for a GPU would initialise CUDA.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(key)


def step_key(seed: int, iteration: int, rank: int) -> int:
    """What a step's draws follow from.

    Args:
        seed: Seed of the run.
        iteration: The iteration, from 0.
        rank: The process.
    """
    return sample_key(seed ^ _STEPS, iteration, rank)


def order_repeats(loader: DataLoader) -> bool:
    """Whether a loader's batches come in the same order when an epoch is begun again.

    Args:
        loader: A loader of training data.
    """
    batches = loader.batch_sampler
    # mmdetection's puts images of one orientation together, as they come.
    known = type(batches) is BatchSampler or (
        type(batches).__name__ == "AspectRatioBatchSampler"
    )
    return known and isinstance(sampler_of(loader), (DefaultSampler, InfiniteSampler))


def samples_repeat(loader: DataLoader) -> bool:
    """Whether a loader's images are cut in the same way when an epoch is begun again.

    Without workers, the pipeline draws from the generators that :func:`seed_step`
    seeds.

    Args:
        loader: A loader of training data.
    """
    return find_seeded_dataset(loader.dataset) is not None or not loader.num_workers


def _endless(loader: DataLoader, done: int) -> Generator[Any, None, None]:
    """Batches without end, from a given one on."""
    sampler = sampler_of(loader)
    if isinstance(sampler, InfiniteSampler):
        yield from load(loader, done)
    epoch, done = divmod(done, len(loader))
    while True:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield from load(loader, done)
        epoch, done = epoch + 1, 0
