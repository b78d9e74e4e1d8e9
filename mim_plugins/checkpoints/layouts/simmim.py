"""The official layouts of SimMIM on Swin Transformers, as MAE-Lite has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from .hiera import channels_first, channels_last
from .key_rules import KeyRules
from .layout import Layout, has_key
from .swin import (
    ATTENTION_RULES,
    COLUMN_BY_COLUMN,
    STAGE_NORM_RULES,
    block_rules,
    encoder_rules,
    has_stage_norms,
    quads_to_official,
    quads_to_ours,
    shift_masks,
    without_shift_masks,
)

# Below this prefix in files of pre-training; classifiers and teachers have none.
ENCODER = "encoder."

# What only a masked encoder has, and what follows its decoder's blocks.
MASK_TOKEN, PREDICTION = "mask_token", "decoder_pred.0."


def is_swin(keys: Iterable[str]) -> bool:
    """Whether keys are a SimMIM's, its encoder's, or a Swin classifier's."""
    keys = set(keys)
    first = "layers.0.blocks.0.norm1.weight"
    return first in keys or {ENCODER + first, ENCODER + MASK_TOKEN} <= keys


def rules_for(state: Mapping[str, Any]) -> KeyRules:
    """The rules of an official state dict, inferred from its keys and the norm's width.

    Raises:
        KeyError: If the keys are of another model.
    """
    keys = set(state)
    if not is_swin(keys):
        raise KeyError(
            "not a SimMIM on a Swin Transformer: it has neither "
            f"{ENCODER}{MASK_TOKEN} (pre-training) nor layers.0.blocks (an encoder or "
            "a classifier)"
        )
    prefix = ENCODER if ENCODER + MASK_TOKEN in keys else ""
    stages = [
        int(match[1])
        for key in keys
        if (match := re.match(rf"{re.escape(prefix)}layers\.(\d+)\.", key))
    ]
    last = max(stages)
    extra = extra_block_of(keys, prefix, last)
    norm = _shape(state.get(f"{prefix}norm.weight"))
    deep = _shape(state.get(f"{prefix}layers.{last}.blocks.0.norm1.weight"))
    ends_early = extra is not None or norm != deep
    narrow = PREDICTION + "weight" in keys
    return KeyRules(_rules(prefix, last, extra, ends_early, narrow))


def rules_of_ours(keys: Iterable[str]) -> KeyRules:
    """The rules of our state dict, inferred from its keys, as :func:`rules_for`."""
    keys = set(keys)
    blocks = [
        (int(match[1]), int(match[2]))
        for key in keys
        if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", key))
    ]
    last, block = max(blocks, default=(0, 0))
    has_extra = any(key.startswith("extra_block.") for key in keys)
    pretraining = any(key.startswith("neck.") for key in keys)
    prefix = ENCODER if pretraining else ""
    extra = block + 1 if has_extra else None
    ends_early = "neck.norm.weight" in keys
    narrow = "neck.decoder_embed.weight" in keys
    rules = _rules(prefix, last, extra, ends_early, narrow)
    if has_stage_norms(keys):
        # The first rule that fits is taken: none of these norms is a classifier's.
        rules = [*STAGE_NORM_RULES, *rules]
    return KeyRules(rules)


def _rules(
    prefix: str, last: int, extra: int | None, ends_early: bool, narrow: bool
) -> list[tuple[str, str]]:
    """Rules of a model.

    Args:
        prefix: What precedes the encoder's official keys.
        last: Its last stage.
        extra: Index in it of D2-MAE's block of attention logits alone, if there is
            one.
        ends_early: Whether the decoder reads a stage before the last, whose norm is
            then its own.
        narrow: Whether the decoder has blocks of its own.
    """
    rules = []
    if extra is not None:
        official = f"{prefix}layers.{last}.blocks.{extra}."
        # The first rule that fits is taken.
        rules += block_rules(official, "extra_block.", ATTENTION_RULES)
    norm = "neck.norm" if ends_early else f"backbone.norm{last}"
    rules += [
        *encoder_rules(prefix),
        (prefix + MASK_TOKEN, "backbone.mask_token"),
        (prefix + "absolute_pos_embed", "backbone.absolute_pos_embed"),
        (prefix + "norm.{p}", norm + ".{p}"),
    ]
    if not prefix:
        return [*rules, *STAGE_NORM_RULES, ("head.{p}", "head.fc.{p}")]
    if not narrow:
        return [*rules, ("decoder.0.{p}", "neck.decoder_pred.{p}")]
    return [
        *rules,
        ("decoder.0.{p}", "neck.decoder_embed.{p}"),
        *block_rules("decoder.1.", "neck.decoder_blocks.0."),
        (PREDICTION + "{p}", "neck.decoder_pred.{p}"),
    ]


def extra_block_of(keys: Iterable[str], prefix: str, last: int) -> int | None:
    """Index in the last stage of the block that has no MLP, D2-MAE's."""
    keys = set(keys)
    start = f"{prefix}layers.{last}.blocks."
    for key in keys:
        match = re.fullmatch(rf"{re.escape(start)}(\d+)\.norm1\.weight", key)
        if match and f"{start}{match[1]}.mlp.fc1.weight" not in keys:
            return int(match[1])
    return None


def _shape(value: Any) -> list[int] | None:
    """The shape of a tensor, or a shape; None for anything else."""
    if isinstance(value, Tensor):
        return list(value.shape)
    return value if isinstance(value, list) else None


def convert_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an official SimMIM state dict to ours.

    Args:
        state: The official state dict: pre-training, an encoder alone, or a
            classifier. What is no tensor, such as a shape, is renamed alone.

    Raises:
        KeyError: If a key is not accounted for.
    """
    state = without_shift_masks(state)
    converted = rules_for(state).convert(state)
    return quads_to_ours(_reorder(converted, channels_last), COLUMN_BY_COLUMN)


def convert_to_official(
    state: Mapping[str, Any], img_size: int = 224, patch_size: int = 4
) -> dict[str, Any]:
    """Converts our state dict of a SimMIM or a classifier back.

    Args:
        state: All keys of the student or the classifier.
        img_size: Side in pixels of the images; official files hold the masks of
            shifted windows, which depend on it.
        patch_size: Side in pixels of a patch.

    Raises:
        KeyError: If a key is not accounted for.
    """
    state = {k: x for k, x in state.items() if not k.startswith("data_preprocessor.")}
    rules = rules_of_ours(state)
    ordered = quads_to_official(_reorder(state, channels_first), COLUMN_BY_COLUMN)
    official = rules.convert(ordered, to="official")
    if has_stage_norms(state):
        # For images of any size: the masks are computed from the image.
        return official
    prefix = ENCODER if any(key.startswith(ENCODER) for key in official) else ""
    return official | shift_masks(official, img_size // patch_size, prefix)


def _reorder(
    ours: Mapping[str, Any], order: Callable[[Tensor, int], Tensor]
) -> dict[str, Any]:
    """Reorders what has a row for each pixel, under our keys.

    The official order, PixelShuffle's, is channel, row, column.
    """
    result = dict(ours)
    for name in ("weight", "bias"):
        value = ours.get(key := f"neck.decoder_pred.{name}")
        if isinstance(value, Tensor):
            weight = ours["backbone.patch_embed.projection.weight"]
            result[key] = order(value, weight.shape[1])
    return result


def is_localmim(native: Iterable[str]) -> bool:
    """Whether our Swin Transformer has LocalMIM's decoders or pooled norm."""
    keys = list(native)
    return has_key(keys, [r"neck\.(decoders\.\d+\.latent_norm|norm)\."]) and (
        not has_key(keys, [r"neck\.decoder_"])
    )


LAYOUT = Layout(
    name="simmim",
    title="SimMIM's official layout",
    marks=(r"encoder\.mask_token$",),
    to_native=lambda state, options: convert_official(state),
    # A Swin Transformer that is not LocalMIM's.
    writes=lambda native, recorded: (
        has_key(native, [r"backbone\.stages\."])
        and not has_key(native, [r"(extra_block|distillation)\."])
        and not is_localmim(native)
    ),
    to_official=lambda native, _, img_size: dict(convert_to_official(native, img_size)),
)
