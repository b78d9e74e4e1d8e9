"""The layout of facebookresearch/mae in pre-training; its encoders are timm's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .deepmim import convert_official, has_plain_decoders, num_decoders, pretrain_rules
from .layout import Layout, Options, State
from .mae_lite import num_heads_of


class MAE(Layout):
    """MAE's pre-training, with one decoder without a number."""

    name = "mae"
    title = "the layout of facebookresearch/mae"
    marks = (r"decoder_embed\.",)
    unless = (r"blocks\.\d+\.proj\.",)

    def to_native(self, state: State, options: Options) -> State:
        """Renames every key."""
        return convert_official(state)

    def num_heads(self, state: Mapping[str, Tensor]) -> int | None:
        """Attention heads of MAE's Vision Transformers, by their width."""
        return num_heads_of(state)

    def writes(self, native: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
        """Whether it has one plain decoder."""
        return num_decoders(native) == 1 and has_plain_decoders(native)

    def to_official(
        self, native: State, metadata: Mapping[str, Any], img_size: int
    ) -> State:
        """Renames every key back."""
        return pretrain_rules(None).convert(native, to="official")


LAYOUT = MAE()
