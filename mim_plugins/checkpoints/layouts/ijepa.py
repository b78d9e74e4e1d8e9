"""The layout of I-JEPA (facebookresearch/ijepa)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .key_rules import KeyRules
from .layout import Layout, Options, State
from .vit import ENCODER_RULES

# As in MAE, but for the class token, which it has not.
RULES = KeyRules(rule for rule in ENCODER_RULES if rule[0] != "cls_token")

# Attention heads by width.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}


class IJEPA(Layout):
    """I-JEPA's encoders, as mmpretrain's ``VisionTransformer(with_cls_token=False)``.

    A training file holds the encoder, its moving average (the target encoder, which
    is evaluated) and the predictor; the target encoder is taken.

    References:
        - Self-Supervised Learning from Images with a Joint-Embedding Predictive
          Architecture, 2023, https://arxiv.org/abs/2301.08243
    """

    name = "ijepa"
    title = "I-JEPA's official layout"
    wrappers = ("target_encoder",)

    def to_native(self, state: State, options: Options) -> State:
        """Renames every key."""
        return RULES.convert(state)

    def num_heads(self, state: Mapping[str, Tensor]) -> int | None:
        """Attention heads, by the width."""
        return _HEADS.get(state["pos_embed"].shape[-1])

    def writes(self, native: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
        """Whether it was converted from a file of I-JEPA's."""
        return metadata.get("layout") == self.name

    def to_official(
        self, native: State, metadata: Mapping[str, Any], img_size: int
    ) -> State:
        """Renames every key back."""
        return RULES.convert(native, to="official")


LAYOUT = IJEPA()
