"""What data sets of detection and segmentation are checked for alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def check_num_classes(
    name: str, dataset: Any, heads: Iterable[tuple[str, Any]]
) -> None:
    """Checks that every head has as many classes as the data.

    Args:
        name: Of the loader, for the message.
        dataset: A data set of mmdet or mmseg.
        heads: What predicts classes, and the option of a config that it is.

    Raises:
        ValueError: Naming the heads that have not.
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
