"""The data sets inside those that join, repeat or mix some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def joined_parts(dataset: Any, having: str) -> Iterator[Any]:
    """Yields the data sets with an attribute in one that joins, repeats or mixes some.

    Args:
        dataset: A data set, or one around others: mmengine's ``ConcatDataset``, a list
            of which is ``datasets``, or ``RepeatDataset`` and mmdet's
            ``MultiImageMixDataset``, whose one is ``dataset``.
        having: Name of an attribute that data sets with files of their own have.
    """
    for part in getattr(dataset, "datasets", [getattr(dataset, "dataset", None)]):
        if part is not None:
            yield from joined_parts(part, having)
    if hasattr(dataset, having):
        yield dataset
