"""The official layouts of DeepMIM and MAE (papers' released code)."""

from __future__ import annotations

from collections.abc import Iterable

from . import Layout, State
from .key_rules import (
    CLASSIFIER_RULES,
    ENCODER_RULES,
    KeyRules,
    block_rules,
    has_key,
    heads_by_width,
    numbers,
)


def pretrain_rules(num_levels: int | None) -> KeyRules:
    """Rules of a pre-training checkpoint.

    Args:
        num_levels: Number of numbered decoders (``decoder_embed1`` and on, DeepMIM),
            or None for the one unnumbered decoder of facebookresearch/mae.
    """
    rules = [*ENCODER_RULES, ("decoder_pos_embed", "neck.decoder_pos_embed")]
    labels = [""] if num_levels is None else [str(k + 1) for k in range(num_levels)]
    for level, k in enumerate(labels):
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
    """The rules of an official state dict, inferred from its keys.

    Raises:
        KeyError: If the keys are of none of the known layouts.
    """
    keys = set(keys)
    if levels := numbers(keys, r"decoder_embed(\d+)\."):
        return pretrain_rules(max(levels))
    if "decoder_embed.weight" in keys:
        return pretrain_rules(None)
    if "patch_embed.proj.weight" in keys:
        return KeyRules(CLASSIFIER_RULES)
    raise KeyError(
        "not an official DeepMIM or MAE checkpoint: it has none of decoder_embed1, "
        "decoder_embed, patch_embed.proj"
    )


def num_decoders(native: Iterable[str]) -> int:
    """Decoders that our state dict holds."""
    return 1 + max(numbers(native, r"neck\.decoders\.(\d+)\."), default=-1)


def has_plain_decoders(native: State) -> bool:
    """Whether our state dict has decoders of MAE's on a plain Vision Transformer."""
    return num_decoders(native) > 0 and not has_key(
        native,
        r"neck\.(low_embed|decoders\.0\.latent_norm|fusion)\.",
        r"(extra_block|distillation)\.",
        r"backbone\.(stages\.|layers\.\d+\.proj\.)",
    )


# Official decoders have numbers if there are several levels, or if they are DeepMIM's.
LAYOUT = Layout(
    name="deepmim",
    title="DeepMIM's official layout",
    marks=(r"decoder_embed1\.",),
    unless=(r"decoder_embed0_1\.",),
    to_native=lambda state, options: rules_for(state).convert(state),
    num_heads=heads_by_width,
    writes=lambda native, recorded: (
        (num_decoders(native) > 1 or recorded.get("layout") == "deepmim")
        and has_plain_decoders(native)
    ),
    to_official=lambda native, *_: pretrain_rules(num_decoders(native)).convert(
        native, to="official"
    ),
)
