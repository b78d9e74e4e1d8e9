"""Rules shared by every layout that has timm's Vision Transformer in it."""

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
