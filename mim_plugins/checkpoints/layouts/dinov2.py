"""The layout of DINOv2 (facebookresearch/dinov2), without registers.

DINOv2: Learning Robust Visual Features without Supervision, 2023,
https://arxiv.org/abs/2304.07193
"""

from __future__ import annotations

from . import Layout, Options, State
from .key_rules import KeyRules
from .timm import VIT_RULES

# The gated MLPs of its giant model are mmpretrain's `SwiGLUFFNFused`.
RULES = KeyRules(
    [
        *VIT_RULES,
        ("blocks.{i}.mlp.w12.{p}", "backbone.layers.{i}.ffn.w12.{p}"),
        ("blocks.{i}.mlp.w3.{p}", "backbone.layers.{i}.ffn.w3.{p}"),
    ]
)


def _to_native(state: State, options: Options) -> State:
    """Renames every key, unless the model has registers."""
    if "register_tokens" in state:
        raise KeyError(
            "it has register_tokens, for which mmpretrain's Vision Transformer has no "
            "place; without them its features would be others. Take the file without "
            "registers"
        )
    return RULES.convert(state)


# Backbones with layer scale; all released ones have heads of 64 channels.
LAYOUT = Layout(
    name="dinov2",
    title="DINOv2's official layout",
    marks=(r"mask_token$",),
    unless=(r"decoder", r"rel_pos_bias", r"blocks\.\d+\.(gamma_|attn\.relative_pos)"),
    condition=lambda state: "blocks.0.ls1.gamma" in state,
    dropped=(("mask_token", "masks patches in pre-training"),),
    to_native=_to_native,
    num_heads=lambda state: state["cls_token"].shape[-1] // 64 or None,
    writes=lambda native, recorded: recorded.get("layout") == "dinov2",
    to_official=lambda native, *_: RULES.convert(native, to="official"),
)
