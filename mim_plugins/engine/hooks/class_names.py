"""Checks that data sets and classifiers agree about the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.models import BaseClassifier

from .dataset_checks import inner_datasets


def check_same_classes(datasets: Mapping[str, Any]) -> None:
    """Checks that labels of all data sets mean the same classes.

    Folders of classes are numbered in alphabetical order, those that are there: if one
    is missing, all after it have another number.

    Args:
        datasets: Data sets, built, by their name in the config; those that do not name
            their classes are not compared.

    Raises:
        ValueError: Naming two data sets and the classes in which they differ.
    """
    known = {
        name: classes
        for name, dataset in datasets.items()
        if (classes := named_classes(dataset))
    }
    for (first, ours), (other, theirs) in zip(
        list(known.items())[:1] * len(known), known.items(), strict=True
    ):
        # Folders tell more than names given in the config, which need not fit them.
        kind = next((k for k in ("folders", "names") if k in ours and k in theirs), "")
        if kind and ours[kind] != theirs[kind]:
            raise ValueError(_difference(first, ours[kind], other, theirs[kind]))


def named_classes(dataset: Any) -> dict[str, tuple[str, ...]]:
    """The classes of a data set, in the order of their numbers.

    Args:
        dataset: A data set, perhaps in wrappers.

    Returns:
        ``folders``, the sub-folders they were found in; ``names``, those of the meta
        information; as far as they are known.
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in inner_datasets(dataset, having="metainfo"):
        if folders := getattr(part, "folder_to_idx", None):
            found.setdefault("folders", tuple(sorted(folders, key=folders.get)))
        if names := (part.metainfo or {}).get("classes"):
            found.setdefault("names", tuple(map(str, names)))
    return found


def check_trained_classes(name: str, dataset: Any, trained: Any) -> None:
    """Checks that the classes of a data set are those a checkpoint was trained on.

    Args:
        name: Of the data set, for the message.
        dataset: The data set.
        trained: Names of the classes that the checkpoint records, or None.

    Raises:
        ValueError: Naming the classes in which they differ.
    """
    names = named_classes(dataset).get("names")
    if names and trained and tuple(map(str, trained)) != names:
        trained = tuple(map(str, trained))
        raise ValueError(_difference("the checkpoint's training", trained, name, names))


def check_head(name: str, dataset: Any, model: Any) -> None:
    """Checks that a classifier has an output for every class.

    A classifier with more outputs than the data has classes is warned about.

    Args:
        name: Of the loader, for the message.
        dataset: Its data set.
        model: The model, without distributed wrapper.

    Raises:
        ValueError: Naming both numbers and the option to change.
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
    known = named_classes(dataset)
    listed = [
        part
        for part in inner_datasets(dataset, having="get_gt_labels")
        if getattr(part, "ann_file", "")
    ]
    # The labels of a list need not be those of all classes that the data set names.
    classes = () if listed else known.get("folders") or known.get("names") or ()
    option = "--cfg-options model.head.num_classes={0}"
    if mixed is not None:
        option += " model.data_preprocessor.num_classes={0}"
    if len(classes) > outputs:
        raise ValueError(
            f"{name} has {len(classes)} classes ({', '.join(classes[:3])} ...), but "
            f"model.head.num_classes is {outputs}: set {option.format(len(classes))}"
        )
    for part in filter(_single_labels, listed):
        labels = part.get_gt_labels()
        wrong = labels[(labels < 0) | (labels >= outputs)]
        if len(wrong):
            raise ValueError(
                f"{name}: {part.ann_file} has the label {wrong[0]}, but those of "
                f"model.head.num_classes={outputs} classes are 0 to {outputs - 1}: "
                f"correct the file, or set {option.format(labels.max() + 1)}"
            )
    if 0 < len(classes) < outputs:
        MMLogger.get_current_instance().warning(
            f"{name} has {len(classes)} classes, the classifier {outputs} outputs, so "
            f"that {outputs - len(classes)} of them are never right: unless that is "
            f"meant, set {option.format(len(classes))}"
        )


def _single_labels(dataset: Any) -> bool:
    """Whether each image has one class, given as a number."""
    return len(dataset) > 0 and isinstance(dataset.get_data_info(0)["gt_label"], int)


def _difference(
    first: str, ours: tuple[str, ...], second: str, theirs: tuple[str, ...]
) -> str:
    """The message about classes of two data sets that differ."""
    missing = [name for name in ours if name not in theirs]
    added = [name for name in theirs if name not in ours]
    details = [f"{second} lacks {_some(missing)}"] * bool(missing)
    details += [f"{first} lacks {_some(added)}"] * bool(added)
    return (
        f"{first} and {second} have other classes ({len(ours)} and {len(theirs)}), "
        "which are numbered in this order, so that one label would mean two classes: "
        + ("; ".join(details) or "their order differs")
        + ". Make the class folders the same in both (a class without images has an "
        "empty folder), or list the images with class numbers in an ann_file"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
