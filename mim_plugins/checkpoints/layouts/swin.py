"""What every official layout of a Swin Transformer shares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor

from .key_rules import Rules, block_rules, numbers

T = TypeVar("T")

# Where a merge weight has the four tokens of a quad (upper left, upper right, lower
# left, lower right), as blocks of C channels: row by row in the pre-training code of
# LocalMIM, column by column in Swin's own code and all that is made from it.
ROW_BY_ROW, COLUMN_BY_COLUMN = (0, 1, 2, 3), (0, 2, 1, 3)

_MERGE_WEIGHT = re.compile(r"downsample\.(norm\.(weight|bias)|reduction\.weight)$")

# What a block is made of, official and ours; D2-MAE's extra block has attention alone.
ATTENTION_RULES = [
    ("norm1.{p}", "norm1.{p}"),
    ("attn.qkv.{p}", "attn.w_msa.qkv.{p}"),
    ("attn.{r}", "attn.w_msa.{r}"),
]
BLOCK_RULES = [
    *ATTENTION_RULES,
    ("attn.proj.{p}", "attn.w_msa.proj.{p}"),
    ("norm2.{p}", "norm2.{p}"),
    ("mlp.fc1.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.fc2.{p}", "ffn.layers.1.{p}"),
]

# Behind every stage, before its merging, in backbones of detection and segmentation.
STAGE_NORM_RULES = [("norm{i}.{p}", "backbone.norm{i}.{p}")]


def has_stage_norms(keys: Iterable[str]) -> bool:
    """Whether several stages have a norm, official keys or ours."""
    return len(numbers(keys, r"(?:backbone\.)?norm(\d+)\.weight$")) > 1


def encoder_rules(prefix: str) -> Rules:
    """Rules of the encoder, whose official keys start with ``prefix``."""
    official, ours = prefix + "layers.{i}.", "backbone.stages.{i}."
    return [
        (prefix + "patch_embed.proj.{p}", "backbone.patch_embed.projection.{p}"),
        (prefix + "patch_embed.norm.{p}", "backbone.patch_embed.norm.{p}"),
        *block_rules(f"{official}blocks.{{j}}.", f"{ours}blocks.{{j}}.", BLOCK_RULES),
        (official + "downsample.norm.{p}", ours + "downsample.norm.{p}"),
        (official + "downsample.reduction.{p}", ours + "downsample.reduction.{p}"),
    ]


def reorder_quads(
    state: Mapping[str, T], order: Sequence[int], to: str = "ours"
) -> dict[str, T]:
    """Reorders merge weights: official ones have blocks of channels, ours interleave.

    Args:
        state: Tensors by key, official or ours; what is no tensor stays as it is.
        order: Where each token of a quad is among the official blocks; both orders are
            their own inverse.
        to: ``'ours'`` or ``'official'``.
    """
    result = dict(state)
    for key, weight in state.items():
        if not _MERGE_WEIGHT.search(key) or not isinstance(weight, Tensor):
            continue
        if to == "ours":
            blocks = weight.unflatten(-1, (4, -1))[..., list(order), :]
            result[key] = blocks.transpose(-1, -2).flatten(-2)
        else:
            blocks = weight.unflatten(-1, (-1, 4)).transpose(-1, -2)
            result[key] = blocks[..., list(order), :].flatten(-2)
    return result


def shift_masks(
    state: Mapping[str, Tensor], map_size: int, prefix: str = ""
) -> dict[str, Tensor]:
    """The masks of shifted windows, which official files hold next to the weights.

    Their position indices show the windows; the first stage's map has ``map_size``
    tokens per side.
    """
    masks = {}
    for key, index in state.items():
        name = key.removeprefix(prefix)
        match = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.attn\..*_index", name)
        if not match or int(match[2]) % 2 == 0:
            continue
        window, side = round(len(index) ** 0.5), map_size >> int(match[1])
        if side > window:
            masks[f"{prefix}layers.{match[1]}.blocks.{match[2]}.attn_mask"] = (
                ShiftWindowMSA.get_attn_mask((side, side), window, window // 2)
            )
    return masks
