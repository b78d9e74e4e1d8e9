"""The layouts of BEiT-style Vision Transformers, with relative positions."""

from __future__ import annotations

from collections.abc import Iterable

from . import Layout
from .key_rules import CLASSIFIER_RULES, RELATIVE_POSITION_RULES, KeyRules, has_key
from .mae_lite import num_heads_of

# The deconvolutions in the backbones of DeepMIM's and LocalMIM's segmentation code are
# mmseg's `Feature2Pyramid` here; the second layer of the first is a batch norm.
_BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")
_PYRAMID_RULES = [
    ("fpn1.{i}.{p}", "neck.upsample_4x.{i}.{p}"),
    *((f"fpn1.{{i}}.{name}", f"neck.upsample_4x.{{i}}.{name}") for name in _BATCH_NORM),
    ("fpn2.{i}.{p}", "neck.upsample_2x.{i}.{p}"),
]

RULES = KeyRules([*CLASSIFIER_RULES, *RELATIVE_POSITION_RULES, *_PYRAMID_RULES])


def is_beit(keys: Iterable[str]) -> bool:
    """Whether keys are a BEiT-style model's, official or ours."""
    mark = r"(blocks|backbone\.layers)\.\d+\.(attn\.([qv]_bias|relative)|gamma_[12])"
    return has_key(keys, mark, r"(backbone\.)?rel_pos_bias\.")


# A classifier, an encoder alone, or a backbone of DeepMIM's or LocalMIM's segmentation
# code, as `RelPosVisionTransformer`.
LAYOUT = Layout(
    name="beit",
    title="the layout of BEiT-style models with relative positions",
    marks=(
        r"blocks\.\d+\.(attn\.([qv]_bias$|relative_position)|gamma_[12]$)",
        r"rel_pos_bias\.",
    ),
    dropped=((r"mask_token|lm_head\.(weight|bias)", "predicts visual tokens"),),
    to_native=lambda state, options: RULES.convert(state),
    num_heads=num_heads_of,
    writes=lambda native, recorded: is_beit(native),
    to_official=lambda native, *_: RULES.convert(native, to="official"),
)
