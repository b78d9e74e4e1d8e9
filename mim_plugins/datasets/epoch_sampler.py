"""Samplers that pass the epoch to the data set, with or without workers."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import count, islice
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS

from .seeded_dataset import SeededDataset


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """mmengine's ``DefaultSampler`` for a ``SeededDataset``.

    It yields ``epoch * len(dataset) + index``: persistent workers hold a copy of the
    data set that no call of the main process reaches, but an index reaches them. And
    it hands the run's seed to the data set.

    Args:
        dataset: A ``SeededDataset``, possibly cut by mmengine's
            ``num_batch_per_epoch``.
        drop_last: Whether images that do not fill a batch on all processes are left
            out, as the loader's ``drop_last``, rather than filled up with the first
            ones. Only then have 31 images in batches of 8 three batches, both on one
            process and, in batches of 4, on two. tools/train.py sets it to the
            loader's.
        **kwargs: Arguments of ``DefaultSampler``: ``shuffle``, ``seed``,
            ``round_up``.

    Raises:
        TypeError: If the data set is of another type.
    """

    def __init__(self, dataset: Sized, drop_last: bool = False, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self._stride = _hand_seed(self, dataset)
        if drop_last:
            self.num_samples = len(dataset) // self.world_size
            self.total_size = self.num_samples * self.world_size
            self.round_up = False

    def __iter__(self) -> Iterator[int]:
        """Yields this rank's indices of the epoch, each with the epoch in it."""
        offset = self.epoch * self._stride
        return (offset + index for index in super().__iter__())


@DATA_SAMPLERS.register_module()
class EndlessSampler(InfiniteSampler):
    """mmengine's ``InfiniteSampler`` for a ``SeededDataset``, for runs by iterations.

    Epochs follow each other without a gap or a remainder, and the processes take turns:
    iteration i sees the same images on any number of processes. Every epoch has an
    order of its own, by (seed, epoch). Indices as of :class:`EpochSampler`.

    Args:
        dataset: A ``SeededDataset``.
        **kwargs: Arguments of ``InfiniteSampler``: ``shuffle``, ``seed``.

    Raises:
        TypeError: If the data set is of another type.
    """

    def __init__(self, dataset: Sized, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self._stride = _hand_seed(self, dataset)

    def __iter__(self) -> Iterator[int]:
        """Yields this rank's indices, each with its epoch in it, without end."""
        return islice(self._all_indices(), self.rank, None, self.world_size)

    def _all_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        for epoch in count():
            order = torch.arange(self.size)
            if self.shuffle:
                generator.manual_seed(self.seed + epoch)
                order = torch.randperm(self.size, generator=generator)
            yield from (epoch * self._stride + order).tolist()


def _hand_seed(sampler: Any, dataset: Any) -> int:
    """Hands a sampler's seed to the data set, and returns an epoch's images."""
    seeded = find_seeded_dataset(dataset)
    if seeded is None:
        kind, host = type(sampler).__mro__[:2]
        raise TypeError(
            f"{kind.__name__} numbers samples for a SeededDataset, got "
            f"{type(dataset).__name__}: wrap the data set as "
            f"dict(type='SeededDataset', dataset=...) or use {host.__name__}"
        )
    seeded.seed = sampler.seed
    return len(seeded)


def find_seeded_dataset(dataset: Any) -> SeededDataset | None:
    """Returns the ``SeededDataset`` that a loader draws from, if it is one.

    Args:
        dataset: Data set of a loader; mmengine puts a slicing wrapper around it
            where ``num_batch_per_epoch`` is set.
    """
    if isinstance(dataset, SeededDataset):
        return dataset
    # Looked up in the instance: the wrapper hands every other name on.
    inner = vars(dataset).get("_dataset") if hasattr(dataset, "__dict__") else None
    return None if inner is None else find_seeded_dataset(inner)
