"""Label maps of a segmentation data set, as its pipeline gives them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger

from ...datasets.seeding import preserve_rng_state
from .classes import names_of
from .data import Data, load, loading_steps, some, spread
from .image_sizes import check_size, warn_of_turned

# How many maps are looked at where a few seem to be wrong.
_MANY = 1000


def check_files(data: Data, dataset: Any) -> bool:
    """Checks that the data set has images, each with a label map if it needs one.

    Returns:
        Whether it has label maps.
    """
    name = data.name
    if not len(dataset):
        raise ValueError(
            f"{name} found no image in {dataset.data_prefix.get('img_path')} that ends "
            f"in {dataset.img_suffix}: set data_root with --cfg-options, or the data "
            "set's data_prefix and img_suffix"
        )
    predict = (
        ". To predict only, without labels, take LoadAnnotations out of the pipeline "
        f"and set {data.kind}_evaluator.format_only=True and output_dir"
    ) * (data.kind != "train")
    steps = loading_steps(dataset, "LoadAnnotations")
    if not steps:
        if data.needs_truth and loading_steps(dataset, "Load"):
            raise ValueError(
                f"{name}: its pipeline has no LoadAnnotations, so that there are no "
                f"labels to compare with: add it{predict}"
            )
        return False
    listed: dict[str, set[str]] = {}
    missing = []
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get("seg_map_path") or ""
        folder, file = os.path.split(path)
        if "://" in path:
            continue  # remote folders are not listed
        if folder not in listed:
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f"{name}: the folder of label maps, {folder or '(none)'}, does not "
                    "exist: set data_root with --cfg-options, or the data set's "
                    f"data_prefix.seg_map_path{predict}"
                )
            listed[folder] = set(os.listdir(folder))
        if file not in listed[folder]:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{name}: {len(missing)} of {len(dataset)} images have no label map; the "
            f"first should be {missing[0]}. Add them, take the images out, or set the "
            f"data set's seg_map_suffix (now {dataset.seg_map_suffix}){predict}"
        )
    return True


def check_conventions(
    sets: Sequence[tuple[Data, Any]], heads: dict, meta: dict
) -> None:
    """Checks that sets, heads, metrics and checkpoint read labels in one way."""
    zeros = {data.name: dataset.reduce_zero_label for data, dataset in sets}
    if meta.get("reduce_zero_label") is not None:
        zeros["the checkpoint's training"] = meta["reduce_zero_label"]
    if len(set(zeros.values())) > 1:
        found = ", ".join(f"{value} in {name}" for name, value in zeros.items())
        raise ValueError(
            f"reduce_zero_label is {found}: one label would mean two classes. Set it "
            "alike in all data sets (True if 0 is none of the classes)"
        )
    ignored = {
        f"{path}.ignore_index": head.ignore_index
        for path, head in heads.items()
        if getattr(head, "ignore_index", None) is not None
    }
    for data, dataset in sets:
        # mmseg itself reads no data set's; it has a say where somebody has set it.
        if dataset.ignore_index != 255:
            ignored[f"{data.name}.dataset.ignore_index"] = dataset.ignore_index
        ignored |= {
            f"{data.kind}_evaluator.ignore_index": metric.ignore_index
            for metric in data.metrics
            if hasattr(metric, "ignore_index")
        }
    if len(set(ignored.values())) > 1:
        found = ", ".join(f"{name}={value}" for name, value in ignored.items())
        raise ValueError(
            f"the label that is ignored differs: {found}. Training and score would "
            "leave out other pixels; set all to one number"
        )


def check_labels(data: Data, dataset: Any, heads: dict, num_samples: int) -> None:
    """Checks the values of a few label maps, and their sizes against the images."""
    classes: Sequence[Any] = names_of(dataset)
    for head in heads.values():
        classes = classes or range(head.num_classes)
    ignored = {getattr(h, "ignore_index", None) for h in heads.values()} - {None}
    ignored = ignored or {dataset.ignore_index}
    counts: Counter[int] = Counter()
    sizes = set()
    places = spread(dataset, num_samples)
    for index in places:
        info = load(dataset, index)
        stored = info["gt_seg_map"]
        path = info["seg_map_path"]
        if stored.ndim != 2:
            raise ValueError(
                f"{path} has {stored.shape[-1]} channels: a label map has one, which "
                "holds the number of each pixel's class; convert colours to numbers"
            )
        what = f"its label map {path}"
        sizes.add(check_size(dataset, info, stored.shape, what, "Transpose the map"))
        values, numbers = np.unique(_labels(dataset, index, stored), return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        check_values(values, classes, ignored, dataset.reduce_zero_label, path)
    warn_of_turned(data.name, sizes)
    if len(counts) > 1 or ignored & set(counts):
        _check_seen(data, dataset, classes, ignored, counts, len(places))


def _labels(dataset: Any, index: int, stored: np.ndarray) -> np.ndarray:
    """The labels of a sample after the complete pipeline, where that gives some."""
    with preserve_rng_state():
        item = dataset[index]
    sample = item.get("data_samples") if isinstance(item, dict) else None
    sample = sample[0] if isinstance(sample, list) else sample
    labels = getattr(sample, "gt_sem_seg", None)
    return stored if labels is None else labels.data.numpy()


def check_values(
    values: Any, classes: Sequence, ignored: set, zero: bool, path: str
) -> None:
    """Checks that labels are classes."""
    wrong = [v for v in values if v not in ignored and not 0 <= v < len(classes)]
    if wrong:
        shift = int(zero)
        raise ValueError(
            f"{path} has the label {wrong[0] + shift * (wrong[0] != 255)}, but labels "
            f"of {len(classes)} classes are {shift} to {len(classes) - 1 + shift} "
            f"(reduce_zero_label={zero}) and {some(sorted(ignored))}, which is "
            "ignored: correct it, give data set and heads all classes, or set "
            "reduce_zero_label=True in the data set if 0 means none of them"
        )


def _check_seen(
    data: Data,
    dataset: Any,
    classes: Sequence,
    ignored: set,
    counts: Counter,
    maps: int,
) -> None:
    """Checks which classes occur, and that not all but one are ignored."""
    share = sum(counts[x] for x in ignored) / counts.total()
    seen = set(counts) - ignored
    zero, first = dataset.reduce_zero_label, str(classes[0]).lower()
    shifted = zero and "background" in first and not type(dataset).METAINFO
    suspicious = len(seen) < 2 <= len(classes) or shifted
    if suspicious and len(seen) < len(classes):
        for index in spread(dataset, _MANY):
            stored = load(dataset, index, "LoadAnnotations")["gt_seg_map"]
            seen |= set(np.unique(stored).tolist())
        seen -= ignored
    absent = [str(x) for k, x in enumerate(classes) if k not in seen]
    line = (
        f"{data.name}: in {maps} of {len(dataset)} label maps, {share:.0%} of the "
        f"pixels are ignored (label {some(sorted(ignored))})"
    )
    if absent:
        line += f"; none has {some(absent, 5)}"
    if share and (not seen or len(seen) == 1 < len(classes) or (shifted and absent)):
        remedy = "write the classes' numbers, from 0 on, into the label maps"
        if zero:
            remedy = (
                "reduce_zero_label=True ignores label 0 and makes 1 the first class, "
                f"{classes[0]!r}: set it to False if 0 means that"
            )
        elif 255 in ignored:
            remedy += " (255 is ignored; write 1 for a foreground of 255)"
        raise ValueError(f"{line}. Nothing but that could be learnt; {remedy}")
    # Fewer maps than classes say little about the rare ones.
    warns = share > 0.5 or (absent and maps >= min(len(classes), len(dataset)))
    logger = MMLogger.get_current_instance()
    (logger.warning if warns else logger.info)(line)


def check_test_batch(data: Data, dataset: Any, num_samples: int) -> None:
    """Checks that images of a test's batch have one size, as mmseg asks."""
    if data.kind == "train" or data.batch_size in (None, 1):
        return
    with preserve_rng_state():
        items = [dataset[index] for index in spread(dataset, num_samples)]
    inputs = (i["inputs"] for i in items if isinstance(i, dict) and "inputs" in i)
    sizes = {tuple(x.shape[-2:]) for x in inputs if isinstance(x, torch.Tensor)}
    if len(sizes) > 1:
        raise ValueError(
            f"{data.name} makes batches of {data.batch_size} of images of several "
            f"sizes, such as {some(sorted(sizes), 2)}, which mmseg cannot stack: set "
            f"--cfg-options {data.name}.batch_size=1"
        )
