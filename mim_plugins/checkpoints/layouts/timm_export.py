"""From our checkpoints to timm's models."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..report import Report
from . import beit, hiera
from .key_rules import listed
from .layout import State
from .timm import convert_to_timm

# What a plain encoder with a classifier has; all else is of pre-training.
_ENCODER = re.compile(
    r"backbone\.(?!mask_token)|head\.(fc|layers\.head)\.(weight|bias)$|neck\.norm\."
)


def to_timm(
    state: Mapping[str, Tensor], *, source: str = "checkpoint"
) -> tuple[State, Report]:
    """Converts our state dict to the keys of timm's model of the same architecture.

    What belongs to pre-training alone is left out. The report says how to build the
    model; ``timm.create_model(..., checkpoint_path=FILE)`` wants every key to fit.

    Args:
        state: Of a ViT, a ViT with relative positions, a Swin Transformer or a Hiera.
        source: Where it is from, for messages.

    Raises:
        ValueError: If timm's model has no place for a tensor, or needs one that is
            missing.
    """
    report = Report(source, "mmpretrain's layout to timm's", len(state))
    kept = plain_encoder(state, report)
    try:
        if any(re.match(r"backbone\.layers\.\d+\.proj\.", key) for key in kept):
            converted = _hiera_to_timm(kept, state, report)
        elif beit.is_beit(kept):
            converted = _beit_to_timm(kept, report)
        else:
            _check_norms(kept, source)
            converted = convert_to_timm(kept)
            _note_indices(kept, report)
    except KeyError as error:
        raise ValueError(
            f"{source}: timm's model has no place for a tensor: {error.args[0]}"
        ) from error
    report.converted = list(converted)
    report.notes.append(f"load it with {_create_model(converted)}")
    return converted, report


def plain_encoder(state: Mapping[str, Tensor], report: Report) -> State:
    """Leaves out what is of pre-training, with an account of it.

    Raises:
        ValueError: If there is no encoder in it.
    """
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
    """Refuses what timm computes in another order.

    Raises:
        ValueError: Saying which norm has no place.
    """
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
    stages = [k for k in kept if k.startswith("backbone.stages.")]
    if stages and not any(re.match(r"backbone\.norm\d\.", key) for key in kept):
        raise ValueError(
            f"{source} is a Swin Transformer without a norm after its last stage, "
            "which timm's has"
        )


def _note_indices(kept: Mapping[str, Tensor], report: Report) -> None:
    for key in kept:
        if key.endswith("relative_position_index"):
            report.dropped[key] = "timm computes it"


def _hiera_to_timm(kept: State, state: Mapping[str, Tensor], report: Report) -> State:
    """Timm's Hiera: its head holds the norm, that of pre-training if there is none."""
    fused = {
        f"backbone.ln2.{name}": state[key]
        for name in ("weight", "bias")
        if (key := f"neck.fusion_norm.{name}") in state
    }
    if fused and "backbone.ln2.weight" not in kept:
        kept = kept | fused
        for name in ("weight", "bias"):
            report.dropped.pop(f"neck.fusion_norm.{name}", None)
        report.notes.append(
            "the norm after the fusion of the stages became timm's head.norm, as "
            "timm's own conversion does; forward_features does not use it"
        )
    official = hiera.convert_to_official(kept)
    names = {"head.projection.": "head.fc.", "norm.": "head.norm."}
    return {
        next((b + k[len(a) :] for a, b in names.items() if k.startswith(a)), k): x
        for k, x in official.items()
    }


def _beit_to_timm(kept: State, report: Report) -> State:
    """Timm's BEiT, whose keys have no bias: it changes no attention."""
    official = beit.RULES.convert(kept, to="official")
    converted: State = {}
    for key, value in official.items():
        if key.endswith("attn.qkv.bias"):
            start = key.removesuffix("qkv.bias")
            query, _, of_value = value.chunk(3)
            converted |= {f"{start}q_bias": query, f"{start}v_bias": of_value}
            report.notes[:] = [
                "the biases of keys are left out: they change no attention"
            ]
        elif key.endswith("relative_position_index"):
            report.dropped[key] = "timm computes it"
        else:
            converted[key] = value
    return converted


def _create_model(converted: Mapping[str, Tensor]) -> str:
    """The call that builds the model, as far as the weights show it."""
    if any(key.startswith("layers.") for key in converted):
        family = "swin_base_patch4_window7_224"
    elif "head.norm.weight" in converted:
        family = "hiera_base_224"
    elif any("q_bias" in key or "relative_position" in key for key in converted):
        family = "beit_base_patch16_224"
    else:
        family = "vit_base_patch16_224"
    classes = converted.get("head.weight", converted.get("head.fc.weight"))
    options = [f"num_classes={0 if classes is None else len(classes)}"]
    if "fc_norm.weight" in converted and family.startswith("vit"):
        options.append("global_pool='avg'")
    if family.startswith("beit") and "pos_embed" in converted:
        options.append("use_abs_pos_emb=True")
    if family.startswith("beit") and "blocks.0.gamma_1" not in converted:
        options.append("init_values=0")
    if family.startswith("beit") and not any("attn.relative" in k for k in converted):
        options.append("use_rel_pos_bias=False")
    return (
        f"timm.create_model({family!r}, {', '.join(options)}, checkpoint_path=FILE), "
        "or the model of your size; embed_dim=, depth=, num_heads= are options too"
    )
