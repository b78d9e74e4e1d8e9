"""From our checkpoints to transformers' ``ViTModel``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..metadata import ImageStatistics
from ..report import Report
from . import State
from .export import plain_encoder
from .key_rules import KeyRules, block_rules
from .timm import convert_to_timm

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


def to_hugging_face(
    state: Mapping[str, Tensor],
    num_heads: int,
    *,
    img_size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    source: str = "checkpoint",
) -> tuple[State, dict[str, Any], Report]:
    """Converts our Vision Transformer to transformers' ``ViTModel``.

    Args:
        state: Of pre-training, of an encoder, or of a classifier on the class token,
            which becomes a ``ViTForImageClassification``.
        num_heads: Attention heads, which cannot be inferred from the weights.
        img_size: Height and width in pixels, needed where the grid is not square.
        classes: Names of a classifier's classes; numbered ones by default.
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
        count = len(plain["head.weight"])
        if classes is None or len(classes) != count:
            classes = [f"LABEL_{i}" for i in range(count)]
        names = {str(i): name for i, name in enumerate(classes)}
        config["id2label"] = names
        config["label2id"] = {name: int(i) for i, name in names.items()}
    report.converted = list(converted)
    options = "" if classifies else ", add_pooling_layer=False"
    report.notes.append(
        f"load it with transformers.{model}.from_pretrained(FOLDER{options})"
    )
    return converted, config, report


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


def preprocessor_config(
    config: Mapping[str, Any], statistics: ImageStatistics
) -> dict[str, Any]:
    """The content of ``preprocessor_config.json``: how images are prepared.

    They are resized to the size of the model, bicubically, without a crop.

    Args:
        config: The content of ``config.json``.
        statistics: Mean and deviation of the images it was trained on.
    """
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(statistics.mean),
        "image_std": list(statistics.std),
    }


def model_card(
    config: Mapping[str, Any], statistics: ImageStatistics, source: str
) -> str:
    """The content of ``README.md``: what the model is, and how it is used.

    Args:
        config: The content of ``config.json``.
        statistics: Mean and deviation of the images it was trained on.
        source: Name of the file it was converted from.
    """
    (architecture,) = config["architectures"]
    classifies = "id2label" in config
    task = "image-classification" if classifies else "image-feature-extraction"
    load = f"{architecture}.from_pretrained(FOLDER"
    load += ")" if classifies else ", add_pooling_layer=False)"
    output = "logits" if classifies else "last_hidden_state"
    origin = "recorded by its training" if statistics.recorded else "ImageNet's"
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags:
- vision
- masked-image-modeling
---

# {Path(source).stem}

A Vision Transformer with {config["num_hidden_layers"]} blocks of width
{config["hidden_size"]}, {config["num_attention_heads"]} heads and patches of
{config["patch_size"]} pixels, converted from `{Path(source).name}` by
[mim_plugins](https://pypi.org/project/mim-plugins/).

```python
from PIL import Image
from transformers import {architecture}, ViTImageProcessor

processor = ViTImageProcessor.from_pretrained(FOLDER)
model = {load}
inputs = processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")
{output} = model(**inputs).{output}
```

Images are resized to {config["image_size"]} pixels and normalised with a mean of
{", ".join(f"{x:.4g}" for x in statistics.mean)} and a deviation of
{", ".join(f"{x:.4g}" for x in statistics.std)} ({origin}), for values from 0 to 1.

Training data, evaluation and licence: those of the checkpoint it was converted from."""
