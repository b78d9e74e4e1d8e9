"""The layouts of BEiT-style Vision Transformers, with relative positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from .key_rules import KeyRules
from .layout import Layout, Options, State
from .mae_lite import num_heads_of
from .vit import CLASSIFIER_RULES, RELATIVE_POSITION_RULES

T = TypeVar("T")

# The deconvolutions in the backbones of DeepMIM's and LocalMIM's segmentation code are
# mmseg's `Feature2Pyramid` here; the second layer of the first is a batch norm.
_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")
PYRAMID_RULES = [
    ("fpn1.{i}.{p}", "neck.upsample_4x.{i}.{p}"),
    *((f"fpn1.{{i}}.{name}", f"neck.upsample_4x.{{i}}.{name}") for name in _BATCH_NORM),
    ("fpn2.{i}.{p}", "neck.upsample_2x.{i}.{p}"),
]

RULES = KeyRules([*CLASSIFIER_RULES, *RELATIVE_POSITION_RULES, *PYRAMID_RULES])


def is_beit(keys: Iterable[str]) -> bool:
    """Whether keys are a BEiT-style model's, official or ours."""
    mark = r"(blocks|backbone\.layers)\.\d+\.(attn\.([qv]_bias|relative)|gamma_[12])"
    return any(re.match(rf"{mark}|(backbone\.)?rel_pos_bias\.", key) for key in keys)


class BEiT(Layout):
    """Renames a BEiT-style state dict to the keys of ``RelPosVisionTransformer``.

    A classifier, an encoder alone, or a backbone of DeepMIM's or LocalMIM's
    segmentation code.
    """

    name = "beit"
    title = "the layout of BEiT-style models with relative positions"
    marks = (
        r"blocks\.\d+\.(attn\.([qv]_bias$|relative_position)|gamma_[12]$)",
        r"rel_pos_bias\.",
    )
    dropped = (
        (
            r"mask_token|lm_head\.(weight|bias)",
            "predicts visual tokens",
        ),
    )

    def to_native(self, state: State, options: Options) -> State:
        """Renames every key."""
        return RULES.convert(state)

    def num_heads(self, state: Mapping[str, Tensor]) -> int | None:
        """Attention heads, which the tables of relative positions show."""
        return num_heads_of(state)

    def writes(self, native: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
        """Whether it has relative positions or layer scale of BEiT's."""
        return is_beit(native)

    def to_official(
        self, native: State, metadata: Mapping[str, Any], img_size: int
    ) -> State:
        """Renames every key back."""
        return RULES.convert(native, to="official")


LAYOUT = BEiT()
