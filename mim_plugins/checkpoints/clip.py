"""Image towers of CLIP in every layout they come in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .clip_config import (
    HEAD_WIDTH,
    default_heads,
    told_by_hugging_face,
    told_by_open_clip,
)
from .loading import read_state_dict
from .rules import KeyRules

WHAT_TO_GIVE = (
    "give the OpenAI CLIP ViT-B/16 weights (ViT-B-16.pt as downloaded), a state dict "
    "of such a model or of its image tower, an open_clip file or folder, or a Hugging "
    "Face folder (openai/clip-vit-base-patch16)"
)

# Rules of OpenAI's blocks and of Hugging Face's, whose q, k and v are fused before.
_OPENAI_BLOCK = [
    ("ln_1.{p}", "ln1.{p}"),
    ("attn.in_proj_{p}", "attn.qkv.{p}"),
    ("attn.out_proj.{p}", "attn.proj.{p}"),
    ("ln_2.{p}", "ln2.{p}"),
    ("mlp.c_fc.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.c_proj.{p}", "ffn.layers.1.{p}"),
]
_HUGGING_FACE_BLOCK = [
    ("layer_norm1.{p}", "ln1.{p}"),
    ("self_attn.qkv_proj.{p}", "attn.qkv.{p}"),
    ("self_attn.out_proj.{p}", "attn.proj.{p}"),
    ("layer_norm2.{p}", "ln2.{p}"),
    ("mlp.fc1.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.fc2.{p}", "ffn.layers.1.{p}"),
]

# OpenAI's and open_clip's image tower (`visual.`) <-> ours.
OPENAI_RULES = KeyRules(
    [
        ("class_embedding", "vit.cls_token"),
        ("positional_embedding", "vit.pos_embed"),
        ("conv1.weight", "vit.patch_embed.projection.weight"),
        ("ln_pre.{p}", "vit.pre_norm.{p}"),
        *(
            (f"transformer.resblocks.{{i}}.{a}", f"vit.layers.{{i}}.{b}")
            for a, b in _OPENAI_BLOCK
        ),
        ("ln_post.{p}", "vit.ln1.{p}"),
        ("proj", "proj.weight"),
    ]
)

# Hugging Face's image tower (`vision_model.`) <-> ours.
HUGGING_FACE_RULES = KeyRules(
    [
        ("embeddings.class_embedding", "vit.cls_token"),
        ("embeddings.position_embedding.weight", "vit.pos_embed"),
        ("embeddings.patch_embedding.weight", "vit.patch_embed.projection.weight"),
        ("pre_layrnorm.{p}", "vit.pre_norm.{p}"),  # spelt so in the library
        *(
            (f"encoder.layers.{{i}}.{a}", f"vit.layers.{{i}}.{b}")
            for a, b in _HUGGING_FACE_BLOCK
        ),
        ("post_layernorm.{p}", "vit.ln1.{p}"),
        ("visual_projection.weight", "proj.weight"),
    ]
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
        return _depth(self.state)

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

    The layout is told by the keys: OpenAI's and open_clip's ``visual.``, with or
    without that prefix, or Hugging Face's ``vision_model.``. What no tensor tells
    (heads, activation, image statistics) is read from the configuration beside the
    file, if there is one.

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
    tensors = read_state_dict(file)
    rules, found = _image_tower(tensors, file)
    state = _convert(rules, found, file)
    width = state["vit.cls_token"].shape[-1]
    settings = (
        told_by_hugging_face if rules is HUGGING_FACE_RULES else told_by_open_clip
    )
    told = settings(file.parent, width)
    if act is not None:
        told["act"] = act
    if num_heads is not None:
        told["num_heads"] = num_heads
    elif "num_heads" not in told:
        told["num_heads"] = default_heads(width)
    if type(told["num_heads"]) is not int:
        raise TypeError(
            f"num_heads={told['num_heads']!r} is no whole number: give one, such as "
            f"{max(width // HEAD_WIDTH, 1)} for {file}"
        )
    if told["num_heads"] < 1 or width % told["num_heads"]:
        raise ValueError(
            f"num_heads={told['num_heads']} does not divide the width {width} of the "
            f"tower in {file}: OpenAI's towers have one head per {HEAD_WIDTH} channels"
        )
    if told.get("act", "gelu") not in ("quick_gelu", "gelu"):
        raise ValueError(
            f"act={told['act']!r} is none of CLIP's activations: choose 'quick_gelu' "
            "(OpenAI's models) or 'gelu' (most of open_clip's)"
        )
    return CLIPWeights(state, **told)


def encoder_of(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder of a CLIP's image tower as ours, ``backbone.``, in float32.

    Args:
        tensors: Those of a whole CLIP, or of its image tower, projection included.
        source: Where they are from, for messages.

    Raises:
        ValueError: If there is no image tower that is a Vision Transformer.
    """
    file = Path(source)
    rules, found = _image_tower(tensors, file)
    tower = _convert(rules, found, file)
    return {
        f"backbone.{key.removeprefix('vit.')}": value
        for key, value in tower.items()
        if key.startswith("vit.")
    }


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


def _image_tower(
    tensors: Mapping[str, Tensor], file: Path
) -> tuple[KeyRules, dict[str, Tensor]]:
    """The tensors of the image tower without their prefix, and the rules for them.

    Raises:
        ValueError: If there is no CLIP Vision Transformer in the file.
    """
    for rules, last in (
        (HUGGING_FACE_RULES, "embeddings.class_embedding"),
        (OPENAI_RULES, "class_embedding"),
    ):
        for key in tensors:
            prefix = key.removesuffix(last)
            if prefix == key or (prefix and not prefix.endswith(".")):
                continue
            found = {
                k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)
            }
            if rules is HUGGING_FACE_RULES:
                # The projection stands beside the tower; positions are a mere count.
                parent = prefix.removesuffix("vision_model.")
                projection = tensors.get(f"{parent}visual_projection.weight")
                if projection is not None:
                    found["visual_projection.weight"] = projection
                found.pop("embeddings.position_ids", None)
                found = _fuse_qkv(found)
            return rules, found
    keys = [k for k in tensors if "visual." in k or "vision" in k] or list(tensors)
    if any("attnpool." in key for key in keys):
        problem = "a CLIP with a ResNet, which has no patch tokens"
    elif len(keys) < len(tensors):
        problem = "an image tower that is no Vision Transformer of CLIP's"
    elif any("token_embedding" in key for key in keys):
        problem = "the text half of a CLIP, and no image tower"
    else:
        problem = "no image tower of a CLIP Vision Transformer"
    some = ", ".join(keys[:6]) + (" ..." if len(keys) > 6 else "")
    raise ValueError(
        f"{file} holds {problem}: among its keys ({some}) is no class_embedding. "
        f"Instead, {WHAT_TO_GIVE}"
    )


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stacks separate query, key and value projections, in this order."""
    fused = dict(state)
    for key in state:
        match = re.fullmatch(r"(.+\.)q_proj\.(weight|bias)", key)
        parts = match and [f"{match[1]}{name}_proj.{match[2]}" for name in "qkv"]
        if match and parts and all(part in state for part in parts):
            fused[f"{match[1]}qkv_proj.{match[2]}"] = torch.cat(
                [fused.pop(part) for part in parts]
            )
    return fused


def _convert(
    rules: KeyRules, found: dict[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Renames and reshapes a tower, in float32.

    Raises:
        ValueError: If keys are unknown or missing, or shapes do not fit together,
            naming them, or positions are not those of a square image.
    """
    try:
        state = rules.convert(found)
    except KeyError as error:
        raise ValueError(
            f"the image tower in {file} is of another architecture than CLIP's Vision "
            f"Transformer: {error.args[0]}. Instead, {WHAT_TO_GIVE}"
        ) from error
    names = (
        ours.format(i=i, p=p)
        for _, ours in rules.rules
        for i in range(max(_depth(state), 1) if "{i}" in ours else 1)
        for p in ("weight", "bias")
    )
    missing = sorted({str(rules.to_official(n)) for n in names} - found.keys())
    if missing:
        raise ValueError(
            f"the image tower in {file} lacks {', '.join(missing[:10])}"
            + (" ..." if len(missing) > 10 else "")
            + f": {WHAT_TO_GIVE}, projection included"
        )
    _check_shapes(rules, state, file)
    state = {key: value.float() for key, value in state.items()}
    state["vit.cls_token"] = state["vit.cls_token"].view(1, 1, -1)
    state["vit.pos_embed"] = state["vit.pos_embed"].unsqueeze(0)
    if rules is OPENAI_RULES:
        # Stored to be multiplied from the right, (width, out_dims).
        state["proj.weight"] = state["proj.weight"].T.contiguous()
    positions = state["vit.pos_embed"].shape[1] - 1
    if math.isqrt(positions) ** 2 != positions:
        raise ValueError(
            f"the image tower in {file} has {positions} positions, which are no square "
            f"grid: {WHAT_TO_GIVE}"
        )
    return state


def _check_shapes(rules: KeyRules, state: Mapping[str, Tensor], file: Path) -> None:
    """Checks that all tensors of a tower, as stored, are of one width.

    Raises:
        ValueError: If one is not, naming it and both shapes.
    """
    width = state["vit.cls_token"].numel()
    hidden = (*state["vit.layers.0.ffn.layers.0.0.bias"].shape, 0)[0]
    shapes: dict[str, tuple[int | None, ...]] = {  # None: of any size
        "cls_token": (width,),
        "pos_embed": (None, width),
        "projection.weight": (width, 3, None, None),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "ffn.layers.0.0.weight": (hidden, width),
        "ffn.layers.0.0.bias": (hidden,),
        "ffn.layers.1.weight": (width, hidden),
        "proj.weight": (width, None) if rules is OPENAI_RULES else (None, width),
    }
    for key, value in state.items():
        wanted = next(
            (shape for end, shape in shapes.items() if key.endswith(end)), (width,)
        )
        if len(wanted) != value.ndim or any(
            w not in (None, n) for w, n in zip(wanted, value.shape, strict=True)
        ):
            sizes = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(
                f"the image tower in {file} does not fit together: "
                f"{rules.to_official(key)} has the shape {tuple(value.shape)}, but "
                f"({sizes}) is needed beside the other tensors. Instead, "
                f"{WHAT_TO_GIVE}"
            )


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("vit.layers.")})
