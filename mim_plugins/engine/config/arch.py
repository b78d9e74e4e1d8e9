"""Another architecture of the encoder: what depends on its width and depth follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmpretrain.models import BEiTViT, SwinTransformer, VisionTransformer

from ...models import Hiera
from .image_size import class_of, takes_image_size

# Others may change their width inside.
_ENCODERS = (VisionTransformer, BEiTViT, SwinTransformer, Hiera)

# What takes the encoder's features, by type, and the key of their width.
_WIDTHS = {"ClsBatchNormNeck": "input_features", "PooledNorm": "in_channels"}


class Shape(NamedTuple):
    """What other parts of a model depend on.

    Args:
        width: Channels of the encoder's features.
        depth: Number of blocks, of all stages.
        stages: Number of stages; 1 of a plain ViT.
    """

    width: int
    depth: int
    stages: int


def encoder_shape(cfg: Config) -> Shape | None:
    """Width and depth of the encoder of a config of pre-training or classification.

    Args:
        cfg: The config.

    Returns:
        None where they are not known.

    Raises:
        ValueError: If the class of the encoder has no such architecture.
    """
    if not takes_image_size(cfg):
        return None
    backbone = cfg.model.get("backbone") or {}
    kind: Any = class_of(backbone)
    if kind is None or not issubclass(kind, _ENCODERS):
        return None
    zoo = kind.arch_zoo
    arch = backbone.get("arch", "base")
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(
                f"{backbone['type']} has no arch {arch!r}: choose one of "
                f"{', '.join(sorted(zoo))}, or give a dict of its sizes"
            )
        arch = zoo[arch]
    if "depths" in arch and "embed_dims" in arch:
        stages = len(arch["depths"])
        width = arch["embed_dims"] * 2 ** (stages - 1)
        return Shape(width, sum(arch["depths"]), stages)
    if "num_layers" in arch and "embed_dims" in arch:
        return Shape(arch["embed_dims"], arch["num_layers"], 1)
    return None  # said, with what is missing, when it is built


def take_arch(cfg: Config) -> None:
    """Give the encoder the ``arch`` at the top of a config.

    Args:
        cfg: The config of a model; changed in place. Others may have a variable of
            that name.

    Raises:
        ValueError: If the model's encoder has no architectures.
    """
    if cfg.get("arch") is None or not takes_image_size(cfg):
        return
    backbone = cfg.model.get("backbone") or {}
    if not hasattr(class_of(backbone), "arch_zoo"):
        raise ValueError(f"arch={cfg.arch!r}: {backbone.get('type')} takes no arch")
    if backbone.get("arch") != cfg.arch:
        backbone["arch"] = cfg.arch


def follow_arch(
    cfg: Config, before: Shape | None, options: Mapping[str, Any] | None = None
) -> None:
    """Let what depends on the encoder's width and depth follow its architecture.

    Heads and necks get the width. Supervised blocks, the block that is decoded, frozen
    stages and distilled blocks stay at their share of the depth. A teacher stays as it
    is: where it does not fit, the model refuses it.

    Args:
        cfg: The config, changed in place.
        before: The encoder as the config file has it.
        options: Values of the command line by dotted key, which are kept.

    Raises:
        ValueError: If the head of a classifier takes features of another width.
    """
    now = encoder_shape(cfg)
    if before is None or now is None:
        return
    kept = set(options or {})
    if before != now:
        for path, part, key, value in _dependent(cfg.model, before, now):
            if f"{path}.{key}" not in kept:
                part[key] = value
    for path, part, key in _takers(cfg.model):
        if part.get(key, now.width) != now.width:
            raise ValueError(
                f"{path}.{key}={part[key]}, but the features of the encoder, "
                f"{cfg.model.backbone.type} with arch={cfg.model.backbone.arch!r}, "
                f"have a width of {now.width}: set {path}.{key}={now.width}, or arch "
                "at the top of the config, which sets it as well"
            )


def _takers(model: Any) -> Iterator[tuple[str, MutableMapping, str]]:
    """Path, part and key of what is built for the width of the features."""
    neck, head = model.get("neck"), model.get("head")
    key = _WIDTHS.get((neck or {}).get("type", ""))
    if neck and key:
        yield "model.neck", neck, key
    keeps_width = not neck or key or neck.get("type") == "GlobalAveragePooling"
    if isinstance(head, MutableMapping) and keeps_width:
        yield "model.head", head, "in_channels"


def _dependent(
    model: Any, before: Shape, now: Shape
) -> Iterator[tuple[str, MutableMapping, str, Any]]:
    """Path, part, key and new value of what depends on the encoder."""
    for path, part, key in _takers(model):
        if part.get(key) == before.width:
            yield path, part, key, now.width
    if before.depth == now.depth:
        return

    def moved(block: int) -> int:
        if block >= before.depth:  # one more, of distillation alone
            return now.depth + block - before.depth
        return max(0, round((block + 1) * now.depth / before.depth) - 1)

    backbone = model["backbone"]
    if now.stages == before.stages == 1:
        if backbone.get("taps"):
            taps = tuple(map(moved, backbone["taps"]))
            yield "model.backbone", backbone, "taps", taps
        if isinstance(backbone.get("final_block"), int):
            block = moved(backbone["final_block"])
            yield "model.backbone", backbone, "final_block", block
        if backbone.get("frozen_stages") == before.depth:
            yield "model.backbone", backbone, "frozen_stages", now.depth
    for index, term in enumerate(model.get("distillation") or []):
        if term.get("student_layers"):
            layers = tuple(map(moved, term["student_layers"]))
            yield f"model.distillation.{index}", term, "student_layers", layers
