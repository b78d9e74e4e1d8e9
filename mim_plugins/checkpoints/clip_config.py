"""What the configuration beside a CLIP file says that no tensor tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Channels per head where no configuration says otherwise: OpenAI's, up to its largest
# tower. Wider ones (open_clip's ViT-H, g and bigG) have 80, 88 and 104.
HEAD_WIDTH = 64
LARGEST_OPENAI_WIDTH = 1024


def default_heads(width: int) -> int:
    """Number of heads of a tower of OpenAI's.

    Raises:
        ValueError: If OpenAI has none of such a width.
    """
    if width % HEAD_WIDTH or width > LARGEST_OPENAI_WIDTH:
        raise ValueError(
            f"a tower of width {width} is none of OpenAI's, and no configuration lies "
            "beside the file: give num_heads (open_clip's ViT-H, g and bigG have 16)"
        )
    return width // HEAD_WIDTH


def told_by_open_clip(folder: Path, width: int) -> dict[str, Any]:
    """Reads ``open_clip_config.json``, if there is one.

    Args:
        folder: Where the weights lie.
        width: Width of the tower in the weights.

    Returns:
        ``num_heads``, ``act``, ``norm_eps``, ``mean`` and ``std``, as far as told.

    Raises:
        ValueError: If it is the configuration of a tower of another width.
    """
    file = folder / "open_clip_config.json"
    config = _json(file)
    if not config:
        return {}
    model, images = config.get("model_cfg", config), config.get("preprocess_cfg", {})
    vision = model.get("vision_cfg", {})
    _check_width(vision.get("width", width), width, file)
    told = {
        "num_heads": width // vision.get("head_width", HEAD_WIDTH),
        "act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "norm_eps": (vision.get("norm_kwargs") or {}).get("eps", 1e-5),
    }
    return told | _image_statistics(images.get("mean"), images.get("std"))


def told_by_hugging_face(folder: Path, width: int) -> dict[str, Any]:
    """Reads ``config.json`` and ``preprocessor_config.json``, as far as they exist.

    Args:
        folder: Where the weights lie.
        width: Width of the tower in the weights.

    Returns:
        As :func:`told_by_open_clip`.

    Raises:
        ValueError: If it is the configuration of a tower of another width.
    """
    file = folder / "config.json"
    config, images = _json(file), _json(folder / "preprocessor_config.json")
    told = _image_statistics(images.get("image_mean"), images.get("image_std"))
    if not config:
        return told
    # Of the whole model, or of the image half alone. The library leaves out what has
    # its default value.
    vision = config.get("vision_config", config)
    _check_width(vision.get("hidden_size", 768), width, file)
    return told | {
        "num_heads": vision.get("num_attention_heads", 12),
        "act": vision.get("hidden_act", "quick_gelu"),
        "norm_eps": vision.get("layer_norm_eps", 1e-5),
    }


def _image_statistics(mean: Any, std: Any) -> dict[str, Any]:
    if not mean or not std:
        return {}
    return {
        name: tuple(value * 255 for value in values)
        for name, values in (("mean", mean), ("std", std))
    }


def _check_width(said: int, width: int, file: Path) -> None:
    if said != width:
        raise ValueError(
            f"{file} is the configuration of a tower of width {said}, but the weights "
            f"beside it have {width}: put the right configuration there, or none"
        )


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}
