"""The layouts of BEiT-style Vision Transformers, with relative positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .mae_lite import RELATIVE_POSITION_RULES
from .rules import KeyRules
from .vit import CLASSIFIER_RULES

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

# What BEiT's pre-training predicts visual tokens with.
PREDICTION = re.compile(r"(mask_token|lm_head\.(weight|bias))")


def is_beit(keys: Iterable[str]) -> bool:
    """Whether keys are a BEiT-style model's, official or ours."""
    mark = r"(blocks|backbone\.layers)\.\d+\.(attn\.([qv]_bias|relative)|gamma_[12])"
    return any(re.match(rf"{mark}|(backbone\.)?rel_pos_bias\.", key) for key in keys)


def convert_official(state: Mapping[str, T]) -> dict[str, T]:
    """Renames a BEiT-style state dict to the keys of ``RelPosVisionTransformer``.

    Args:
        state: The official state dict: a classifier, an encoder alone, or a backbone
            of DeepMIM's or LocalMIM's segmentation code.

    Raises:
        KeyError: If a key is not accounted for.
    """
    return RULES.convert(state)
