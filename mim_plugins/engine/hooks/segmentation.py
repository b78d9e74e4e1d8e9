"""Checks that a segmentation data set matches the model, before the first step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ...datasets.seeding import preserve_rng_state
from .dataset_checks import check_num_classes, inner_datasets
from .periodic import unwrapped


@HOOKS.register_module()
class CheckSegmentationHook(Hook):
    """Compares classes, label maps and image sizes with a segmentor.

    It finds mistakes that would otherwise end in an index error on the device, fail
    only after hours at the first validation, or never: heads with another number of
    classes, images without a label map, label maps of another size or with values that
    are not a class, and image sizes that a backbone with relative positions does not
    support.

    Args:
        num_samples: Number of label maps per data set that are read.
    """

    def __init__(self, num_samples: int = 4) -> None:
        self.num_samples = num_samples

    def before_train(self, runner: Runner) -> None:
        """Checks the training data and, if there are any, the validation data.

        Raises:
            ValueError: Naming the mismatch and what to change.
            FileNotFoundError: If label maps are missing.
        """
        self._check("train_dataloader", runner.train_dataloader, runner.model)
        if runner.val_loop is not None:
            self._check("val_dataloader", runner.val_dataloader, runner.model)

    def before_val(self, runner: Runner) -> None:
        """Checks the validation data, as :meth:`before_train`."""
        if runner.iter == 0:
            self._check("val_dataloader", runner.val_dataloader, runner.model)

    def before_test(self, runner: Runner) -> None:
        """Checks the test data, as :meth:`before_train`."""
        self._check("test_dataloader", runner.test_dataloader, runner.model)

    def _check(self, name: str, loader: DataLoader, wrapped: nn.Module) -> None:
        model: Any = unwrapped(wrapped)
        # Inside a wrapper for test-time augmentation.
        model = getattr(model, "module", model)
        dataset: Any = loader.dataset
        if not hasattr(model, "decode_head"):
            return
        for part in inner_datasets(dataset, having="seg_map_suffix"):
            check_num_classes(name, part, _heads(model))
            check_files(name, part)
            places = np.linspace(0, len(part) - 1, self.num_samples).round()
            for index in sorted(set(places.astype(int).tolist())):
                check_label_map(part, index)
        required = getattr(model.backbone, "required_size", None)
        if required is not None:
            if name == "train_dataloader":
                with preserve_rng_state():
                    image = dataset[0]["inputs"]
                check_training_size(tuple(image.shape[-2:]), model, required)
            check_test_sizes(model, required)


def check_files(name: str, dataset: Any) -> None:
    """Checks that the data set has images, each with a label map.

    Raises:
        ValueError: If it has no image.
        FileNotFoundError: If label maps, or their folder, are missing.
    """
    if not len(dataset):
        raise ValueError(
            f"{name} found no image in {dataset.data_prefix.get('img_path')} that ends "
            f"in {dataset.img_suffix}: set data_root with --cfg-options, or the data "
            "set's data_prefix and img_suffix"
        )
    listed: dict[str, set[str]] = {}
    missing = []
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get("seg_map_path", "")
        folder, file = os.path.split(path)
        if "://" in path:
            continue  # remote folders are not listed
        if folder not in listed:
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f"{name}: the folder of label maps, {folder or '(none)'}, does not "
                    "exist: set data_root with --cfg-options, or the data set's "
                    "data_prefix.seg_map_path"
                )
            listed[folder] = set(os.listdir(folder))
        if file not in listed[folder]:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{name}: {len(missing)} of {len(dataset)} images have no label map; the "
            f"first should be {missing[0]}. Add them, take the images out, or set the "
            f"data set's seg_map_suffix (now {dataset.seg_map_suffix})"
        )


def check_label_map(dataset: Any, index: int) -> None:
    """Checks one label map against its image and the classes.

    Raises:
        ValueError: If it has another size, several channels, or values of no class.
    """
    info = dataset.get_data_info(index)
    path, image_path = info["seg_map_path"], info["img_path"]
    if "://" in path:
        return
    labels = mmcv.imread(path, flag="unchanged", backend="pillow")
    if labels.ndim != 2:
        raise ValueError(
            f"{path} has {labels.shape[-1]} channels: a label map has one, which holds "
            "the number of each pixel's class; convert colours to numbers first"
        )
    image = mmcv.imread(image_path, backend="pillow")
    if image.shape[:2] != labels.shape:
        raise ValueError(
            f"{image_path} has {image.shape[0]}x{image.shape[1]} pixels, its label map "
            f"{path} {labels.shape[0]}x{labels.shape[1]}: they do not belong together; "
            "repair data_prefix, or resize the label map (nearest neighbour)"
        )
    classes = dataset.metainfo.get("classes")
    if classes is None or dataset.label_map is not None:
        return
    values = np.unique(labels).astype(int)
    zero, ignored = dataset.reduce_zero_label, dataset.ignore_index
    values = values[(values != 0) & (values != 255)] - 1 if zero else values
    wrong = values[(values != ignored) & (values >= len(classes))]
    if len(wrong):
        raise ValueError(
            f"{path} has the label {wrong[0] + zero}, but labels of {len(classes)} "
            f"classes are {int(zero)} to {len(classes) - 1 + zero} "
            f"(reduce_zero_label={zero}) and {ignored}, which is ignored: give the "
            "data set all its classes, or set reduce_zero_label=True in the data set "
            "and in LoadAnnotations if 0 means none of the classes"
        )


def check_training_size(
    size: tuple[int, int], model: Any, required: tuple[int, int]
) -> None:
    """Checks that padded crops have the fixed input size of a backbone.

    Raises:
        ValueError: If they do not.
    """
    padded_to = getattr(model.data_preprocessor, "size", None) or (0, 0)
    padded = tuple(max(pair) for pair in zip(size, padded_to, strict=True))
    if padded != required:
        raise ValueError(
            f"training images have {_by(padded)} pixels, but the backbone's relative "
            f"positions are those of {_by(required)}: set crop_size of RandomCrop, "
            "model.data_preprocessor.size and model.backbone.img_size to one size, a "
            f"multiple of the patches of {model.backbone.patch_embed.projection.stride}"
        )


def check_test_sizes(model: Any, required: tuple[int, int]) -> None:
    """Checks that sliding windows of a test have the fixed input size of a backbone.

    Raises:
        ValueError: If it does not.
    """
    test_cfg = model.test_cfg
    crop = tuple(test_cfg.get("crop_size", ()))
    if test_cfg.get("mode") != "slide" or crop != required:
        asked = f"mode={test_cfg.get('mode')!r}" + (f", crop_size={crop}" * bool(crop))
        raise ValueError(
            f"the backbone's relative positions are those of {_by(required)} pixels, "
            f"but model.test_cfg has {asked}: set model.test_cfg.mode=slide and "
            f"model.test_cfg.crop_size={required} (images have any size)"
        )
    if any(a > b for a, b in zip(test_cfg["stride"], crop, strict=True)):
        raise ValueError(
            f"model.test_cfg.stride={tuple(test_cfg['stride'])} leaves gaps between "
            f"windows of {_by(crop)}: make it smaller"
        )
    padding = (getattr(model.data_preprocessor, "test_cfg", None) or {}).get("size")
    if padding is None or tuple(padding) != required:
        raise ValueError(
            f"test images smaller than the window of {_by(required)} are to be padded: "
            f"set model.data_preprocessor.test_cfg.size={required}, now {padding}"
        )


def _heads(model: Any) -> Iterator[tuple[str, Any]]:
    """Every classifying head of a segmentor, with its config path."""
    for name in ("decode_head", "auxiliary_head"):
        heads = getattr(model, name, None)
        if isinstance(heads, nn.ModuleList):
            yield from ((f"model.{name}.{k}", head) for k, head in enumerate(heads))
        elif heads is not None:
            yield f"model.{name}", heads


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
