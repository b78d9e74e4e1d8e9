"""One image size for data and model: ``img_size`` and ``patch_size`` of a config.

A child config, or ``--cfg-options``, sets them once, and they reach what a config file
has copied into many places when it was read: crops, test pipelines, encoders and the
cells of targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from fractions import Fraction
from typing import Any

from mmengine.config import Config, ConfigDict
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from mmpretrain.registry import MODELS

from ...models import Hiera, MIMSwinTransformer
from ..errors import accepted_keys
from .overrides import parts

Size = tuple[int, int]

# What cuts or resizes to a given size: its key, and whether the width comes first.
_STEPS = {
    "RandomResizedCrop": ("scale", False),
    "TensorRandomResizedCrop": ("scale", False),
    "EfficientNetRandomCrop": ("scale", False),
    "RandomCrop": ("crop_size", False),
    "EfficientNetCenterCrop": ("crop_size", False),
    "CenterCrop": ("crop_size", True),
    "Resize": ("scale", True),
}
_RANDOM_CROPS = ("RandomResizedCrop", "TensorRandomResizedCrop")
_ASPECTS = (3 / 4, 4 / 3)  # the random crops' default
_ENCODERS = ("model.backbone", "model.teacher", "model.target_generator.teacher")


def takes_image_size(cfg: Config) -> bool:
    """Whether a config's model is one of pre-training or classification.

    Args:
        cfg: The config.
    """
    if cfg.get("default_scope", "mmpretrain") != "mmpretrain":
        return False
    kind = class_of(cfg.get("model"))
    return kind is not None and issubclass(kind, (BaseSelfSupervisor, BaseClassifier))


def follow_image_size(cfg: Config) -> None:
    """Give pipelines and model the ``img_size`` and ``patch_size`` of a config.

    ``img_size`` (a number of pixels, or height and width) is the size of the random
    crops of training, of the central crops of tests, k-NN and extraction of features,
    whose resize before keeps its ratio to the crop, and of encoders and teachers.
    ``patch_size`` is that of encoders and teachers; cells of targets keep their ratio
    to the patch. Images of another shape than before are cropped in that shape when
    training, and resized to it in tests. Calling it again changes nothing.

    Args:
        cfg: The config, changed in place. One without these names, or not of
            pre-training or classification, where they may be variables of the file,
            stays as it is.

    Raises:
        ValueError: If a size is none, or does not fit the model.
    """
    asked = [name for name in ("img_size", "patch_size") if cfg.get(name) is not None]
    if not asked or not takes_image_size(cfg):
        return
    sizes = {name: as_size(name, cfg[name]) for name in asked}
    if "patch_size" in sizes:
        _follow_patch_size(cfg, sizes["patch_size"])
    if "img_size" in sizes:
        _follow_img_size(cfg, sizes["img_size"])
    _check_units(cfg)


def as_size(name: str, value: Any) -> Size:
    """Height and width of a config's value, a number or a pair.

    Args:
        name: Of the value, for the message.
        value: The value.

    Raises:
        ValueError: If it is neither.
    """
    pair = [value, value] if isinstance(value, int) else value
    if (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(type(side) is int and side > 0 for side in pair)
    ):
        return pair[0], pair[1]
    raise ValueError(
        f"{name}={value!r} is no size in pixels: give one number, as in {name}=96, or "
        f"height and width, as in {name}=64,160"
    )


def describe_image_size(cfg: Config) -> str | None:
    """A line for the log on the size that a config's model and images have.

    Args:
        cfg: The config, after :func:`follow_image_size`.

    Returns:
        None for a config that sets no size.
    """
    if not takes_image_size(cfg) or not (cfg.get("img_size") or cfg.get("patch_size")):
        return None
    backbone = cfg.model.backbone
    text = "image size: the config follows"
    for name in ("img_size", "patch_size"):
        if cfg.get(name) is not None:
            text += f" {name}={_by(as_size(name, cfg[name]))} and"
    text = text.removesuffix(" and")
    if "img_size" in accepted_keys(class_of(backbone) or object):
        rows, cols = _size_in(backbone, "img_size")
        unit = _unit(backbone)
        grid = f"{rows // unit[0]}x{cols // unit[1]}"
        text += f"; the encoder has a grid of {grid} units of {_by(unit)} pixels"
    return text


def _follow_patch_size(cfg: Config, patch: Size) -> None:
    backbone = cfg.model.backbone
    if "patch_size" not in accepted_keys(class_of(backbone) or object):
        raise ValueError(
            f"patch_size={_by(patch)}: {backbone.type} has no patches; leave it out"
        )
    factor = Fraction(patch[0], _size_in(backbone, "patch_size")[0])
    for encoder in _encoders(cfg):
        if "patch_size" in accepted_keys(class_of(encoder) or object):
            encoder["patch_size"] = _short(patch)
    if factor == 1:
        return
    for path, part in list(parts(cfg.model.get("target_generator") or {})):
        if isinstance(part, Mapping) or path.rpartition(".")[2] != "cell_size":
            continue
        if part is None or path.startswith("teacher."):
            continue
        many = isinstance(part, (list, tuple))
        cells = [factor * cell for cell in (part if many else [part])]
        if any(cell < 1 or cell.denominator != 1 for cell in cells):
            raise ValueError(
                f"patch_size={_by(patch)}: model.target_generator.{path}={part!r}, in "
                "pixels, does not become whole numbers at the same ratio; choose a "
                "patch_size that divides, or set cell_size and model.backbone."
                "patch_size by themselves"
            )
        whole = tuple(map(int, cells))
        cfg.merge_from_dict(
            {f"model.target_generator.{path}": whole if many else whole[0]}
        )


def _follow_img_size(cfg: Config, size: Size) -> None:
    before = _size_in(cfg.model.backbone, "img_size")
    for encoder in _encoders(cfg):
        if "img_size" in accepted_keys(class_of(encoder) or object):
            encoder["img_size"] = _short(size)
    # Steps and lists may be shared: all are read before the first is changed.
    found = []
    for path, node in list(parts(cfg)):
        last = path.rpartition(".")[2]
        if last.endswith("pipeline") and isinstance(node, list) and node:
            steps = [step for step in _steps(node)]
            sizes = [(step, made) for step in steps if (made := _made_by(step))]
            found.append((node, steps, sizes[-1][1] if sizes else None))
    changed: set[int] = set()
    for pipeline, steps, old in found:
        if old is None:
            _resize_unsized(pipeline, before, size)
            continue
        for step in steps:
            if id(step) not in changed:
                changed.add(id(step))
                _resize_step(step, old, size)


def _encoders(cfg: Config) -> Iterator[MutableMapping]:
    """The encoders that see the training images as patches, as in the config."""
    for path in _ENCODERS:
        node: Any = cfg
        for name in path.split("."):
            node = node.get(name) if isinstance(node, Mapping | Config) else None
        if isinstance(node, Mapping) and "backbone" in node:
            node = node["backbone"]  # a complete model as the teacher
        if isinstance(node, MutableMapping) and "type" in node:
            yield node


def _steps(node: Any) -> Iterator[MutableMapping]:
    """The steps of a pipeline in order, those in other steps included."""
    if isinstance(node, MutableMapping):
        if "type" in node:
            yield node
        for child in node.values():
            yield from _steps(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _steps(child)


def _name_of(step: Mapping) -> str:
    kind = step["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _made_by(step: Mapping) -> Size | None:
    """Height and width of the images that a step makes, where it fixes them."""
    name = _name_of(step)
    key, width_first = _STEPS.get(name, (None, False))
    if key is None or step.get(key) is None or step.get("keep_ratio"):
        edge = step.get("scale") if name == "ResizeEdge" else None
        return (edge, edge) if isinstance(edge, int) else None
    rows, cols = as_size(f"{key} of {name}", step[key])
    return (cols, rows) if width_first else (rows, cols)


def _resize_step(step: MutableMapping, old: Size, new: Size) -> None:
    """Scales what a step makes as the pipeline's result is scaled."""
    name, made = _name_of(step), _made_by(step)
    if made is None or old == new:
        return
    rows, cols = (
        round(side * after / before)
        for side, before, after in zip(made, old, new, strict=True)
    )
    if name == "ResizeEdge":
        if rows == cols:
            step["scale"] = rows
            return
        # Cropped in the middle, a resized edge would cut off most of a long image.
        step.pop("edge", None)
        step["type"], step["keep_ratio"] = "Resize", False
        name = "Resize"
    key, width_first = _STEPS[name]
    step[key] = _short((cols, rows) if width_first else (rows, cols))
    shape = (cols / rows) / (made[1] / made[0])
    if name in _RANDOM_CROPS and shape != 1:
        step["aspect_ratio_range"] = tuple(
            round(shape * aspect, 6)
            for aspect in step.get("aspect_ratio_range", _ASPECTS)
        )


def _resize_unsized(pipeline: list, before: Size, size: Size) -> None:
    """Adds a resize to a pipeline that takes images as they are.

    They have had the size of the model so far.
    """
    packs = [
        index
        for index, step in enumerate(pipeline)
        if isinstance(step, Mapping) and str(step.get("type", "")).startswith("Pack")
    ]
    if packs and before != size:
        step = dict(type="Resize", scale=(size[1], size[0]), interpolation="bicubic")
        pipeline.insert(packs[0], ConfigDict(step))


def _check_units(cfg: Config) -> None:
    """Checks that patches, or the units of a hierarchical encoder, divide images.

    Raises:
        ValueError: Naming sizes that fit.
    """
    backbone = cfg.model.backbone
    keys = accepted_keys(class_of(backbone) or object)
    if "img_size" not in keys or "patch_size" not in keys:
        return
    size, unit = _size_in(backbone, "img_size"), _unit(backbone)
    if not any(side % part for side, part in zip(size, unit, strict=True)):
        return
    below = [max(1, a // b) * b for a, b in zip(size, unit, strict=True)]
    above = [-(-a // b) * b for a, b in zip(size, unit, strict=True)]
    sizes = dict.fromkeys(",".join(map(str, _sides(pair))) for pair in (below, above))
    patch = _size_in(backbone, "patch_size")
    of = "patches" if unit == patch else f"units (of patches of {_by(patch)})"
    raise ValueError(
        f"img_size={_by(size)} is no multiple of the {of} of {_by(unit)} pixels of "
        f"{backbone.type}: take img_size={' or img_size='.join(sizes)}, or another "
        "patch_size"
    )


def _unit(backbone: Mapping) -> Size:
    """Height and width of the unit of the mask, which has to divide images."""
    rows, cols = _size_in(backbone, "patch_size")
    kind = class_of(backbone)
    if kind is not None and issubclass(kind, (MIMSwinTransformer, Hiera)):
        arch = backbone.get("arch")
        stages = len(arch["depths"]) if isinstance(arch, Mapping) else 4
        return rows * 2 ** (stages - 1), cols * 2 ** (stages - 1)
    return rows, cols


def _size_in(part: Mapping, key: str) -> Size:
    """Height and width by a key of a part, or by default of its class."""
    defaults = {"img_size": 224, "patch_size": 16}
    kind = class_of(part)
    if kind is not None and "depths" in str(getattr(kind, "arch_zoo", "")):
        defaults["patch_size"] = 4
    return as_size(f"{key} of {part.get('type')}", part.get(key, defaults[key]))


def class_of(part: Any) -> type | None:
    """The class that a part of a model is built from.

    Args:
        part: A part of a config.

    Returns:
        None for no part, or an unknown one.
    """
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry("mmpretrain") as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def _short(size: Size) -> int | Size:
    return size[0] if size[0] == size[1] else size


def _sides(size: Any) -> tuple[int, ...]:
    return tuple(size[:1]) if size[0] == size[1] else tuple(size)


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
