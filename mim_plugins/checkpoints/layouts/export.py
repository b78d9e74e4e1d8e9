"""From our checkpoints to timm's models."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..metadata import ImageStatistics
from ..report import Report
from . import State, beit, hiera
from .key_rules import KeyRules, has_key, listed
from .timm import convert_to_timm
from .timm_call import create_model_call

# What a plain encoder with a classifier has; all else is of pre-training.
_ENCODER = re.compile(
    r"backbone\.(?!mask_token)|head\.(fc|layers\.head)\.(weight|bias)$|neck\.norm\."
)


def to_timm(
    state: Mapping[str, Tensor],
    num_heads: int | None = None,
    *,
    img_size: tuple[int, int] | None = None,
    statistics: ImageStatistics = ImageStatistics(),  # noqa: B008  (immutable)
    source: str = "checkpoint",
) -> tuple[State, Report]:
    """Converts our state dict to the keys of timm's model of the same architecture.

    What belongs to pre-training alone is left out. The report has the call that builds
    the model and loads the weights; ``timm.create_model`` wants every key to fit.

    Args:
        state: Of pre-training, of an encoder, or of a classifier.
        num_heads: Attention heads, for the call.
        img_size: Height and width in pixels, likewise.
        statistics: Mean and deviation of images, likewise.
        source: Where it is from, for messages.

    Returns:
        The tensors and the account.

    Raises:
        ValueError: If timm's model has no place for a tensor, or needs one that is
            missing.
    """
    report = Report(source, "mmpretrain's layout to timm's", len(state))
    kept = plain_encoder(state, report)
    try:
        if has_key(kept, r"backbone\.layers\.\d+\.proj\."):
            converted = _hiera_to_timm(kept, state, report)
        elif beit.is_beit(kept):
            converted = _beit_to_timm(kept, report)
        else:
            _check_norms(kept, source)
            converted = convert_to_timm(kept)
    except KeyError as error:
        raise ValueError(
            f"{source}: timm's model has no place for a tensor: {error.args[0]}"
        ) from error
    computed = (key for key in kept if key.endswith("relative_position_index"))
    report.dropped |= dict.fromkeys(computed, "timm computes it")
    report.converted = list(converted)
    call = create_model_call(converted, num_heads, img_size, statistics)
    report.notes.append(f"load it with {call}")
    if "num_heads=" not in call:
        report.notes.append(
            "the number of attention heads is not recorded: check num_heads of timm's "
            "model, or give --num-heads"
        )
    if "img_size=" not in call:
        report.notes.append("add img_size= if its images are not of 224 pixels")
    if not statistics.recorded:
        report.notes.append("mean and std are ImageNet's: none are recorded")
    return converted, report


def plain_encoder(state: Mapping[str, Tensor], report: Report) -> State:
    """Leaves out what is of pre-training, with an account of it."""
    kept = {key: x for key, x in state.items() if _ENCODER.match(key)}
    report.dropped |= {
        k: "of pre-training or training alone" for k in state if k not in kept
    }
    if not any(key.startswith("backbone.") for key in kept):
        raise ValueError(
            f"{report.source} has no encoder: no key starts with 'backbone.', it has "
            f"{listed(state, 6)}; convert an official file to ours first (--to "
            "mmpretrain)"
        )
    return kept


def _check_norms(kept: Mapping[str, Tensor], source: str) -> None:
    """Refuses what timm computes in another order."""
    if "neck.norm.weight" in kept:
        raise ValueError(
            f"{source} norms after pooling (LocalMIM's fine-tuning), timm's Swin "
            "Transformer before it: its logits would be others. Export to the official "
            "layout, or the pre-trained encoder"
        )
    if {"backbone.ln1.weight", "backbone.ln2.weight"} <= kept.keys():
        raise ValueError(
            f"{source} norms its tokens (ln1) and their mean again (ln2); timm's model "
            "has one of the two. Build the model with final_norm=False, or with "
            "another out_type"
        )
    if has_key(kept, r"backbone\.stages\.") and not has_key(
        kept, r"backbone\.norm\d\."
    ):
        raise ValueError(
            f"{source} is a Swin Transformer without a norm after its last stage, "
            "which timm's has"
        )


def _hiera_to_timm(kept: State, state: Mapping[str, Tensor], report: Report) -> State:
    """Timm's Hiera: its head holds the norm, that of pre-training if there is none."""
    fused = {
        key.replace("neck.fusion_norm.", "backbone.ln2."): value
        for key, value in state.items()
        if key.startswith("neck.fusion_norm.")
    }
    if fused and "backbone.ln2.weight" not in kept:
        kept = kept | fused
        for name in ("weight", "bias"):
            report.dropped.pop(f"neck.fusion_norm.{name}", None)
        report.notes.append(
            "the norm after the fusion of the stages became timm's head.norm, as "
            "timm's own conversion does; forward_features does not use it"
        )
    return KeyRules(hiera.TIMM_RULES).convert(kept, to="official")


def _beit_to_timm(kept: State, report: Report) -> State:
    """Timm's BEiT, whose keys have no bias: it changes no attention."""
    converted: State = {}
    for key, value in beit.RULES.convert(kept, to="official").items():
        if key.endswith("attn.qkv.bias"):
            start = key.removesuffix("qkv.bias")
            query, _, of_value = value.chunk(3)
            converted |= {f"{start}q_bias": query, f"{start}v_bias": of_value}
            report.notes[:] = [
                "the biases of keys are left out: they change no attention"
            ]
        elif not key.endswith("relative_position_index"):
            converted[key] = value
    return converted
