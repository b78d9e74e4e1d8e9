"""Rules shared by every layout that has timm's Vision Transformer in it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

BLOCK_RULES = [
    ("norm1.{p}", "ln1.{p}"),
    ("attn.qkv.{p}", "attn.qkv.{p}"),
    ("attn.proj.{p}", "attn.proj.{p}"),
    ("norm2.{p}", "ln2.{p}"),
    ("mlp.fc1.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.fc2.{p}", "ffn.layers.1.{p}"),
]


def block_rules(official: str, ours: str) -> list[tuple[str, str]]:
    """Rules of transformer blocks below two prefixes that hold the block number."""
    return [(official + a, ours + b) for a, b in BLOCK_RULES]


# The encoder; `norm` follows the last block, `fc_norm` the pooled patch tokens.
ENCODER_RULES = [
    ("cls_token", "backbone.cls_token"),
    ("pos_embed", "backbone.pos_embed"),
    ("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    *block_rules("blocks.{i}.", "backbone.layers.{i}."),
    ("norm.{p}", "backbone.ln1.{p}"),
]

# A fine-tuned classifier, pooled (`fc_norm`) or on the class token (`norm`).
CLASSIFIER_RULES = [
    *ENCODER_RULES,
    ("fc_norm.{p}", "backbone.ln2.{p}"),
    ("head.{p}", "head.fc.{p}"),
]

# Relative positions, as BEiT-style models have them; the indices are buffers.
RELATIVE_POSITION_RULES = [
    (f"{official}relative_position_{name}", f"backbone.{ours}relative_position_{name}")
    for official, ours in (
        ("blocks.{i}.attn.", "layers.{i}.attn."),
        ("rel_pos_bias.", "rel_pos_bias."),
    )
    for name in ("bias_table", "index")
] + [
    (f"blocks.{{i}}.{name}", f"backbone.layers.{{i}}.{name}")
    for name in ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2")
]

# Attention heads of the Vision Transformers of MAE and what is made from it, by width.
# No tensor has another shape at another number of heads.
OFFICIAL_HEADS = {192: 12, 384: 12, 768: 12, 1024: 16, 1280: 16}


def heads_by_width(state: Mapping[str, Tensor]) -> int | None:
    """Attention heads of an official Vision Transformer of MAE's family."""
    cls = state.get("cls_token")
    return None if cls is None else OFFICIAL_HEADS.get(cls.shape[-1])
