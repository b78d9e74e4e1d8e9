"""Classes by name and number: of every set, of the model's heads, of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import MMLogger
from mmpretrain.models import BaseClassifier

from .data import inner_datasets, some

_HEADS = re.compile(
    r"(decode_head|auxiliary_head)(\.\d+)?"
    # A region proposal network separates objects from background only.
    r"|(roi_head|bbox_head|mask_head)\b(?!.*rpn_head$).*"
)
_FOLDERS = (
    "Make the class folders the same in both (a class without images has an empty "
    "folder), or list the images with class numbers in an ann_file"
)


class Classes(NamedTuple):
    """The classes of something, in the order of their numbers.

    Args:
        source: What has them, for messages.
        names: By the config, or by an annotation file.
        folders: The sub-folders they were found in, if they were.
        remedy: What to change if they differ from another's.
    """

    source: str
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    remedy: str = "Set metainfo.classes of both to the same names in the same order"


def names_of(dataset: Any) -> tuple[str, ...]:
    """The names in a data set's meta information; empty if it has none."""
    names = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if isinstance(names, str):
        raise ValueError(
            f"classes={names!r} is a text, of which every letter would be a class: "
            f"one class is written with a comma, classes=({names!r},)"
        )
    return tuple(map(str, () if names is None else names))


def classes_of(source: str, dataset: Any) -> Iterator[Classes]:
    """The classes of each data set in wrappers that names some."""
    for part in inner_datasets(dataset, having="metainfo"):
        names, numbers = names_of(part), getattr(part, "folder_to_idx", None) or {}
        folders = tuple(sorted(numbers, key=numbers.__getitem__))
        if hidden := [folder for folder in folders if folder.startswith(".")]:
            raise ValueError(
                f"{source}: the hidden folder {hidden[0]} in {part.img_prefix} would "
                "be a class, and shift the numbers of the others: remove it"
            )
        if folders and names != folders and set(names) == set(folders):
            raise ValueError(
                f"{source}: class folders are numbered in alphabetical order, not in "
                f"that of metainfo.classes, so that names would be swapped: leave them "
                f"out, or set classes=({', '.join(map(repr, folders))})"
            )
        if names or folders:
            remedy = _FOLDERS if folders else Classes(source).remedy
            yield Classes(source, names, folders, remedy)


def compare(known: Sequence[Classes]) -> None:
    """Checks that one number means one class everywhere."""
    for other in known[1:]:
        first = known[0]
        # Folders say more than names given in the config, which need not fit them.
        by_folder = bool(first.folders and other.folders)
        ours, theirs = ((c.folders if by_folder else c.names) for c in (first, other))
        if not ours or not theirs or ours == theirs:
            continue
        missing = [name for name in ours if name not in theirs]
        added = [name for name in theirs if name not in ours]
        details = [f"{other.source} lacks {some(missing)}"] * bool(missing)
        details += [f"{first.source} lacks {some(added)}"] * bool(added)
        pairs = (
            x for x in enumerate(zip(ours, theirs, strict=False)) if len({*x[1]}) > 1
        )
        if not details:
            number, (name, its) = next(pairs)
            details = [f"their order differs, {number} is {name} and {its}"]
        raise ValueError(
            f"{first.source} and {other.source} have other classes ({len(ours)} and "
            f"{len(theirs)}), numbered in this order, so that one label would "
            f"mean two classes: {'; '.join(details)}. {other.remedy}"
        )


def check_same_classes(datasets: Mapping[str, Any], trained: Any = None) -> None:
    """Checks that labels of all data sets mean the same classes.

    Args:
        datasets: Data sets, built, by their name in the config; those that do not name
            their classes are not compared.
        trained: Names of the classes that a checkpoint records, or None.
    """
    known = [c for name, dataset in datasets.items() for c in classes_of(name, dataset)]
    compare([*checkpoint_classes(trained), *known])
    compare(known)


def checkpoint_classes(trained: Any) -> list[Classes]:
    """What a checkpoint knows, if it does, as the first to compare with."""
    names = tuple(map(str, trained or ()))
    return [Classes("the checkpoint's training", names)] if names else []


def class_heads(model: Any) -> Iterator[tuple[str, Any]]:
    """Every head of a detector or segmentor that predicts classes, by config path."""
    for path, module in model.named_modules():
        if isinstance(getattr(module, "num_classes", None), int):
            if _HEADS.fullmatch(path):
                yield f"model.{path}", module


def check_num_classes(
    name: str, classes: Sequence[str], heads: Iterable[tuple[str, Any]]
) -> None:
    """Checks that every head, by config path, has as many classes as the data."""
    wrong = {
        p: head.num_classes for p, head in heads if head.num_classes != len(classes)
    }
    if classes and wrong:
        found = ", ".join(f"{path}.num_classes={n}" for path, n in wrong.items())
        wanted = " ".join(f"{path}.num_classes={len(classes)}" for path in wrong)
        raise ValueError(
            f"{name} has {len(classes)} classes ({', '.join(classes[:3])} ...), but "
            f"the model has {found}: change the model with --cfg-options {wanted}, or "
            "the classes in the metainfo of all data sets"
        )


def check_classifier(name: str, dataset: Any, model: Any) -> None:
    """Checks that a classifier has an output for every class and every label.

    A classifier with more outputs than the data has classes is warned about.
    """
    outputs = getattr(getattr(model, "head", None), "num_classes", None)
    if not isinstance(model, BaseClassifier) or not isinstance(outputs, int):
        return
    mixed = getattr(model.data_preprocessor, "num_classes", None)
    if mixed not in (None, outputs):
        raise ValueError(
            f"model.head.num_classes is {outputs}, but model.data_preprocessor."
            f"num_classes, by which labels are mixed, is {mixed}: set both to the "
            "number of classes"
        )
    option = "--cfg-options model.head.num_classes={0}"
    if mixed is not None:
        option += " model.data_preprocessor.num_classes={0}"
    # The labels of a list need not be those of all classes that the data set names.
    listed = [p for p in inner_datasets(dataset, "ann_file") if p.ann_file]
    known = [] if listed else list(classes_of(name, dataset))
    classes = max((c.folders or c.names for c in known), key=len, default=())
    if len(classes) > outputs:
        raise ValueError(
            f"{name} has {len(classes)} classes ({', '.join(classes[:3])} ...), but "
            f"model.head.num_classes is {outputs}: set {option.format(len(classes))}"
        )
    for part in inner_datasets(dataset, having="get_data_info"):
        if getattr(part, "folder_to_idx", None):
            continue
        infos = (part.get_data_info(index) for index in range(len(part)))
        labels = {x: i for i in infos if isinstance(x := i.get("gt_label"), int)}
        for label, info in labels.items():
            if not 0 <= label < outputs:
                path = info.get("img_path", "an image")
                raise ValueError(
                    f"{name}: {getattr(part, 'ann_file', '') or type(part).__name__} "
                    f"has the label {label} (of {path}), but those of model.head."
                    f"num_classes={outputs} classes are 0 to {outputs - 1}: correct "
                    f"the file, or set {option.format(max(labels) + 1)}"
                )
    if 0 < len(classes) < outputs:
        MMLogger.get_current_instance().warning(
            f"{name} has {len(classes)} classes, the classifier {outputs} outputs, so "
            f"that {outputs - len(classes)} of them are never right: unless that is "
            f"meant, set {option.format(len(classes))}"
        )
