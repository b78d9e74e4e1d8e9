"""Reads the image tower of a CLIP, and what must be known to build it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mim_plugins.checkpoints.files import read
from mim_plugins.checkpoints.layouts.clip import (
    HUGGING_FACE_RULES,
    WHAT_TO_GIVE,
    convert_tower,
    depth_of,
    image_tower,
)

from .clip_config import (
    HEAD_WIDTH,
    default_heads,
    read_hugging_face,
    read_open_clip,
)

# Files looked for in a folder, best first.
FOLDER_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class CLIPWeights:
    """An image tower: its tensors in float32, and what must be known to build it.

    Args:
        state: Tensors by key: ``vit.`` those of mmpretrain's ``VisionTransformer``,
            and ``proj.weight``, (out_dims, width).
        num_heads: Attention heads.
        act: ``'quick_gelu'`` or ``'gelu'``.
        norm_eps: Added to the variance in every LayerNorm.
        mean: Mean of the images in pixel values, if the file says so.
        std: Standard deviation, likewise.
    """

    state: dict[str, Tensor]
    num_heads: int
    act: str = "quick_gelu"
    norm_eps: float = 1e-5
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.state["vit.cls_token"].shape[-1]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return depth_of(self.state)

    @property
    def hidden(self) -> int:
        """Hidden channels of the MLPs."""
        return self.state["vit.layers.0.ffn.layers.0.0.weight"].shape[0]

    @property
    def out_dims(self) -> int:
        """Width of the projected features."""
        return self.state["proj.weight"].shape[0]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        shape = self.state["vit.patch_embed.projection.weight"].shape
        return shape[2], shape[3]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images whose positions are stored, in pixels."""
        side = math.isqrt(self.state["vit.pos_embed"].shape[1] - 1)
        return side * self.patch_size[0], side * self.patch_size[1]

    def describe(self) -> str:
        """One line for the log."""
        (height, width), (p, q) = self.image_size, self.patch_size
        return (
            f"{self.depth} blocks, width {self.width}, {self.num_heads} heads, patches "
            f"{p}x{q} of {height}x{width} images, {self.out_dims} features, {self.act}"
        )


def read_clip(
    path: str | Path, num_heads: int | None = None, act: str | None = None
) -> CLIPWeights:
    """Reads the image tower of a CLIP model, whatever the layout.

    The layout is known from the keys: OpenAI's and open_clip's ``visual.``, with or
    without that prefix, or Hugging Face's ``vision_model.``. What cannot be inferred
    from the weights (heads, activation, image statistics) is read from the
    configuration next to the file, if there is one.

    Args:
        path: A file (TorchScript archive, ``torch.save``, safetensors) or a folder.
        num_heads: Attention heads, if known better.
        act: Activation, if known better.

    Raises:
        FileNotFoundError: If there is no such file, or none in the folder.
        TypeError: If ``path`` is no path, or ``num_heads`` no whole number.
        ValueError: If it holds no CLIP Vision Transformer, or ``num_heads`` or ``act``
            does not fit it.
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(f"checkpoint={path!r} is no path: {WHAT_TO_GIVE}")
    file = _find(Path(path).expanduser())
    tensors = read(file).tensors
    rules, found = image_tower(tensors, file)
    state = convert_tower(rules, found, file)
    width = state["vit.cls_token"].shape[-1]
    read_config = read_hugging_face if rules is HUGGING_FACE_RULES else read_open_clip
    known = read_config(file.parent, width)
    if act is not None:
        known["act"] = act
    if num_heads is not None:
        known["num_heads"] = num_heads
    elif "num_heads" not in known:
        known["num_heads"] = default_heads(width)
    if type(known["num_heads"]) is not int:
        raise TypeError(
            f"num_heads={known['num_heads']!r} is no whole number: give one, such as "
            f"{max(width // HEAD_WIDTH, 1)} for {file}"
        )
    if known["num_heads"] < 1 or width % known["num_heads"]:
        raise ValueError(
            f"num_heads={known['num_heads']} does not divide the width {width} of the "
            f"tower in {file}: OpenAI's towers have one head per {HEAD_WIDTH} channels"
        )
    if known.get("act", "gelu") not in ("quick_gelu", "gelu"):
        raise ValueError(
            f"act={known['act']!r} is none of CLIP's activations: choose 'quick_gelu' "
            "(OpenAI's models) or 'gelu' (most of open_clip's)"
        )
    return CLIPWeights(state, **known)


def _find(path: Path) -> Path:
    """The file to read.

    Raises:
        FileNotFoundError: If there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no CLIP checkpoint {path}: {WHAT_TO_GIVE}")
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"the folder {path} has none of {', '.join(FOLDER_FILES)}: give the file of "
        f"the weights itself, or {WHAT_TO_GIVE.removeprefix('give ')}"
    )
