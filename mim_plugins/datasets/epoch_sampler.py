"""Sampler that passes the epoch to the data set, with or without workers."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from mmengine.dataset import DefaultSampler
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
        **kwargs: Arguments of ``DefaultSampler``: ``shuffle``, ``seed``,
            ``round_up``.

    Raises:
        TypeError: If the data set is of another type.
    """

    def __init__(self, dataset: Sized, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        seeded = find_seeded_dataset(dataset)
        if seeded is None:
            raise TypeError(
                "EpochSampler numbers samples for a SeededDataset, got "
                f"{type(dataset).__name__}: wrap the data set as "
                "dict(type='SeededDataset', dataset=...) or use DefaultSampler"
            )
        seeded.seed = self.seed
        self._stride = len(seeded)

    def __iter__(self) -> Iterator[int]:
        """Yields this rank's indices of the epoch, each with the epoch in it."""
        offset = self.epoch * self._stride
        return (offset + index for index in super().__iter__())


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
