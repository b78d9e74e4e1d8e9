"""Our own layout, that of mmpretrain's encoders, with the rest of our models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from . import Layout, Options
from .key_rules import has_key, listed

T = TypeVar("T")

# The parts of our models next to the encoder: in pre-training, classification,
# segmentation and detection.
_PARTS = (
    "neck", "head", "target_generator", "extra_block", "distillation",
    "data_preprocessor", "decode_head", "auxiliary_head", "rpn_head", "roi_head",
    "bbox_head", "mask_head",
)  # fmt: skip

# Vision Transformers and Hiera: mmpretrain's, with relative positions, with the gated
# MLPs of DINOv2, with those of ViTDet; and Swin Transformers.
_LINEAR = r"(?:weight|bias)"
_RELATIVE_POSITION = r"relative_position_(?:bias_table|index)"
_OF_ENCODERS = (
    r"(?:cls_token|dist_token|mask_token|pos_embed|absolute_pos_embed)",
    r"(?:template|search)_pos_embed",
    rf"(?:patch_embed\.(?:projection|norm)|pre_norm|ln[12]|norm\d+)\.{_LINEAR}",
    rf"rel_pos_bias\.{_RELATIVE_POSITION}",
    rf"layers\.\d+\.(?:ln[12]|proj|attn\.(?:qkv|proj))\.{_LINEAR}",
    rf"layers\.\d+\.ffn\.(?:layers\.(?:0\.0|1)|w12|w3)\.{_LINEAR}",
    r"layers\.\d+\.(?:gamma_[12]|attn\.gamma1\.weight|ffn\.gamma2\.weight)",
    rf"layers\.\d+\.attn\.(?:[qv]_bias|rel_pos_[hw]|{_RELATIVE_POSITION})",
    rf"stages\.\d+\.downsample\.(?:norm|reduction)\.{_LINEAR}",
    rf"stages\.\d+\.blocks\.\d+\.(?:norm[12]|attn\.w_msa\.(?:qkv|proj))\.{_LINEAR}",
    rf"stages\.\d+\.blocks\.\d+\.ffn\.layers\.(?:0\.0|1)\.{_LINEAR}",
    rf"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.{_RELATIVE_POSITION}",
)
_OURS = re.compile(
    rf"backbone\.(?:{'|'.join(_OF_ENCODERS)})|(?:{'|'.join(_PARTS)})\..*"
)


def _to_native(state: Mapping[str, T], options: Options) -> dict[str, T]:
    """Native tensors as they are; the keys of a bare encoder get their prefix."""
    own = dict(state)
    if not has_key(own, r"backbone\."):
        own = {f"backbone.{key}": value for key, value in own.items()}
    unknown = [key for key in own if not _OURS.fullmatch(key)]
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
