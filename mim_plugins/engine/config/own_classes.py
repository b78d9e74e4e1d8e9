"""The number of classes of a classifier, from the class folders of its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from ...datasets import ClassFolders
from .overrides import parts


def follow_class_folders(
    cfg: Config, options: Mapping[str, Any] | None = None, loader: str = "train"
) -> str | None:
    """Give a classifier as many classes as its data has class folders.

    ``num_classes`` of the head, of mixed labels (``data_preprocessor``) and of metrics
    is set, and top-k accuracies of as many classes or more, which would always be
    100 %, are left out.

    Args:
        cfg: The config; ``model`` and the evaluators are changed in place.
        options: Values of the command line by dotted key, which are kept.
        loader: Whose data counts: ``train`` or ``test``.

    Returns:
        A line for the log, or None if nothing changes.
    """
    found = _class_folders(cfg.get(f"{loader}_dataloader"))
    if found is None:
        return None
    where, folders = found
    changed = []
    for path, part, key, value in _counts(cfg, len(folders)):
        name = f"{path}.{key}"
        if part[key] != value and name not in (options or {}):
            changed.append(f"{name}={value} (was {part[key]})")
            part[key] = value
    if not changed:
        return None
    names = ", ".join(folders[:3]) + (" ..." if len(folders) > 3 else "")
    return (
        f"classes: {len(folders)}, the folders in {where} ({names}), so that "
        + ", ".join(changed)
    )


def _class_folders(loader: Any) -> tuple[str, list[str]] | None:
    """Folder and class folders of the first ``ClassFolders`` of a loader, if any."""
    for _, part in parts(loader or {}):
        if isinstance(part, Mapping) and part.get("type") == ClassFolders.__name__:
            dataset = DATASETS.build({**part, "pipeline": [], "lazy_init": True})
            try:
                folders = dataset.class_folders()
            except FileNotFoundError:
                return None  # said, with all else that is wrong, when it is built
            return None if folders is None else (dataset.img_prefix, folders)
    return None


def _counts(cfg: Config, classes: int) -> Iterator[tuple[str, Any, str, Any]]:
    """What depends on the number of classes: path, part of the config, key and value.

    A teacher's classes are those it was trained on.
    """
    for path, part in list(parts(cfg)):
        if not isinstance(part, MutableMapping):
            continue
        of_model = path in ("model.head", "model.data_preprocessor")
        of_metric = path.startswith(("val_evaluator", "test_evaluator"))
        if (of_model or of_metric) and isinstance(part.get("num_classes"), int):
            yield path, part, "num_classes", classes
        if of_metric and isinstance(part.get("topk"), (list, tuple)):
            ranks = tuple(k for k in part["topk"] if k < classes) or (1,)
            yield path, part, "topk", ranks
