"""The layouts of Hiera: Meta's code, MAE-Lite's, which is made from it, and timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from . import Layout
from .key_rules import KeyRules, block_rules, has_key

ENCODER_RULES = [
    ("pos_embed", "backbone.pos_embed"),
    ("patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
    *block_rules("blocks.{i}.", "backbone.layers.{i}."),
    # Where the width changes.
    ("blocks.{i}.proj.{p}", "backbone.layers.{i}.proj.{p}"),
]

# A classifier pools before its norm.
_CLASSIFIER_RULES = [
    *ENCODER_RULES,
    ("norm.{p}", "backbone.ln2.{p}"),
    ("head.projection.{p}", "head.fc.{p}"),
]

# timm's classifier, or its encoder, with the norm in the head.
TIMM_RULES = [
    *ENCODER_RULES,
    ("head.norm.{p}", "backbone.ln2.{p}"),
    ("head.fc.{p}", "head.fc.{p}"),
]

_PRETRAIN_RULES = [
    *ENCODER_RULES,
    ("multi_scale_fusion_heads.{i}.{p}", "neck.fusion.{i}.{p}"),
    ("encoder_norm.{p}", "neck.fusion_norm.{p}"),
    ("decoder_embed.{p}", "neck.decoders.0.decoder_embed.{p}"),
    ("mask_token", "neck.decoders.0.mask_token"),
    ("decoder_pos_embed", "neck.decoders.0.pos_embed"),
    *block_rules("decoder_blocks.{j}.", "neck.decoders.0.decoder_blocks.{j}."),
    ("decoder_norm.{p}", "neck.decoders.0.ln1.{p}"),
    ("decoder_pred.{p}", "neck.decoders.0.decoder_pred.{p}"),
]

# Attention heads of the first stage by its width; they double with each stage.
HEADS = {46: 1, 96: 1, 112: 2, 144: 2, 256: 4}

# Of these the rows are the pixels of a patch, in official keys and in ours.
PREDICTION = "decoder_pred."


def is_hiera(keys: Iterable[str]) -> bool:
    """Whether keys are an official Hiera's, whose blocks alone have projections."""
    return has_key(keys, r"blocks\.\d+\.proj\.weight$")


def convert_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an official state dict, of pre-training or a classifier, to ours.

    Args:
        state: By official keys; what is no tensor, such as a shape, is renamed alone.

    Raises:
        KeyError: If a key is not accounted for.
    """
    if not is_hiera(state):
        raise KeyError(
            "not an official Hiera checkpoint: no block has a projection "
            "(blocks.*.proj.weight)"
        )
    rules = _CLASSIFIER_RULES
    if "head.norm.weight" in state:
        rules = TIMM_RULES
    elif "multi_scale_fusion_heads.0.weight" in state:
        rules = _PRETRAIN_RULES
    return reorder_pixels(KeyRules(rules).convert(state), channels_last)


def convert_to_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts our state dict of a Hiera, in pre-training or classifying, back.

    Raises:
        KeyError: If a key is not accounted for.
    """
    fuses = "neck.fusion.0.weight" in state
    rules = KeyRules(_PRETRAIN_RULES if fuses else _CLASSIFIER_RULES)
    return rules.convert(reorder_pixels(state, channels_first), to="official")


def channels_last(pixels: Tensor, channels: int) -> Tensor:
    """Pixels of a patch (C * p * p, ...), from the official order to ours.

    The official order is channel, row, column, ours row, column, channel, as in MAE.
    """
    return pixels.unflatten(0, (channels, -1)).transpose(0, 1).flatten(0, 1)


def channels_first(pixels: Tensor, channels: int) -> Tensor:
    """Inverse of :func:`channels_last`."""
    return pixels.unflatten(0, (-1, channels)).transpose(0, 1).flatten(0, 1)


def reorder_pixels(
    ours: Mapping[str, Any], order: Callable[[Tensor, int], Tensor]
) -> dict[str, Any]:
    """Reorders what has a row for each pixel, under our keys."""
    result = dict(ours)
    for key, value in ours.items():
        if PREDICTION in key and isinstance(value, Tensor):
            weight = ours["backbone.patch_embed.projection.weight"]
            result[key] = order(value, weight.shape[1])
    return result


# Meta's Hiera and MAE-Lite's; timm's classifiers are recognised, too.
LAYOUT = Layout(
    name="hiera",
    title="Hiera's official layout",
    marks=(r"blocks\.\d+\.proj\.",),
    to_native=lambda state, options: convert_official(state),
    num_heads=lambda state: HEADS.get(state["patch_embed.proj.weight"].shape[0]),
    writes=lambda native, recorded: (
        has_key(native, r"backbone\.layers\.\d+\.proj\.")
        and not has_key(native, r"(extra_block|distillation)\.")
    ),
    to_official=lambda native, *_: convert_to_official(native),
)
