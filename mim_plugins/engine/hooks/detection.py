"""Checks that a detection data set matches the model, before the first iteration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.fileio import get_text
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from .dataset_checks import check_num_classes, inner_datasets
from .periodic import unwrapped


@HOOKS.register_module()
class CheckDetectionHook(Hook):
    """Compares classes, annotations and image sizes with a detector.

    It finds mistakes that would otherwise fail on the device, only after hours, at the
    end of the first validation, or never: heads with another number of classes,
    annotation files with other categories or with objects of unlisted images, missing
    images, a metric with another annotation file than the images, and image sizes that
    a hierarchical backbone cannot divide.

    Args:
        num_samples: Number of images per data set whose files are checked.
    """

    def __init__(self, num_samples: int = 16) -> None:
        self.num_samples = num_samples

    def before_train(self, runner: Runner) -> None:
        """Checks the training data and, if there are any, the validation data.

        Raises:
            ValueError: Naming the mismatch and what to change.
            FileNotFoundError: If images are missing.
        """
        self._check("train_dataloader", runner.train_dataloader, runner.model)
        if runner.val_loop is not None:
            self._check("val_dataloader", runner.val_dataloader, runner.model)
            check_metric("val", runner.val_dataloader.dataset, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        """Checks the test data, as :meth:`before_train`."""
        self._check("test_dataloader", runner.test_dataloader, runner.model)
        check_metric("test", runner.test_dataloader.dataset, runner.test_evaluator)

    def _check(self, name: str, loader: DataLoader, wrapped: nn.Module) -> None:
        model = unwrapped(wrapped)
        for dataset in inner_datasets(loader.dataset, having="ann_file"):
            check_num_classes(name, dataset, class_heads(model))
            check_annotations(name, dataset)
            check_images(name, dataset, self.num_samples)
        check_padding(model)


def class_heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every classifying head of a detector, with its config path."""
    for path, module in model.named_modules():
        if (
            isinstance(getattr(module, "num_classes", None), int)
            # It separates objects from background only.
            and not path.endswith("rpn_head")
            and path.startswith(("roi_head", "bbox_head", "mask_head"))
        ):
            yield f"model.{path}", module


def check_annotations(name: str, dataset: Any) -> None:
    """Checks that an annotation file has all classes, and objects of its images.

    mmdet numbers classes in the order of the file, whatever the order in the config,
    and skips those that are not in it.

    Raises:
        ValueError: If a class is not in the file, the order is another, or no object
            belongs to an image.
    """
    classes, file = dataset.metainfo.get("classes"), getattr(dataset, "ann_file", "")
    # Data sets in other layouts number their classes in other ways.
    if classes is None or not hasattr(dataset, "cat_ids"):
        return
    categories = list(_categories(file, dataset.backend_args))
    absent = [c for c in classes if c not in categories]
    if absent:
        raise ValueError(
            f"{name}: {file} has no category {', '.join(map(repr, absent[:3]))}"
            + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
            + f" of the {len(classes)} classes; it has {len(categories)}: "
            f"{', '.join(map(repr, categories[:3]))} ... Give the data sets its "
            "categories as metainfo=dict(classes=(...)), and the heads their number as "
            "num_classes"
        )
    ordered = [c for c in categories if c in classes]
    if ordered != list(classes):
        raise ValueError(
            f"{name}: the classes are in another order than the categories of {file}, "
            "by which they are numbered, so that names would be wrong: set "
            f"metainfo=dict(classes=({', '.join(map(repr, ordered[:3]))}, ...))"
        )
    if not any(info["instances"] for info in _infos(dataset)):
        raise ValueError(
            f"{name}: no object in {file} belongs to one of its {len(dataset)} images: "
            "image_id of its annotations must be an id of its images, category_id one "
            "of its categories"
        )


def check_images(name: str, dataset: Any, num_samples: int) -> None:
    """Checks that image files exist, for a few evenly spaced samples.

    Raises:
        FileNotFoundError: If one does not.
    """
    places = np.linspace(0, len(dataset) - 1, num_samples).round().astype(int)
    for index in sorted(set(places.tolist())):
        path = dataset.get_data_info(index)["img_path"]
        if "://" not in path and not os.path.isfile(path):
            raise FileNotFoundError(
                f"{name}: {path}, which {dataset.ann_file} lists, does not exist: set "
                "data_root with --cfg-options, or the data set's data_prefix.img"
            )


def check_metric(kind: str, dataset: Any, evaluator: Any) -> None:
    """Checks that metric and data loader have the same images.

    Raises:
        ValueError: If they differ, which mmdet would notice after the last image.
    """
    parts = list(inner_datasets(dataset, having="ann_file"))
    for metric in evaluator.metrics:
        annotations = getattr(metric, "_coco_api", None)
        if annotations is None:
            continue
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


def check_padding(model: Any) -> None:
    """Checks that images are padded to a multiple of the model's largest stride.

    Otherwise levels would be misaligned, and boxes off by some pixels.

    Raises:
        ValueError: If they are not.
    """
    from mmdet.models.necks import FPN

    from mim_plugins.models import Hiera, ViTDet

    backbone: Any = getattr(model, "backbone", None)
    neck: Any = getattr(model, "neck", None)
    if isinstance(backbone, Hiera):
        part, unit, fitting = backbone, backbone.mask_patch_size[0], None
    elif isinstance(backbone, ViTDet):
        part, unit = backbone, backbone.patch_embed.projection.stride[0]
        fitting = backbone.img_size[0]
    elif isinstance(neck, FPN):
        part, unit, fitting = neck, 32, None
    else:
        return
    divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
    option = "model.data_preprocessor.pad_size_divisor"
    if divisor % unit:
        raise ValueError(
            f"{type(part).__name__} divides images into units of {unit}x{unit} pixels, "
            f"but they are padded to multiples of {divisor}: set "
            f"--cfg-options {option}={fitting or unit}"
        )
    if fitting and divisor != fitting:
        MMLogger.get_current_instance().warning(
            f"model.backbone.img_size is {backbone.img_size}, but images are padded to "
            f"multiples of {divisor}: at other sizes positions are interpolated; "
            f"ViTDet's recipe has {option}={fitting}"
        )


def _infos(dataset: Any) -> Iterator[dict]:
    return (dataset.get_data_info(index) for index in range(len(dataset)))


def _categories(file: str, backend_args: dict | None) -> Iterator[str]:
    """Names of the categories of a file in COCO's layout, in its order.

    Only this list of COCO's 450 MB of annotations is decoded again.
    """
    text = get_text(file, backend_args=backend_args)
    start = text.rindex('"categories"') + len('"categories"')
    start = text.index("[", start)
    listed, _ = json.JSONDecoder().raw_decode(text, start)
    return (category["name"] for category in listed)
