"""The pipeline that loads single images for an encoder as its training loaded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mmcv.transforms  # noqa: F401  (registers mmcv's transforms)
from mmengine import registry as root
from mmengine.logging import MMLogger
from mmpretrain.registry import TRANSFORMS
from torch import nn

from ..protocols import MaskedEncoder

# Transforms of mmcv and mmpretrain that cut or scale images, by what their names say.
_GEOMETRY = ("Crop", "Resize", "Pad")
# Those that belong to how images are loaded and normalised.
_VALUES = ("Load", "Normalize", "NumpyToPIL", "PILToNumpy")
# What the names of transforms say that augment images, and are not ours to know.
_AUGMENTATION = ("Random", "Aug", "Jitter", "Flip", "Mask", "Erasing", "Mix")
_HOSTS = ("mmcv", "mmengine", "mmpretrain", "mim_plugins", "torchvision")


def inference_pipeline(
    config: Mapping[str, Any], backbone: nn.Module, pretraining: bool = True
) -> list[dict]:
    """The pipeline that loads an image file for an encoder.

    Images are loaded, and normalised if the pipeline does so, as in training; the size
    is made as in testing: by the crops and resizes of the pipeline of
    ``test_dataloader``, or of ``test_pipeline``. Without them the short edge is resized
    to the size of the encoder's images and the centre cropped, so that images of that
    size stay as they are; where it is not square, images are stretched to it.

    Args:
        config: A config of training.
        backbone: The encoder.
        pretraining: Whether the config is one of pre-training. The test of others is
            taken as it is: it is how the model was judged.

    Raises:
        ValueError: If neither config nor encoder say the size, or they say two.
    """
    test = _pipeline(config, "test")
    if test and not pretraining:
        return test
    before, after = trained_steps(config) if pretraining else ([], [])
    size = [step for step in test if _is_geometry(step)] if test else _fit(backbone)
    if pretraining and isinstance(backbone, MaskedEncoder):
        _check_size(size, backbone.image_size)
    if test and not before:
        return test  # no files in training
    if test:
        _say_difference(test, before)
    before = before or [_default_loading(backbone)]
    if any(step.get("to_float32") for step in before) or _channels(backbone) > 4:
        # Pillow has 8 bits and up to four channels.
        size = [_with_opencv(step) for step in size]
    return [*before, *size, *after, dict(type="PackInputs")]


def for_decoded_images(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline for mmpretrain's inferencers, which decode files themselves.

    They decode to 8-bit BGR and leave ``LoadImageFromFile`` out; where it says more
    than colour, ``TakeDecodedImage`` does, as far as that can be made up for.

    Args:
        pipeline: The pipeline for files.
    """
    steps = []
    for step in pipeline:
        kind = step.get("color_type", "color")
        if _name(step) == "LoadImageFromFile":
            if kind == "color_ignore_orientation":
                MMLogger.get_current_instance().warning(
                    "mmpretrain's inferencers turn photographs as their EXIF "
                    "orientation says, which training did not: "
                    "mim_plugins.evaluation.FeatureExtractor loads them as training"
                )
            if not kind.startswith("color") or step.get("to_float32"):
                float32 = bool(step.get("to_float32"))
                how = dict(color_type=kind, to_float32=float32)
                steps.append(dict(type="TakeDecodedImage", **how))
                continue
        steps.append(step)
    return steps


def trained_steps(config: Mapping[str, Any]) -> tuple[list[dict], list[dict]]:
    """The steps of the training pipeline that load and normalise images.

    Returns:
        Those before the first crop or resize, and those after it; both empty if the
        pipeline loads no files.
    """
    before: list[dict] = []
    after: list[dict] = []
    steps = before
    for step in _pipeline(config, "train"):
        if _is_geometry(step):
            steps = after
        elif _belongs_to_loading(step):
            steps.append(step)
    loads = any(_name(step).startswith("Load") for step in before)
    return (before, after) if loads else ([], [])


def geometry_of(pipeline: Sequence[dict]) -> list[dict]:
    """The steps of a pipeline that cut or scale images."""
    return [step for step in pipeline if _is_geometry(step)]


def turns_by_exif(pipeline: Sequence[dict]) -> bool:
    """Whether a pipeline turns photographs as their EXIF orientation says."""
    loads = (step for step in pipeline if _name(step) == "LoadImageFromFile")
    kind = next((str(step.get("color_type", "color")) for step in loads), "unchanged")
    return kind in ("color", "grayscale")


def _pipeline(config: Mapping[str, Any], part: str) -> list[dict]:
    """The pipeline of a loader, perhaps inside wrappers; empty if there is none."""
    dataset = (config.get(f"{part}_dataloader") or {}).get("dataset")
    while isinstance(dataset, Mapping):
        if dataset.get("pipeline"):
            return _typed(dataset["pipeline"])
        dataset = dataset.get("dataset") or (dataset.get("datasets") or [None])[0]
    return _typed(config.get(f"{part}_pipeline") or [])


def _typed(steps: Any) -> list[dict]:
    return [step for step in steps if isinstance(step, dict) and "type" in step]


def _name(step: Mapping[str, Any]) -> str:
    kind = step["type"]
    name = kind if isinstance(kind, str) else kind.__name__
    return name.rpartition(".")[2].rpartition("/")[2]


def _is_geometry(step: Mapping[str, Any]) -> bool:
    return any(part in _name(step) for part in _GEOMETRY)


def _belongs_to_loading(step: Mapping[str, Any]) -> bool:
    """Whether a step is part of loading and normalising.

    One of the user's is, unless its name says that it augments.
    """
    name = _name(step)
    if name.startswith(_VALUES):
        return True
    # Not Registry.get, which imports what a name asks for.
    registries = (TRANSFORMS, root.TRANSFORMS)
    kinds = [x.module_dict[name] for x in registries if name in x.module_dict]
    if any(kind.__module__.split(".")[0] in _HOSTS for kind in kinds):
        return False
    return not name.startswith("Pack") and not any(x in name for x in _AUGMENTATION)


def _say_difference(test: Sequence[Mapping], before: Sequence[Mapping]) -> None:
    """Logs that training loads images otherwise than the test pipeline."""
    own = [step for step in test if _name(step).startswith("Load")]
    if own and own != [step for step in before if _name(step).startswith("Load")]:
        MMLogger.get_current_instance().info(
            f"images are loaded as in training, {_calls(before)}, instead of "
            f"test_pipeline's {_calls(own)}"
        )


def _calls(steps: Sequence[Mapping]) -> str:
    return ", ".join(
        f"{_name(step)}("
        + ", ".join(f"{key}={x!r}" for key, x in step.items() if key != "type")
        + ")"
        for step in steps
    )


def _channels(backbone: Any) -> int:
    """Number of channels of the encoder's images, 3 where it does not say."""
    projection = getattr(getattr(backbone, "patch_embed", None), "projection", None)
    return int(getattr(projection, "in_channels", 3))


def _default_loading(backbone: nn.Module) -> dict:
    """Loads images of as many channels; EXIF orientation is ignored, as by recipes."""
    kinds = {1: "grayscale", 3: "color_ignore_orientation"}
    kind = kinds.get(_channels(backbone), "unchanged")
    return dict(type="LoadImageFromFile", color_type=kind)


def _fit(backbone: nn.Module) -> list[dict]:
    """Steps that fit images to the encoder's size."""
    height, width = _image_size(backbone)
    how: dict[str, Any] = dict(backend="pillow", interpolation="bicubic")
    if height != width:
        return [dict(type="Resize", scale=(width, height), **how)]
    return [
        dict(type="ResizeEdge", scale=height, edge="short", **how),
        dict(type="CenterCrop", crop_size=height),
    ]


def _with_opencv(step: dict) -> dict:
    """The step with OpenCV's resize, which is antialiased for ``area`` alone."""
    if step.get("backend") != "pillow":
        return step
    return {**step, "backend": "cv2", "interpolation": "area"}


def _check_size(steps: Sequence[Mapping], made_for: tuple[int, int]) -> None:
    """Checks that images come out in the encoder's size, where that can be told.

    Raises:
        ValueError: Naming both sizes.
    """
    step = steps[-1] if steps else dict(type="")
    size = step.get("crop_size") if _name(step) == "CenterCrop" else None
    if _name(step) == "Resize" and not step.get("keep_ratio"):
        size = step.get("scale")
    if size is None:
        return
    width, height = (size, size) if isinstance(size, int) else tuple(size)
    if (height, width) != made_for:
        rows, cols = made_for
        raise ValueError(
            f"test_pipeline makes images of {height}x{width} pixels, but the encoder "
            f"is made for {rows}x{cols}: set scale and crop_size there (--cfg-options "
            f"test_pipeline.1.scale={min(made_for) * 8 // 7} "
            f"test_pipeline.2.crop_size={cols if rows == cols else (cols, rows)}), or, "
            "for interpolated position embeddings, model.backbone.img_size"
        )


def _image_size(backbone: nn.Module) -> tuple[int, int]:
    """Height and width in pixels of the images an encoder was built for.

    Raises:
        ValueError: If it does not say.
    """
    if isinstance(backbone, MaskedEncoder):
        return backbone.image_size
    patches = getattr(backbone, "patch_embed", None)
    size: Any = getattr(backbone, "img_size", getattr(patches, "init_input_size", None))
    if size is None:
        raise ValueError(
            f"a {type(backbone).__name__} does not say the size of its images: give "
            "the config a test_pipeline that resizes them"
        )
    return (size, size) if isinstance(size, int) else (size[0], size[1])
