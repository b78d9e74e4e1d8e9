"""Which keys a file in our own layout can have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from . import beit, hiera, simmim, swin
from . import timm as timm_layout
from .report import listed
from .rules import KeyRules

T = TypeVar("T")

PREFIX = "backbone."

# The parts of our models beside the encoder: in pre-training, classification,
# segmentation and detection.
PARTS = (
    "neck", "head", "target_generator", "extra_block", "distillation",
    "data_preprocessor", "decode_head", "auxiliary_head", "rpn_head", "roi_head",
    "bbox_head", "mask_head",
)  # fmt: skip

# What no official layout has: ViTDet's relative positions by axis, and the gated MLPs
# of mmpretrain's DINOv2.
_OURS_ALONE = [
    *(f"layers.{{i}}.attn.rel_pos_{axis}" for axis in "hw"),
    *(f"layers.{{i}}.ffn.{name}.{{p}}" for name in ("w12", "w3")),
]


def _of_encoders() -> KeyRules:
    """Rules that know every key of our encoders, and leave it as it is."""
    official = [
        *timm_layout.DISTILLED_RULES,
        *beit.RULES.rules,
        *hiera.CLASSIFIER_RULES,
        *swin.encoder_rules(""),
        *swin.STAGE_NORM_RULES,
    ]
    known = {ours for _, ours in official if ours.startswith(PREFIX)}
    known |= {PREFIX + key for key in (*_OURS_ALONE, "absolute_pos_embed")}
    known.add(PREFIX + simmim.MASK_TOKEN)
    return KeyRules((key, key) for key in sorted(known))


_ENCODERS = _of_encoders()


def take_own(state: Mapping[str, T]) -> dict[str, T]:
    """Ours as they are; the keys of a bare encoder get their prefix.

    Args:
        state: Tensors by key.

    Raises:
        KeyError: If a key is none of our encoders' and of no other part of a model.
    """
    own = dict(state)
    if not any(key.startswith(PREFIX) for key in own):
        own = {PREFIX + key: value for key, value in own.items()}
    unknown = [
        key
        for key in own
        if not re.match(rf"({'|'.join(PARTS)})\.", key)
        and _ENCODERS.to_ours(key) is None
    ]
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys are none of our encoders' (Vision Transformer, Swin "
            "Transformer, Hiera; below 'backbone.' or alone) and of no other part of "
            f"our models ({', '.join(PARTS[:5])} ...): {listed(unknown, 6)}"
        )
    return own
