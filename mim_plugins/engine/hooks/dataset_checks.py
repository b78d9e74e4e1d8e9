"""Checks that detection and segmentation data sets share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def inner_datasets(dataset: Any, having: str) -> Iterator[Any]:
    """Yields the data sets inside wrappers that concatenate, repeat or mix them.

    Args:
        dataset: A data set, or a wrapper: mmengine's ``ConcatDataset`` with a list
            ``datasets``, or ``RepeatDataset`` and mmdet's ``MultiImageMixDataset``
            with one ``dataset``.
        having: Name of an attribute that identifies the data sets to yield.
    """
    for part in getattr(dataset, "datasets", [getattr(dataset, "dataset", None)]):
        if part is not None:
            yield from inner_datasets(part, having)
    if hasattr(dataset, having):
        yield dataset


def check_num_classes(
    name: str, dataset: Any, heads: Iterable[tuple[str, Any]]
) -> None:
    """Checks that every head has as many classes as the data.

    Args:
        name: Of the loader, for the message.
        dataset: A data set of mmdet or mmseg.
        heads: Config path of each head that predicts classes, and the head.

    Raises:
        ValueError: Naming the heads with another number.
    """
    classes = dataset.metainfo.get("classes")
    if classes is None:
        return
    wrong = {
        path: head.num_classes
        for path, head in heads
        if head.num_classes != len(classes)
    }
    if wrong:
        found = ", ".join(f"{path}.num_classes={n}" for path, n in wrong.items())
        wanted = " ".join(f"{path}.num_classes={len(classes)}" for path in wrong)
        raise ValueError(
            f"{name} has {len(classes)} classes ({', '.join(classes[:3])} ...), but "
            f"the model has {found}: change the model with --cfg-options {wanted}, or "
            "the classes in the metainfo of all data sets"
        )
