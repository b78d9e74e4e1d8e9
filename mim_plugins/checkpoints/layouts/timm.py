"""The layouts of timm, and of DeiT and Swin's own code, which it shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from . import Layout, Options, State, has_paddle_matrices, simmim
from .key_rules import CLASSIFIER_RULES, KeyRules, has_key
from .swin import COLUMN_BY_COLUMN, reorder_quads

T = TypeVar("T")

# Layer scale, which MAE's code does not have, and the norm before the blocks (CLIP's).
VIT_RULES = [
    *CLASSIFIER_RULES,
    ("norm_pre.{p}", "backbone.pre_norm.{p}"),
    ("blocks.{i}.ls1.gamma", "backbone.layers.{i}.attn.gamma1.weight"),
    ("blocks.{i}.ls2.gamma", "backbone.layers.{i}.ffn.gamma2.weight"),
]

# DeiT's distilled models, mmpretrain's `DistilledVisionTransformer` and `DeiTClsHead`.
_DISTILLED_RULES = [
    *(rule for rule in VIT_RULES if rule[0] != "head.{p}"),
    ("dist_token", "backbone.dist_token"),
    ("head.{p}", "head.layers.head.{p}"),
    ("head_dist.{p}", "head.layers.head_dist.{p}"),
]


def _to_native(state: State, options: Options) -> State:
    """Converts a state dict of timm's, DeiT's or Swin's own code to our keys."""
    if not has_key(state, r"layers\.\d+\.blocks\.\d+\."):
        rules = _DISTILLED_RULES if "dist_token" in state else VIT_RULES
        return KeyRules(rules).convert(state)
    # timm's present Swin merges at the start of a stage, all other code at the end of
    # the one before; and its head is a module with a layer in it.
    if has_key(state, r"layers\.1\.downsample\.") and not has_key(
        state, r"layers\.0\.downsample\."
    ):
        state = _move_merges(state, -1)
        state = {re.sub(r"^head\.fc\.", "head.", key): x for key, x in state.items()}
    return simmim.convert_official(state)


def convert_to_timm(state: Mapping[str, T]) -> dict[str, T]:
    """Converts our state dict, of encoder and classifier alone, to timm's keys.

    Position indices are left out: timm computes them.

    Raises:
        KeyError: If timm has no place for a key.
    """
    named = {
        re.sub(r"^head\.layers\.head\.", "head.fc.", key): value
        for key, value in state.items()
        if not key.endswith("relative_position_index")
    }
    if not has_key(named, r"backbone\.stages\."):
        return KeyRules(VIT_RULES).convert(named, to="official")
    ordered = reorder_quads(named, COLUMN_BY_COLUMN, to="official")
    official = simmim.rules_of_ours(named).convert(ordered, to="official")
    return {
        re.sub(r"^head\.", "head.fc.", key): value
        for key, value in _move_merges(official, 1).items()
    }


def _move_merges(state: Mapping[str, T], by: int) -> dict[str, T]:
    """Renames the mergings of a Swin Transformer to other stages."""
    return {
        re.sub(
            r"^layers\.(\d+)(?=\.downsample\.)",
            lambda match: f"layers.{int(match[1]) + by}",
            key,
        ): value
        for key, value in state.items()
    }


# What a plain encoder or classifier of ViT's or DeiT's does not have.
_OF_OTHERS = (
    r"neck\.(decoders|low_embed)",
    r"(extra_block|distillation|head\.norm_dist)\.",
    r"backbone\.(stages\.|rel_pos_bias\.|(template|search)_pos_embed)",
    r"backbone\.layers\.\d+\.(proj\.|gamma_|attn\.([qv]_bias|relative))",
)

LAYOUT = Layout(
    name="timm",
    title="timm's layout, that of MAE's encoder, DeiT and Swin",
    marks=(r"(layers\.\d+\.)?blocks\.\d+\.attn\.qkv\.",),
    unless=(
        r"(encoder\.|decoder_)?mask_token",
        r"decoder",
        r"blocks\.\d+\.(proj\.|attn\.([qv]_bias$|relative_position)|gamma_[12]$)",
        r"rel_pos_bias\.",
        r"pos_embed_[xz]$",
    ),
    condition=lambda state: not has_paddle_matrices(state),
    chosen_by=lambda keys: "neck.norm.weight" not in keys,
    to_native=_to_native,
    writes=lambda native, recorded: not has_key(native, *_OF_OTHERS),
    to_official=lambda native, *_: KeyRules(
        _DISTILLED_RULES if "backbone.dist_token" in native else VIT_RULES
    ).convert(native, to="official"),
)
