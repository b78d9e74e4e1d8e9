"""From our checkpoints to the libraries people use: official code, timm, others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from . import beit, deepmim, hiera, localmim, localmim_swin, mae_lite, mirl
from . import simmim as simmim_layout
from . import timm as timm_layout
from .report import Report, listed
from .rules import KeyRules

State = dict[str, Tensor]

# What a plain encoder with a classifier has; all else is of pre-training.
_ENCODER = re.compile(
    r"backbone\.(?!mask_token)|head\.(fc|layers\.head)\.(weight|bias)$|neck\.norm\."
)


def to_official(
    state: Mapping[str, Tensor],
    notes: Mapping[str, Any] | None = None,
    *,
    source: str = "checkpoint",
    img_size: int = 224,
) -> tuple[State, Report]:
    """Converts our state dict to the layout of the official code of its method.

    Args:
        state: All keys of a pre-training model, of a classifier, or of an encoder.
        notes: Those of the :class:`.convert.Conversion` it came from, if it did.
        source: Where it is from, for messages.
        img_size: Side in pixels of the images: official Swin files hold the masks of
            shifted windows, which depend on it.

    Returns:
        The tensors under official keys, and the account of ours.

    Raises:
        ValueError: If the official layout has no place for a tensor.
    """
    notes = notes or {}
    report = Report(source, "mmpretrain's layout to the official one", len(state))
    state = _drop(state, r"data_preprocessor\.", "follows from the config", report)
    try:
        official = _official(state, notes, img_size, source)
    except KeyError as error:
        raise ValueError(
            f"{source}: the official layout has no place for every tensor: "
            f"{error.args[0]}. Export the encoder alone (--encoder-only), or to timm"
        ) from error
    report.converted = list(official)
    return official, report


def _official(
    state: State, notes: Mapping[str, Any], img_size: int, source: str
) -> State:
    """As :func:`to_official`.

    Raises:
        KeyError: If there is no place for a key.
    """
    text = "\n".join(state)

    def has(pattern: str) -> bool:
        return re.search(f"^{pattern}", text, re.M) is not None

    if notes.get("layout") == "mae-lite" or has(r"(extra_block|distillation)\."):
        return _wrapped(state, notes, img_size, source)
    if has(r"neck\.low_embed\.") or notes.get("layout") == "mirl":
        return mirl.convert_to_official(state, notes.get("paddle", True))
    if has(r"backbone\.stages\."):
        if has(r"neck\.(decoders\.\d+\.latent_norm|norm)\.") and not has(
            r"neck\.decoder_"
        ):
            return localmim_swin.to_official(state, img_size)
        return dict(simmim_layout.convert_to_official(state, img_size))
    if has(r"backbone\.layers\.\d+\.proj\."):
        return hiera.convert_to_official(state)
    if beit.is_beit(state):
        return beit.RULES.convert(state, to="official")
    if has(r"neck\.decoders\.0\.latent_norm\."):
        rules = localmim.pretrain_rules(_num_decoders(state))
    elif has(r"neck\.decoders\."):
        levels = _num_decoders(state)
        numbered = levels > 1 or notes.get("layout") == "deepmim"
        rules = deepmim.pretrain_rules(levels if numbered else None)
    elif has(r"head\.norm_dist\."):
        rules = KeyRules(mae_lite.TOKEN_DISTILLATION_RULES)
    elif has(r"backbone\.dist_token"):
        rules = KeyRules(timm_layout.DISTILLED_RULES)
    else:
        rules = KeyRules(timm_layout.VIT_RULES)
    return rules.convert(state, to="official")


def _wrapped(
    state: State, notes: Mapping[str, Any], img_size: int, source: str
) -> State:
    """The layout of MAE-Lite's training wrapper, without the teacher.

    Raises:
        KeyError: If there is no place for a key, or nobody knows the adapters' numbers.
    """
    numbers = notes.get("adapters", [])
    student, official = {}, {}
    for key, value in state.items():
        match = re.fullmatch(r"distillation\.(\w+)\.adapters\.(\d+)\.weight", key)
        if match is None:
            student[key] = value
            continue
        if int(match[2]) >= len(numbers):
            raise KeyError(
                f"{key} is numbered by the teacher's blocks in the official layout, "
                "which only a file converted from it tells"
            )
        part = {ours: name for name, ours in mae_lite.ADAPTERS.items()}[match[1]]
        official[f"{part}.adapter{numbers[int(match[2])]}.weight"] = value
    extra = {k: student.pop(k) for k in list(student) if k.startswith("extra_block.")}
    if any(key.startswith("backbone.stages.") for key in student):
        network = simmim_layout.convert_to_official(student | extra, img_size)
    else:
        network = _official(student, {}, img_size, source)
        blocks = (re.match(r"blocks\.(\d+)\.", key) for key in network)
        place = 1 + max(int(match[1]) for match in blocks if match)
        names = {"ln1": "norm1", "attn": "attn"}
        for key, value in extra.items():
            _, module, rest = key.split(".", 2)
            network[f"blocks.{place}.{names[module]}.{rest}"] = value
    prefixed = {f"{mae_lite.STUDENT}.{key}": value for key, value in network.items()}
    return {**prefixed, **official}


def _num_decoders(state: Mapping[str, Any]) -> int:
    found = (re.match(r"neck\.decoders\.(\d+)\.", key) for key in state)
    return 1 + max(int(match[1]) for match in found if match)


def encoder_only(state: Mapping[str, Tensor]) -> tuple[State, dict[str, str]]:
    """The encoder's tensors, and why others were left out."""
    kept = {key: x for key, x in state.items() if key.startswith("backbone.")}
    left = {k: "the encoder alone is asked for" for k in state if k not in kept}
    return kept, left


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
            converted = timm_layout.convert_to_timm(kept)
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
            f"{source} is a Swin Transformer without a norm behind its last stage, "
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
            "the norm behind the fusion of the stages became timm's head.norm, as "
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
    """The call that builds the model, as far as tensors tell it."""
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


def _drop(
    state: Mapping[str, Tensor], pattern: str, reason: str, report: Report
) -> State:
    """Leaves out keys that start with a pattern."""
    report.dropped |= {k: reason for k in state if re.match(pattern, k)}
    return {k: x for k, x in state.items() if not re.match(pattern, k)}
