"""Sizes: of real images against annotations, of batches and paddings against models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from PIL import Image

from ...datasets.image_files import printable
from .data import loading_steps

_ORIENTATION = 274  # of EXIF


def check_size(
    dataset: Any, info: dict, stated: tuple[int, int], where: str, swapped: str
) -> str:
    """Compares a loaded image with the size its annotations are for.

    Args:
        dataset: The data set, whose pipeline loaded the image.
        info: The loaded sample.
        stated: Height and width by the annotations.
        where: What states them, for the message.
        swapped: What to do if only height and width are swapped.

    Returns:
        The path, if the image was turned as its EXIF data ask and sizes do not show
        whether the annotations are; ``"proven"`` if they show it; else nothing.
    """
    path, actual = printable(info["img_path"]), tuple(info["img"].shape[:2])
    turn, stored = _stored(info["img_path"])
    if actual == stated:
        (load, *_) = loading_steps(dataset, "LoadImage")
        if turn == 1 or getattr(load, "color_type", "") not in ("color", "grayscale"):
            return ""
        return "proven" if turn > 4 and actual[0] != actual[1] else path
    remedy = (
        "they do not belong together. Repair the paths, or scale the annotations to "
        "the images (label maps by nearest neighbour)"
    )
    if actual == stated[::-1] and turn > 4:
        how, color_type = "as turned", "color"
        if actual != stored:
            how, color_type = "as stored", "color_ignore_orientation"
        remedy = (
            "its EXIF orientation turns it by 90 degrees, and the annotations are for "
            f"the image {how}: set color_type='{color_type}' of LoadImageFromFile in "
            "all pipelines"
        )
    elif actual == stated[::-1]:
        remedy = f"height and width are swapped. {swapped}"
    raise ValueError(
        f"{path} has {_by(actual)} pixels (height x width), {where} {_by(stated)}: "
        f"{remedy}"
    )


def warn_of_turned(name: str, sizes: set[str]) -> None:
    """Says that sizes do not show whether annotations are turned with the images."""
    if "proven" not in sizes and (paths := sorted(sizes - {""})):
        MMLogger.get_current_instance().warning(
            f"{name}: {len(paths)} sampled images, such as {paths[0]}, have an EXIF "
            "orientation and are turned when loaded; whether their annotations are for "
            "the turned images their size does not show. If they are for the pixels as "
            "stored, set color_type='color_ignore_orientation' of LoadImageFromFile"
        )


def _stored(path: str) -> tuple[int, tuple[int, int] | None]:
    """The EXIF orientation of an image, 1 to 8, and its size without it."""
    if not os.path.isfile(path):
        return 1, None
    try:
        with Image.open(path) as image:
            return image.getexif().get(_ORIENTATION, 1), image.size[::-1]
    except OSError:  # a format that only the pipeline reads
        return 1, None


def check_padding(model: Any) -> None:
    """Checks that images are padded to a multiple of the model's largest stride.

    Otherwise levels would be misaligned, and boxes off by some pixels.
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


def check_training_size(
    size: tuple[int, int], model: Any, required: tuple[int, int]
) -> None:
    """Checks that padded crops have the fixed input size of a backbone."""
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
    """Checks that sliding windows of a test have the fixed input size of a backbone."""
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


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
