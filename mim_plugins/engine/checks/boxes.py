"""Boxes and masks of a detection data set: usable objects, real images, metrics."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.fileio import get_text
from mmengine.logging import MMLogger

from .classes import Classes, compare, names_of
from .data import Data, inner_datasets, load, loading_steps, some, spread
from .image_sizes import check_size, warn_of_turned

_CROWD = "crowds (iscrowd 1)"
# Why mmdet takes no box from an annotation, and what to do about it.
_REMEDIES = {
    "of unlisted images": "image_id of annotations must be an id of the file's images",
    "of unlisted categories": "category_id must be an id of the file's categories",
    "marked ignore": "take ignore out of what is to be learnt",
    "of area 0": "set area to that of the mask, or to width * height",
    "smaller than a pixel": "bbox is [x, y, width, height] in pixels",
    "outside their image": "bbox is [x, y, width, height] in pixels of the image",
    _CROWD: "iscrowd marks groups, which are neither learnt nor scored: set it to 0",
}
_FRACTIONS = (
    "boxes from 0 to 1 are fractions of the images: multiply them by width and height"
)
_CORNERS = (
    "they look like [x1, y1, x2, y2], but COCO's are [x, y, width, height]: subtract "
    "the first corner from the second"
)


def read_annotations(dataset: Any) -> dict[str, Any]:
    """The annotation file of a data set in COCO's layout; of others, nothing."""
    if not hasattr(dataset, "cat_ids") or not dataset.ann_file:
        return {}
    file = json.loads(get_text(dataset.ann_file, backend_args=dataset.backend_args))
    # Of panoptic segmentation, annotations are maps, not objects.
    is_panoptic = any("segments_info" in a for a in file.get("annotations", ())[:1])
    return {} if is_panoptic else file


def check_categories(
    sets: Sequence[Data], files: dict[int, dict], trained: list[Classes]
) -> None:
    """Checks that a label means one class in all sets, metrics and a checkpoint.

    mmdet numbers classes in the order of ``categories`` in each file, whatever the
    order in the config, and skips those that are not in it.

    Args:
        sets: The data of all loops.
        files: What :func:`read_annotations` gives for a data set, by its ``id``.
        trained: The checkpoint's classes, if they are known.
    """
    known, configured = list(trained), []
    for data in sets:
        classes: tuple[str, ...] = ()
        for part in inner_datasets(data.dataset, having="ann_file"):
            classes, source = names_of(part), f"{data.name} ({part.ann_file})"
            listed = files[id(part)].get("categories")
            if listed is None:  # of another layout, which numbers them as the config
                known.append(Classes(source, classes))
                continue
            known.append(_numbered(source, classes, listed, part.cat_ids))
            configured.append((known[-1], classes))
        for metric in data.metrics:
            if api := getattr(metric, "_coco_api", None):
                source, listed = (
                    f"{data.kind}_evaluator.ann_file",
                    list(api.cats.values()),
                )
                known.append(_numbered(source, classes, listed, list(api.cats)))
    compare([entry for entry in known if entry.names])
    for found, classes in configured:
        if found.names != classes:
            order = ", ".join(map(repr, found.names))
            raise ValueError(
                f"{found.source}: metainfo.classes has another order than the file's "
                "categories, which number the classes, so that names would be wrong: "
                f"set metainfo=dict(classes=({order})) in all data sets"
            )


def _numbered(
    source: str, classes: Sequence[str], listed: Sequence[dict], ids: Sequence[Any]
) -> Classes:
    """The classes in the order of a file's categories, all of which it must have."""
    names = [category["name"] for category in listed]
    if absent := [name for name in classes if name not in names]:
        spaced = {name.replace(" ", "") for name in names if " " in name}
        raise ValueError(
            f"{source} has no category {some(list(map(repr, absent)))} of the "
            f"{len(classes)} classes; it has {len(names)}: "
            f"{some(list(map(repr, names)), 10)}. "
            + "--cfg-options drops spaces in names: give them in a config file. "
            * bool(spaced & set(absent))
            + "Give the data sets their categories as metainfo=dict(classes=(...)), "
            "the heads their number as num_classes; if only this file lacks one, add "
            "it to categories, in the order of the other files"
        )
    if twice := [name for name in classes if names.count(name) > 1]:
        raise ValueError(f"{source} lists the category {twice[0]!r} twice: merge them")
    by_id = {category["id"]: category["name"] for category in listed}
    order = tuple(by_id[i] for i in ids if by_id.get(i) in classes)
    return Classes(
        source,
        order,
        remedy="mmdet numbers classes in the order of categories in each file, not of "
        "metainfo: bring these lists into one order (ids may stay), and "
        "metainfo.classes likewise",
    )


def check_objects(data: Data, part: Any, content: dict[str, Any]) -> None:
    """Counts the objects that mmdet uses, and logs them and why others are left out."""
    sizes = {i["id"]: (i.get("width"), i.get("height")) for i in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    annotations, chosen = content.get("annotations", ()), {None, *names_of(part)}
    annotations = [a for a in annotations if names.get(a["category_id"]) in chosen]
    if part._indices is not None:  # of the file, some images only are meant
        ids = {info["img_id"] for info in _infos(part)}
        annotations = [a for a in annotations if a["image_id"] in ids]
    reasons = Counter(_left_out(a, sizes, names) for a in annotations)
    used, total = reasons.pop("", 0), len(annotations)
    left = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    line = (
        f"{data.name}: {len(part)} of {len(sizes)} images, {used} of {total} objects "
        f"of {part.ann_file} are used" + (left and f"; left out: {left}")
    )
    dropped = total - used - reasons[_CROWD]
    if used == 0 or 2 * used < total or 2 * dropped >= total:
        worst = next(iter(reasons.most_common(1)), ("", 0))[0]
        boxes = [x for a in annotations for x in a.get("bbox", ())]
        remedy = _REMEDIES.get(worst, "it has no object of the classes")
        if not total and data.kind == "test":
            remedy += " (to predict only, test_evaluator.format_only=True)"
        if worst == "smaller than a pixel" and max(boxes) <= 1:
            remedy = _FRACTIONS
        raise ValueError(f"{line}. Correct the file: {remedy}")
    level = logging.WARNING if dropped else logging.INFO
    MMLogger.get_current_instance().log(level, line)
    _check_extent(f"{data.name}: {part.ann_file}", annotations, sizes)
    steps = [s for s in loading_steps(part, "Load") if getattr(s, "with_mask", False)]
    by_metric = any("segm" in getattr(m, "metrics", ()) for m in data.metrics)
    bare = [a for a in annotations if not a.get("segmentation")]
    if bare and (steps or by_metric):
        what = "LoadAnnotations(with_mask=True)" if steps else "the metric 'segm'"
        raise ValueError(
            f"{data.name}: {len(bare)} of {total} objects of {part.ann_file} have a "
            f"box and no mask (segmentation), which {what} reads. Add masks, or detect "
            "boxes only: LoadAnnotations(with_mask=False) in all pipelines, "
            "model.roi_head.mask_head=None and metric='bbox' of the evaluators"
        )


def _left_out(annotation: dict, sizes: dict, names: dict) -> str:
    """Why mmdet does not use an annotation, as CocoDataset decides; or nothing."""
    if annotation["image_id"] not in sizes:
        return "of unlisted images"
    if annotation["category_id"] not in names:
        return "of unlisted categories"
    if annotation.get("ignore"):
        return "marked ignore"
    width, height = sizes[annotation["image_id"]]
    x, y, w, h = annotation["bbox"]
    if w < 1 or h < 1:
        return "smaller than a pixel"
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return "outside their image"
    if annotation["area"] <= 0:
        return "of area 0"
    return _CROWD if annotation.get("iscrowd") else ""


def _check_extent(where: str, annotations: list[dict], sizes: dict) -> None:
    """Checks that boxes lie in their images, by and large."""
    boxes = [
        (*a["bbox"], *sizes[a["image_id"]])
        for a in annotations
        if a["image_id"] in sizes
    ]
    beyond = sum(x + w > 1.1 * W or y + h > 1.1 * H for x, y, w, h, W, H in boxes)
    corners = all(w > x and h > y for x, y, w, h, *_ in boxes)
    if 4 * beyond >= len(boxes) and corners or 2 * beyond > len(boxes):
        problem = _CORNERS if corners else "they are for images of another size"
        raise ValueError(
            f"{where}: {beyond} of {len(boxes)} boxes reach far beyond their image; "
            f"{problem}"
        )


def check_images(data: Data, part: Any, num_samples: int) -> None:
    """Checks that sampled images exist, can be read, and have the size in the file."""
    sizes = set()
    for index in spread(part, num_samples):
        info = part.get_data_info(index)
        path = info["img_path"]
        if "://" not in path and not os.path.isfile(path):
            raise FileNotFoundError(
                f"{data.name}: {path}, which {part.ann_file} lists, does not exist: "
                "set data_root with --cfg-options, or the data set's data_prefix.img"
            )
        info = load(part, index, "LoadImage")
        if "img" not in info or not info.get("height"):
            continue
        stated, remedy = (info["height"], info["width"]), "Swap them in its images"
        sizes.add(check_size(part, info, stated, f"by {part.ann_file}", remedy))
    warn_of_turned(data.name, sizes)


def check_metrics(data: Data, model: Any) -> None:
    """Checks that metric, data and model go together."""
    kind, parts = data.kind, list(inner_datasets(data.dataset, having="ann_file"))
    for metric in data.metrics:
        roi_head = getattr(model, "roi_head", None)
        masks = getattr(roi_head, "with_mask", True)
        if "segm" in getattr(metric, "metrics", ()) and not masks:
            raise ValueError(
                f"{kind}_evaluator scores masks ('segm'), which this model does not "
                f"predict: set {kind}_evaluator.metric=bbox"
            )
        annotations = getattr(metric, "_coco_api", None)
        if annotations is None or not data.needs_truth:
            continue
        if 0 in annotations.anns:
            raise ValueError(
                f"{kind}_evaluator.ann_file has an annotation with the id 0, which "
                "pycocotools takes for no match, so that it would never count as "
                "found: number annotations from 1"
            )
        known = set(annotations.get_img_ids())
        given = {info["img_id"] for part in parts for info in _infos(part)}
        if unknown := given - known:
            raise ValueError(
                f"{kind}_evaluator.ann_file does not list {len(unknown)} of the "
                f"{len(given)} images of {kind}_dataloader, "
                f"{', '.join(part.ann_file for part in parts)}: set both to one file"
            )
        if len(given) < len(known):
            raise ValueError(
                f"{kind}_dataloader has {len(given)} of the {len(known)} images that "
                f"{kind}_evaluator.ann_file lists, and the objects of the others would "
                "count as missed: give the metric a file of these images, or none "
                f"(--cfg-options {kind}_evaluator.ann_file=None, with 'instances' in "
                "meta_keys of PackDetInputs)"
            )


def _infos(dataset: Any) -> Iterator[dict]:
    return (dataset.get_data_info(index) for index in range(len(dataset)))
