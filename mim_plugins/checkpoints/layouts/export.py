"""From our checkpoints to timm's models, and to transformers' ``ViTModel``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..report import Report
from . import State, beit, hiera
from .key_rules import KeyRules, block_rules, has_key, listed
from .timm import convert_to_timm

# What a plain encoder with a classifier has; all else is of pre-training.
_ENCODER = re.compile(
    r"backbone\.(?!mask_token)|head\.(fc|layers\.head)\.(weight|bias)$|neck\.norm\."
)

# timm's keys, with query, key and value apart, and transformers'.
_HUGGING_FACE_RULES = KeyRules(
    [
        ("cls_token", "vit.embeddings.cls_token"),
        ("pos_embed", "vit.embeddings.position_embeddings"),
        ("patch_embed.proj.{p}", "vit.embeddings.patch_embeddings.projection.{p}"),
        *block_rules(
            "blocks.{i}.",
            "vit.encoder.layer.{i}.",
            [
                ("norm1.{p}", "layernorm_before.{p}"),
                ("attn.query.{p}", "attention.attention.query.{p}"),
                ("attn.key.{p}", "attention.attention.key.{p}"),
                ("attn.value.{p}", "attention.attention.value.{p}"),
                ("attn.proj.{p}", "attention.output.dense.{p}"),
                ("norm2.{p}", "layernorm_after.{p}"),
                ("mlp.fc1.{p}", "intermediate.dense.{p}"),
                ("mlp.fc2.{p}", "output.dense.{p}"),
            ],
        ),
        ("norm.{p}", "vit.layernorm.{p}"),
        ("head.{p}", "classifier.{p}"),
    ]
)


def to_timm(
    state: Mapping[str, Tensor], *, source: str = "checkpoint"
) -> tuple[State, Report]:
    """Converts our state dict to the keys of timm's model of the same architecture.

    What belongs to pre-training alone is left out. The report says how to build the
    model; ``timm.create_model(..., checkpoint_path=FILE)`` wants every key to fit.

    Raises:
        ValueError: If timm's model has no place for a tensor, or needs one that is
            missing.
    """
    report = Report(source, "mmpretrain's layout to timm's", len(state))
    kept = _plain_encoder(state, report)
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
    report.notes.append(f"load it with {_create_model(converted)}")
    return converted, report


def to_hugging_face(
    state: Mapping[str, Tensor],
    num_heads: int,
    *,
    img_size: tuple[int, int] | None = None,
    source: str = "checkpoint",
) -> tuple[State, dict[str, Any], Report]:
    """Converts our Vision Transformer to transformers' ``ViTModel``.

    Args:
        state: Of pre-training, of an encoder, or of a classifier on the class token,
            which becomes a ``ViTForImageClassification``.
        num_heads: Attention heads, which cannot be inferred from the weights.
        img_size: Height and width in pixels, needed where the grid is not square.
        source: Where it is from, for messages.

    Returns:
        The tensors, the content of ``config.json``, and the account.

    Raises:
        ValueError: If transformers' model has no place for a tensor, or needs one that
            is missing.
    """
    report = Report(source, "mmpretrain's layout to transformers' ViTModel", len(state))
    kept = _plain_encoder(state, report)
    for mark, problem in (
        ("backbone.stages.", "a Swin Transformer"),
        ("backbone.ln2.", "a ViT that norms the mean of its patch tokens"),
        ("backbone.pre_norm.", "a ViT with a norm before its blocks"),
    ):
        if any(key.startswith(mark) for key in kept):
            raise ValueError(
                f"{source} is {problem}; transformers' ViTModel norms every token at "
                "the end, and nothing else. Export the pre-trained encoder, or to timm"
            )
    for key in ("backbone.ln1.weight", "backbone.cls_token", "backbone.pos_embed"):
        if key not in kept:
            raise ValueError(
                f"{source} has no {key}, which transformers' ViTModel needs: export a "
                "checkpoint of pre-training, or of a classifier on the class token"
            )
    weight = kept["backbone.patch_embed.projection.weight"]
    width, channels, *patch = weight.shape
    if width % num_heads:
        raise ValueError(f"{num_heads} heads do not divide the width {width}")
    try:
        plain = convert_to_timm(kept)
        converted = _HUGGING_FACE_RULES.convert(_split_qkv(plain))
    except KeyError as error:
        raise ValueError(
            f"{source}: transformers' ViTModel has no place for a tensor: "
            f"{error.args[0]}"
        ) from error
    classifies = "head.weight" in plain
    if not classifies:
        converted = {key.removeprefix("vit."): x for key, x in converted.items()}
    model = "ViTForImageClassification" if classifies else "ViTModel"
    patches = plain["pos_embed"].shape[1] - 1
    config: dict[str, Any] = {
        "architectures": [model],
        "model_type": "vit",
        "hidden_size": width,
        "num_hidden_layers": sum(k.endswith(".norm1.weight") for k in plain),
        "num_attention_heads": num_heads,
        "intermediate_size": plain["blocks.0.mlp.fc1.weight"].shape[0],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "image_size": _image_size(patches, patch, img_size, source),
        "patch_size": patch[0],
        "num_channels": channels,
        "qkv_bias": True,
        "torch_dtype": str(weight.dtype).removeprefix("torch."),
    }
    if classifies:
        names = {str(i): f"LABEL_{i}" for i in range(len(plain["head.weight"]))}
        config["id2label"] = names
        config["label2id"] = {name: int(i) for i, name in names.items()}
    report.converted = list(converted)
    options = "" if classifies else ", add_pooling_layer=False"
    report.notes.append(
        f"load it with transformers.{model}.from_pretrained(FOLDER{options})"
    )
    return converted, config, report


def _plain_encoder(state: Mapping[str, Tensor], report: Report) -> State:
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


def _create_model(converted: Mapping[str, Tensor]) -> str:
    """The call that builds the model, as far as the weights show it."""
    if has_key(converted, r"layers\."):
        family = "swin_base_patch4_window7_224"
    elif "head.norm.weight" in converted:
        family = "hiera_base_224"
    elif any("q_bias" in key or "relative_position" in key for key in converted):
        family = "beit_base_patch16_224"
    else:
        family = "vit_base_patch16_224"
    classes = converted.get("head.weight", converted.get("head.fc.weight"))
    options = [f"num_classes={0 if classes is None else len(classes)}"]
    if family.startswith("vit") and "fc_norm.weight" in converted:
        options.append("global_pool='avg'")
    if family.startswith("beit"):
        if "pos_embed" in converted:
            options.append("use_abs_pos_emb=True")
        if "blocks.0.gamma_1" not in converted:
            options.append("init_values=0")
        if not any("attn.relative" in key for key in converted):
            options.append("use_rel_pos_bias=False")
    return (
        f"timm.create_model({family!r}, {', '.join(options)}, checkpoint_path=FILE), "
        "or the model of your size; embed_dim=, depth=, num_heads= are options too"
    )


def _split_qkv(state: State) -> State:
    """Stacked queries, keys and values as matrices of their own."""
    split: State = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            names = [key.replace("qkv", name) for name in ("query", "key", "value")]
            parts = (part.clone() for part in value.chunk(3))
            split |= zip(names, parts, strict=True)
        else:
            split[key] = value
    return split


def _image_size(
    patches: int, patch: list[int], img_size: tuple[int, int] | None, source: str
) -> int | list[int]:
    """Side of the images, or height and width."""
    if patch[0] != patch[1]:
        raise ValueError(f"{source} has patches of {patch}, ViTModel square ones")
    if img_size is None:
        side = round(patches**0.5)
        if side**2 != patches:
            raise ValueError(
                f"{source} has {patches} positions, which are no square grid: give the "
                "height and width of its images, --img-size H W"
            )
        return side * patch[0]
    height, width = img_size
    if (height // patch[0]) * (width // patch[0]) != patches:
        raise ValueError(
            f"--img-size {height} {width} has {height // patch[0]}x{width // patch[0]} "
            f"patches of {patch[0]} pixels, {source} has {patches}"
        )
    return height if height == width else [height, width]
