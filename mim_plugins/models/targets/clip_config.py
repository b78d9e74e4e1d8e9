"""Reads the configuration next to a CLIP file: what its weights do not show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Channels per head where no configuration says otherwise: OpenAI's, up to its largest
# tower. Wider ones (open_clip's ViT-H, g and bigG) have 80, 88 and 104.
HEAD_WIDTH = 64
LARGEST_OPENAI_WIDTH = 1024

# Of Hugging Face's configurations: a whole CLIP, or its image half alone.
MODEL_TYPES = ("clip", "clip_vision_model")


def default_heads(width: int) -> int:
    """Number of heads of a tower of OpenAI's.

    Raises:
        ValueError: If OpenAI has none of such a width.
    """
    if width % HEAD_WIDTH or width > LARGEST_OPENAI_WIDTH:
        raise ValueError(
            f"a tower of width {width} is none of OpenAI's, and there is no "
            "configuration next to the file: give num_heads (open_clip's ViT-H, g and "
            "bigG have 16)"
        )
    return width // HEAD_WIDTH


def read_open_clip(folder: Path, width: int) -> dict[str, Any]:
    """Reads ``open_clip_config.json``, if there is one.

    Args:
        folder: Where the weights lie.
        width: Width of the tower in the weights.

    Returns:
        ``num_heads``, ``act``, ``norm_eps``, ``mean`` and ``std``, as far as given.

    Raises:
        ValueError: If it is damaged, or the configuration of another model or of a
            tower of another width.
    """
    file = folder / "open_clip_config.json"
    config = _json(file)
    if not config:
        return {}
    model = _part(config, "model_cfg", file) or config
    images = _part(config, "preprocess_cfg", file)
    vision = _part(model, "vision_cfg", file)
    _check_width(vision.get("width", width), width, file)
    head_width = vision.get("head_width", HEAD_WIDTH)
    if not isinstance(head_width, int) or head_width < 1 or width % head_width:
        raise ValueError(
            f"{file} says head_width={head_width!r}, which does not divide the width "
            f"{width} of the tower: put the right configuration there, or none"
        )
    found = {
        "num_heads": width // head_width,
        "act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "norm_eps": _epsilon(_part(vision, "norm_kwargs", file).get("eps", 1e-5), file),
    }
    return found | _image_statistics(images.get("mean"), images.get("std"), file)


def read_hugging_face(folder: Path, width: int) -> dict[str, Any]:
    """Reads ``config.json`` and ``preprocessor_config.json``, as far as they exist.

    Args:
        folder: Where the weights lie.
        width: Width of the tower in the weights.

    Returns:
        As :func:`read_open_clip`.

    Raises:
        ValueError: If it is damaged, or the configuration of another model or of a
            tower of another width.
    """
    file = folder / "config.json"
    images_file = folder / "preprocessor_config.json"
    config, images = _json(file), _json(images_file)
    found = _image_statistics(
        images.get("image_mean"), images.get("image_std"), images_file
    )
    if not config:
        return found
    kind = config.get("model_type")
    # The library leaves out what has its default value.
    vision = _part(config, "vision_config", file)
    if kind == "clip_vision_model":
        vision = vision or config
    elif kind not in MODEL_TYPES and not vision:
        raise ValueError(
            f"{file} is the configuration of another model (model_type={kind!r}) than "
            f"a CLIP ({' or '.join(MODEL_TYPES)}): put the one that belongs to the "
            "weights there, or none"
        )
    _check_width(vision.get("hidden_size", 768), width, file)
    return found | {
        "num_heads": vision.get("num_attention_heads", 12),
        "act": vision.get("hidden_act", "quick_gelu"),
        "norm_eps": _epsilon(vision.get("layer_norm_eps", 1e-5), file),
    }


def _image_statistics(mean: Any, std: Any, file: Path) -> dict[str, Any]:
    if not mean or not std:
        return {}
    for values in (mean, std):
        if not isinstance(values, list) or not all(
            isinstance(value, (int, float)) for value in values
        ):
            raise ValueError(
                f"{file} gives {values!r} as mean or standard deviation of the images: "
                "a list of numbers is needed"
            )
    return {
        name: tuple(value * 255 for value in values)
        for name, values in (("mean", mean), ("std", std))
    }


def _epsilon(value: Any, file: Path) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError(f"{file} gives {value!r} for the LayerNorms' eps, no number")
    return float(value)


def _check_width(said: Any, width: int, file: Path) -> None:
    if said != width:
        raise ValueError(
            f"{file} is the configuration of a tower of width {said}, but the weights "
            f"next to it have {width}: put the right configuration there, or none"
        )


def _part(config: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    """A part of a configuration; an empty one if it is left out."""
    part = config.get(name)
    if part is not None and not isinstance(part, Mapping):
        raise ValueError(f"{file} is damaged: {name} is {part!r}, not a mapping")
    return part or {}


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is no JSON: {error}. Download it anew, or remove it"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} holds a {type(content).__name__}, not a mapping: put the "
            "configuration that belongs to the weights there, or none"
        )
    return content
