"""Our own layout, that of mmpretrain's encoders, with the rest of our models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from . import Layout, Options
from .key_rules import KeyRules, has_key, listed

T = TypeVar("T")

_PREFIX = "backbone."

# The parts of our models next to the encoder: in pre-training, classification,
# segmentation and detection.
_PARTS = (
    "neck", "head", "target_generator", "extra_block", "distillation",
    "data_preprocessor", "decode_head", "auxiliary_head", "rpn_head", "roi_head",
    "bbox_head", "mask_head",
)  # fmt: skip

_RELATIVE_POSITION = ("relative_position_bias_table", "relative_position_index")

# Vision Transformers and Hiera: mmpretrain's, with relative positions, with the gated
# MLPs of DINOv2, with those of ViTDet.
_TRANSFORMER = (
    "cls_token", "dist_token", "pos_embed", "patch_embed.projection.{p}",
    "pre_norm.{p}", "ln1.{p}", "ln2.{p}",
    *(f"rel_pos_bias.{name}" for name in _RELATIVE_POSITION),
    *(
        f"layers.{{i}}.{name}"
        for name in (
            "ln1.{p}", "ln2.{p}", "proj.{p}", "gamma_1", "gamma_2",
            "attn.qkv.{p}", "attn.proj.{p}", "attn.q_bias", "attn.v_bias",
            "attn.gamma1.weight", "attn.rel_pos_h", "attn.rel_pos_w",
            *(f"attn.{name}" for name in _RELATIVE_POSITION),
            "ffn.layers.0.0.{p}", "ffn.layers.1.{p}", "ffn.w12.{p}", "ffn.w3.{p}",
            "ffn.gamma2.weight",
        )
    ),
)  # fmt: skip

_SWIN = (
    "absolute_pos_embed", "mask_token", "patch_embed.norm.{p}", "norm{i}.{p}",
    "stages.{i}.downsample.norm.{p}", "stages.{i}.downsample.reduction.{p}",
    *(
        f"stages.{{i}}.blocks.{{j}}.{name}"
        for name in (
            "norm1.{p}", "norm2.{p}", "attn.w_msa.qkv.{p}", "attn.w_msa.proj.{p}",
            *(f"attn.w_msa.{name}" for name in _RELATIVE_POSITION),
            "ffn.layers.0.0.{p}", "ffn.layers.1.{p}",
        )
    ),
)  # fmt: skip

_ENCODERS = KeyRules((_PREFIX + key, _PREFIX + key) for key in _TRANSFORMER + _SWIN)


def _to_native(state: Mapping[str, T], options: Options) -> dict[str, T]:
    """Native tensors as they are; the keys of a bare encoder get their prefix."""
    own = dict(state)
    if not has_key(own, re.escape(_PREFIX)):
        own = {_PREFIX + key: value for key, value in own.items()}
    part = re.compile(rf"({'|'.join(_PARTS)})\.")
    unknown = [k for k in own if not part.match(k) and _ENCODERS.to_ours(k) is None]
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys are none of our encoders' (Vision Transformer, Swin "
            "Transformer, Hiera; below 'backbone.' or alone) and of no other part of "
            f"our models ({', '.join(_PARTS[:5])} ...): {listed(unknown, 6)}"
        )
    return own


LAYOUT = Layout(
    name="mmpretrain",
    title="mmpretrain's own layout",
    marks=(
        r"(backbone\.)?layers\.\d+\.(ln1|attn|ffn)\.",
        r"(backbone\.)?stages\.\d+\.blocks\.\d+\.(norm1|attn\.w_msa|ffn)\.",
    ),
    dropped=((r"data_preprocessor\..*", "follows from the config"),),
    to_native=_to_native,
    advise=lambda native, heads: [],
)
