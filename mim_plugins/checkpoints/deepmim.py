"""The official layouts of DeepMIM and MAE (papers' released code)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .rules import KeyRules
from .vit import CLASSIFIER_RULES, ENCODER_RULES, block_rules

T = TypeVar("T")


def pretrain_rules(num_levels: int | None) -> KeyRules:
    """Rules of a pre-training checkpoint.

    Args:
        num_levels: Number of numbered decoders (``decoder_embed1`` and on, DeepMIM),
            or None for the one unnumbered decoder of facebookresearch/mae.
    """
    rules = [*ENCODER_RULES, ("decoder_pos_embed", "neck.decoder_pos_embed")]
    numbers = [""] if num_levels is None else [str(k + 1) for k in range(num_levels)]
    for level, k in enumerate(numbers):
        ours = f"neck.decoders.{level}."
        rules += [
            (f"decoder_embed{k}.{{p}}", ours + "decoder_embed.{p}"),
            (f"mask_token{k}", ours + "mask_token"),
            *block_rules(f"decoder_blocks{k}.{{j}}.", ours + "decoder_blocks.{j}."),
            (f"decoder_norm{k}.{{p}}", ours + "ln1.{p}"),
            (f"decoder_pred{k}.{{p}}", ours + "decoder_pred.{p}"),
        ]
    return KeyRules(rules)


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of an official state dict, told by its keys.

    Raises:
        KeyError: If the keys are of none of the known layouts.
    """
    keys = set(keys)
    levels = {int(m[1]) for k in keys if (m := re.match(r"decoder_embed(\d+)\.", k))}
    if levels:
        return pretrain_rules(max(levels))
    if "decoder_embed.weight" in keys:
        return pretrain_rules(None)
    if "patch_embed.proj.weight" in keys:
        return KeyRules(CLASSIFIER_RULES)
    raise KeyError(
        "not an official DeepMIM or MAE checkpoint: it has none of decoder_embed1, "
        "decoder_embed, patch_embed.proj"
    )


def convert_official(state: Mapping[str, T]) -> dict[str, T]:
    """Renames an official DeepMIM or MAE state dict to our keys.

    Args:
        state: The official state dict: pre-training (with decoders), encoder only,
            or a fine-tuned classifier.

    Raises:
        KeyError: If a key is not accounted for.
    """
    return rules_for(state).convert(state)
