"""The layout of DINOv2 (facebookresearch/dinov2), without registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .key_rules import KeyRules
from .layout import Layout, Options, State
from .timm import VIT_RULES

# The gated MLPs of its giant model are mmpretrain's `SwiGLUFFNFused`.
RULES = KeyRules(
    [
        *VIT_RULES,
        ("blocks.{i}.mlp.w12.{p}", "backbone.layers.{i}.ffn.w12.{p}"),
        ("blocks.{i}.mlp.w3.{p}", "backbone.layers.{i}.ffn.w3.{p}"),
    ]
)


class DINOv2(Layout):
    """DINOv2's backbones, as mmpretrain's ``VisionTransformer`` with layer scale.

    References:
        - DINOv2: Learning Robust Visual Features without Supervision, 2023,
          https://arxiv.org/abs/2304.07193
    """

    name = "dinov2"
    title = "DINOv2's official layout"
    marks = (r"mask_token$",)
    unless = (r"decoder", r"rel_pos_bias", r"blocks\.\d+\.(gamma_|attn\.relative_pos)")
    dropped = (("mask_token", "masks patches in pre-training"),)

    def detects(self, state: Mapping[str, Any]) -> bool:
        """Whether it has a mask token and blocks with layer scale."""
        return super().detects(state) and "blocks.0.ls1.gamma" in state

    def to_native(self, state: State, options: Options) -> State:
        """Renames every key.

        Raises:
            KeyError: If a key is not accounted for, or the model has registers, which
                mmpretrain's Vision Transformer lacks.
        """
        if "register_tokens" in state:
            raise KeyError(
                "it has register_tokens, for which mmpretrain's Vision Transformer has "
                "no place; without them its features would be others. Take the file "
                "without registers"
            )
        return RULES.convert(state)

    def num_heads(self, state: Mapping[str, Tensor]) -> int | None:
        """Attention heads: of 64 channels in all released models."""
        return state["cls_token"].shape[-1] // 64

    def writes(self, native: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
        """Whether it was converted from a file of DINOv2's."""
        return metadata.get("layout") == self.name

    def to_official(
        self, native: State, metadata: Mapping[str, Any], img_size: int
    ) -> State:
        """Renames every key back; the mask token is not in it."""
        return RULES.convert(native, to="official")


LAYOUT = DINOv2()
