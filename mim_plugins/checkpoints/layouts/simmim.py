"""The official layouts of SimMIM on Swin Transformers, as MAE-Lite has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import Layout, drop, swin
from .hiera import PREDICTION, channels_first, channels_last, reorder_pixels
from .key_rules import KeyRules, Rules, block_rules, has_key, numbers

# Below this prefix in files of pre-training; classifiers and teachers have none.
_ENCODER = "encoder."

# What only a masked encoder has.
_MASK_TOKEN = "mask_token"


def is_swin(keys: Iterable[str]) -> bool:
    """Whether keys are a SimMIM's, its encoder's, or a Swin classifier's."""
    keys = set(keys)
    first = "layers.0.blocks.0.norm1.weight"
    return first in keys or {_ENCODER + first, _ENCODER + _MASK_TOKEN} <= keys


def convert_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an official state dict, of pre-training or a classifier, to ours.

    Args:
        state: By official keys; what is no tensor, such as a shape, is renamed alone.

    Raises:
        KeyError: If a key is not accounted for.
    """
    kept, _ = drop(state, ())
    converted = reorder_pixels(_rules_for(kept).convert(kept), channels_last)
    return swin.reorder_quads(converted, swin.COLUMN_BY_COLUMN)


def convert_to_official(
    state: Mapping[str, Any], img_size: int = 224
) -> dict[str, Any]:
    """Converts our state dict of a SimMIM or a classifier back.

    Args:
        state: All keys of the student or the classifier.
        img_size: Side in pixels of the images; official files hold the masks of
            shifted windows, which depend on it.

    Raises:
        KeyError: If a key is not accounted for.
    """
    state = {k: x for k, x in state.items() if not k.startswith("data_preprocessor.")}
    ordered = reorder_pixels(state, channels_first)
    ordered = swin.reorder_quads(ordered, swin.COLUMN_BY_COLUMN, to="official")
    official = rules_of_ours(state).convert(ordered, to="official")
    if swin.has_stage_norms(state):
        # For images of any size: the masks are computed from the image.
        return official
    prefix = _ENCODER if has_key(official, re.escape(_ENCODER)) else ""
    return official | swin.shift_masks(official, img_size // 4, prefix)


def extra_block_of(keys: Iterable[str], prefix: str = "") -> int | None:
    """The index of D2-MAE's block of attention logits alone, which has no MLP."""
    keys = set(keys)
    start = f"{prefix}blocks."
    for number in numbers(keys, rf"{re.escape(start)}(\d+)\.norm1\.weight$"):
        if f"{start}{number}.mlp.fc1.weight" not in keys:
            return number
    return None


def rules_of_ours(keys: Iterable[str]) -> KeyRules:
    """The rules of our state dict, inferred from its keys."""
    keys = set(keys)
    last = max(numbers(keys, r"backbone\.stages\.(\d+)\."), default=0)
    blocks = numbers(keys, rf"backbone\.stages\.{last}\.blocks\.(\d+)\.")
    rules = _rules(
        prefix=_ENCODER if has_key(keys, r"neck\.") else "",
        last=last,
        extra=max(blocks, default=0) + 1 if has_key(keys, r"extra_block\.") else None,
        ends_early="neck.norm.weight" in keys,
        narrow="neck.decoder_embed.weight" in keys,
    )
    # None of several stages' norms is a classifier's.
    return KeyRules(
        [*swin.STAGE_NORM_RULES, *rules] if swin.has_stage_norms(keys) else rules
    )


def _rules_for(state: Mapping[str, Any]) -> KeyRules:
    """The rules of an official state dict, from its keys and the norm's width."""
    if not is_swin(state):
        raise KeyError(
            "not a SimMIM on a Swin Transformer: it has neither "
            f"{_ENCODER}{_MASK_TOKEN} (pre-training) nor layers.0.blocks (an encoder "
            "or a classifier)"
        )
    prefix = _ENCODER if _ENCODER + _MASK_TOKEN in state else ""
    last = max(numbers(state, rf"{re.escape(prefix)}layers\.(\d+)\."))
    stage = f"{prefix}layers.{last}."
    extra = extra_block_of(state, stage)
    norms = (f"{prefix}norm.weight", f"{stage}blocks.0.norm1.weight")
    final, deep = (getattr(state.get(k), "shape", state.get(k)) for k in norms)
    ends_early = extra is not None or final != deep
    narrow = f"{PREDICTION}0.weight" in state
    return KeyRules(_rules(prefix, last, extra, ends_early, narrow))


def _rules(
    prefix: str, last: int, extra: int | None, ends_early: bool, narrow: bool
) -> Rules:
    """Rules of a model, whose decoder may end early or have blocks of its own.

    It ends early if it reads a stage before the last, whose norm is then its own.
    """
    rules: Rules = []
    if extra is not None:
        official = f"{prefix}layers.{last}.blocks.{extra}."
        rules += block_rules(official, "extra_block.", swin.ATTENTION_RULES)
    norm = "neck.norm" if ends_early else f"backbone.norm{last}"
    rules += [
        *swin.encoder_rules(prefix),
        (prefix + _MASK_TOKEN, "backbone.mask_token"),
        (prefix + "absolute_pos_embed", "backbone.absolute_pos_embed"),
        (prefix + "norm.{p}", norm + ".{p}"),
    ]
    if not prefix:
        return [*rules, *swin.STAGE_NORM_RULES, ("head.{p}", "head.fc.{p}")]
    if not narrow:
        return [*rules, ("decoder.0.{p}", "neck.decoder_pred.{p}")]
    return [
        *rules,
        ("decoder.0.{p}", "neck.decoder_embed.{p}"),
        *block_rules("decoder.1.", "neck.decoder_blocks.0.", swin.BLOCK_RULES),
        (PREDICTION + "0.{p}", "neck.decoder_pred.{p}"),
    ]


def is_localmim(native: Iterable[str]) -> bool:
    """Whether our Swin Transformer has LocalMIM's decoders or pooled norm."""
    keys = list(native)
    return has_key(keys, r"neck\.(decoders\.\d+\.latent_norm|norm)\.") and (
        not has_key(keys, r"neck\.decoder_")
    )


LAYOUT = Layout(
    name="simmim",
    title="SimMIM's official layout",
    marks=(r"encoder\.mask_token$",),
    to_native=lambda state, options: convert_official(state),
    # A Swin Transformer that is not LocalMIM's.
    writes=lambda native, recorded: (
        has_key(native, r"backbone\.stages\.")
        and not has_key(native, r"(extra_block|distillation)\.")
        and not is_localmim(native)
    ),
    to_official=lambda native, _, img_size: convert_to_official(native, img_size),
)
