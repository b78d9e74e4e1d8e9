"""From our Vision Transformers to transformers' ``ViTModel``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..report import Report
from .timm import convert_to_timm
from .timm_export import plain_encoder

State = dict[str, Tensor]

# What timm's keys, inside and outside of blocks, are called there; query, key and value
# are matrices of their own.
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


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
    kept = plain_encoder(state, report)
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
    rows = kept["backbone.layers.0.ffn.layers.0.0.weight"].shape[0]
    try:
        plain = convert_to_timm(kept)
    except KeyError as error:
        raise ValueError(f"{source}: {error.args[0]}") from error
    prefix = "vit." if "head.weight" in plain else ""
    converted: State = {}
    for key, value in plain.items():
        converted |= _keys_of(key, value, prefix, source)
    depth = len({k.split(".")[1] for k in plain if k.startswith("blocks.")})
    patches = kept["backbone.pos_embed"].shape[1] - 1
    config: dict[str, Any] = {
        "architectures": ["ViTForImageClassification" if prefix else "ViTModel"],
        "model_type": "vit",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": num_heads,
        "intermediate_size": rows,
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
    if prefix:
        names = {str(i): f"LABEL_{i}" for i in range(len(plain["head.weight"]))}
        config["id2label"] = names
        config["label2id"] = {name: int(i) for i, name in names.items()}
    report.converted = list(converted)
    report.notes.append(
        "load it with transformers.ViTForImageClassification.from_pretrained(FOLDER)"
        if prefix
        else "load it with transformers.ViTModel.from_pretrained(FOLDER, "
        "add_pooling_layer=False)"
    )
    return converted, config, report


def _keys_of(key: str, value: Tensor, prefix: str, source: str) -> State:
    """A tensor of timm's ViT under transformers' keys.

    Raises:
        ValueError: If there is none.
    """
    if key in OUTSIDE:
        return {prefix + OUTSIDE[key]: value}
    if key.startswith("head."):
        return {key.replace("head.", "classifier."): value}
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
    if match and match[2] == "attn.qkv":
        start = f"{prefix}encoder.layer.{match[1]}.attention.attention."
        names = ("query", "key", "value")
        return {
            f"{start}{name}.{match[3]}": part.clone()
            for name, part in zip(names, value.chunk(3), strict=True)
        }
    if match and match[2] in BLOCK:
        name = BLOCK[match[2]]
        return {f"{prefix}encoder.layer.{match[1]}.{name}.{match[3]}": value}
    raise ValueError(f"{source}: transformers' ViTModel has no place for {key}")


def _image_size(
    patches: int, patch: list[int], img_size: tuple[int, int] | None, source: str
) -> int | list[int]:
    """Side of the images, or height and width.

    Raises:
        ValueError: If the grid is not square and the size is not given, or does not
            fit.
    """
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
