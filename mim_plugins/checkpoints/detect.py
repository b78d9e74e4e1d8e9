"""Which layout a checkpoint is in, told by its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Name of our own layout, that of mmpretrain.
OURS = "mmpretrain"

# Layouts by name, as the command line takes them, and what they are in words.
LAYOUTS = {
    OURS: "mmpretrain's own layout",
    "deepmim": "DeepMIM's official layout",
    "localmim": "LocalMIM's official layout",
    "mirl": "MIRL's official layout",
    "mae-lite": "the layout of MAE-Lite's training wrapper",
    "mae": "the layout of facebookresearch/mae",
    "simmim": "SimMIM's official layout",
    "hiera": "Hiera's official layout",
    "timm": "timm's layout, that of MAE's encoder, DeiT and Swin",
    "beit": "the layout of BEiT-style models with relative positions",
    "clip": "the layout of a CLIP image tower",
}

# What only a layout has, the most special first: a pattern some key starts with.
_WRAPPED = r"(module\.)?model\."
_MARKS = [
    (OURS, r"(backbone\.)?layers\.\d+\.(ln1|attn|ffn)\."),
    (OURS, r"(backbone\.)?stages\.\d+\.blocks\.\d+\.(norm1|attn\.w_msa|ffn)\."),
    ("clip", r"(.*\.)?(visual\.|vision_model\.embeddings\.)class_embedding$"),
    ("clip", r"class_embedding$"),
    ("mae-lite", rf"{_WRAPPED}(cls_token$|pos_embed$|patch_embed\.|blocks\.)"),
    ("mae-lite", rf"{_WRAPPED}(encoder|layers)\."),
    ("simmim", r"encoder\.mask_token$"),
    ("mirl", r"decoder_embed0_1\."),
    ("deepmim", r"decoder_embed1\."),
    ("localmim", r"decoder\.0\.(embed\.|mask_token$)"),
    ("hiera", r"blocks\.\d+\.proj\."),
    ("mae", r"decoder_embed\."),
    ("beit", r"blocks\.\d+\.(attn\.([qv]_bias$|relative_position)|gamma_[12]$)"),
    ("beit", r"rel_pos_bias\."),
    ("timm", r"(layers\.\d+\.)?blocks\.\d+\.attn\.qkv\."),
]

# What parallel training and compilation put before every key.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def strip_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """Takes off what parallel training or compilation put before every key."""
    stripped = dict(state)
    for prefix in _PREFIXES:
        if stripped and all(key.startswith(prefix) for key in stripped):
            stripped = {key[len(prefix) :]: x for key, x in stripped.items()}
    return stripped


def detect(state: Mapping[str, Any]) -> str | None:
    """The layout of a state dict, or None if it is none that is known.

    Args:
        state: Tensors by key, without the prefixes of :func:`strip_wrappers`.

    Returns:
        A name in :data:`LAYOUTS`.
    """
    for name, pattern in _MARKS:
        found = re.compile(pattern)
        if any(found.match(key) for key in state):
            if name == "timm" and _is_paddle(state):
                return "mirl"
            return name
    return None


def norm_follows_pooling_or_not(state: Mapping[str, Any]) -> bool:
    """Whether the keys are a Swin classifier's, whose norm has two possible places.

    In Swin's own code and in timm it is before the pooling, in LocalMIM's fine-tuning
    behind it; no key and no shape tells.
    """
    return "norm.weight" in state and "layers.0.blocks.0.norm1.weight" in state


def _is_paddle(state: Mapping[str, Any]) -> bool:
    """Whether linear weights are (in, out), as in no file but PaddlePaddle's."""
    weight = state.get("blocks.0.attn.qkv.weight")
    shape: Any = getattr(weight, "shape", ())
    return len(shape) == 2 and shape[1] > shape[0]
