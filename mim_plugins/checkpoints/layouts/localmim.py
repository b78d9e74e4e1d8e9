"""The official layouts of LocalMIM (released code), on ViT and on Swin Transformers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..metadata import MERGE_COORDINATES
from . import Layout, State, drop, swin
from .deepmim import num_decoders
from .key_rules import (
    CLASSIFIER_RULES,
    ENCODER_RULES,
    KeyRules,
    block_rules,
    has_key,
    heads_by_width,
    numbers,
)
from .simmim import is_localmim

_MERGE_ORDERS = ("trained", "official_transfer")

# Decoders and targets, alike for Vision Transformers and Swin Transformers. The
# prediction is a row of numbered layers, or one linear layer.
_DECODER_RULES = [
    ("decoder.{i}.mask_token", "neck.decoders.{i}.mask_token"),
    ("decoder.{i}.pos_embed", "neck.decoders.{i}.pos_embed"),
    ("decoder.{i}.embed.{p}", "neck.decoders.{i}.decoder_embed.{p}"),
    *block_rules("decoder.{i}.blocks.{j}.", "neck.decoders.{i}.decoder_blocks.{j}."),
    ("decoder.{i}.norm.{p}", "neck.decoders.{i}.ln1.{p}"),
    ("decoder.{i}.pred.{j}.{p}", "neck.decoders.{i}.decoder_pred.{j}.{p}"),
    ("decoder.{i}.pred.{p}", "neck.decoders.{i}.decoder_pred.{p}"),
    ("hog_enc.{i}.conv.{p}", "target_generator.gradients.{i}.{p}"),
]

# A fine-tuned Swin classifier, or its encoder alone; `norm` follows the pooling. The
# backbone of segmentation has a norm behind every stage instead.
_SWIN_CLASSIFIER = KeyRules(
    [
        *swin.encoder_rules(""),
        *swin.STAGE_NORM_RULES,
        ("norm.{p}", "neck.norm.{p}"),
        ("head.{p}", "head.fc.{p}"),
    ]
)


def _pretrain_rules(levels: int, is_swin: bool) -> KeyRules:
    """Rules of pre-training; of the levels' norms the last is the encoder's own."""
    if is_swin:
        encoder, norm = swin.encoder_rules("encoder."), "encoder.norm"
        last = f"norm{levels - 1}"
    else:  # whose official encoder has no norm without a number
        encoder = [rule for rule in ENCODER_RULES if rule[0] != "norm.{p}"]
        norm, last = "norm", "ln1"
    norms = [
        (f"{norm}.{levels - 1}.{{p}}", f"backbone.{last}.{{p}}"),
        (f"{norm}.{{i}}.{{p}}", "neck.decoders.{i}.latent_norm.{p}"),
    ]
    return KeyRules([*encoder, *norms, *_DECODER_RULES])


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of an official state dict, inferred from its keys.

    Raises:
        KeyError: If the keys are of none of the known layouts.
    """
    keys = set(keys)
    if stages := numbers(keys, r"encoder\.layers\.(\d+)\."):
        return _pretrain_rules(max(stages) + 1, is_swin=True)
    if has_key(keys, r"layers\.0\.blocks\."):
        return _SWIN_CLASSIFIER
    if "patch_embed.proj.weight" not in keys:
        raise KeyError(
            "not an official checkpoint of a LocalMIM Vision Transformer: it has no "
            "patch_embed.proj.weight; and not a Swin Transformer of LocalMIM: it has "
            "neither encoder.layers (pre-training) nor layers.0.blocks (fine-tuning)"
        )
    if levels := numbers(keys, r"decoder\.(\d+)\."):
        return _pretrain_rules(max(levels) + 1, is_swin=False)
    return KeyRules(CLASSIFIER_RULES)


def convert_official(
    state: Mapping[str, Any], merge_order: str = "trained"
) -> OrderedDict[str, Any]:
    """Converts an official state dict to our keys and mmpretrain's merge weights.

    Args:
        state: The official state dict: pre-training, or a fine-tuned classifier. What
            is no tensor, such as a shape, is renamed alone.
        merge_order: For pre-training weights of a Swin Transformer: ``'trained'`` keeps
            what patch merging was trained to do; ``'official_transfer'`` gives what the
            official fine-tuning makes of the same weights, which it reads in another
            order (two of the four tokens of every quad change places). The published
            fine-tuning results came from the latter.

    Returns:
        The state dict. That of a Swin's pre-training records the official geometry in
        its metadata, see :mod:`mim_plugins.checkpoints.metadata`.

    Raises:
        KeyError: If a key is not accounted for.
        ValueError: If ``merge_order`` is unknown.
    """
    if merge_order not in _MERGE_ORDERS:
        raise ValueError(f"merge_order is one of {_MERGE_ORDERS}, got {merge_order!r}")
    state, _ = drop(state, ())
    pretrained_swin = any(key.startswith("encoder.") for key in state)
    trained = pretrained_swin and merge_order == "trained"
    order = swin.ROW_BY_ROW if trained else swin.COLUMN_BY_COLUMN
    converted = OrderedDict(swin.reorder_quads(rules_for(state).convert(state), order))
    if pretrained_swin:
        # As if the encoder had saved this.
        metadata = {"backbone": {MERGE_COORDINATES: "official"}}
        converted._metadata = metadata  # type: ignore[attr-defined]
    return converted


def to_official(state: Mapping[str, Tensor], img_size: int = 224) -> dict[str, Tensor]:
    """Converts our state dict to an official one, the inverse of the above.

    Args:
        state: Of ``LocalMIM``; of a Swin Transformer also of an ``ImageClassifier``
            with ``PooledNorm``, or a backbone of segmentation.
        img_size: Side in pixels of the images a Swin classifier is for: its official
            layout holds the masks of shifted windows, which depend on it.

    Raises:
        KeyError: If a key is not accounted for.
    """
    state = {k: x for k, x in state.items() if not k.startswith("data_preprocessor.")}
    stages, decoders = numbers(state, r"backbone\.stages\.(\d+)\."), num_decoders(state)
    pretraining = decoders or not stages
    levels = 1 + stages[-1] if stages else decoders
    rules = _pretrain_rules(levels, bool(stages)) if pretraining else _SWIN_CLASSIFIER
    official = rules.convert(state, to="official")
    order = swin.ROW_BY_ROW if pretraining else swin.COLUMN_BY_COLUMN
    official = swin.reorder_quads(official, order, to="official")
    if not pretraining and not swin.has_stage_norms(official):
        # In backbones of segmentation they are computed from the image.
        official |= swin.shift_masks(official, img_size // 4)
    return official


def _is_localmim(state: Mapping[str, Any]) -> bool:
    """Whether it has LocalMIM's decoders, or may be a Swin classifier of its own.

    Of the latter the norm follows the pooling, elsewhere it precedes it, which neither
    keys nor shapes show.
    """
    swin_classifier = {"norm.weight", "layers.0.blocks.0.norm1.weight"}
    return has_key(state, r"decoder\.0\.") or swin_classifier <= state.keys()


def _advise(native: Mapping[str, Tensor], heads: int | None) -> list[str]:
    if "backbone.pos_embed" in native or "neck.norm.weight" in native:
        return []
    return [
        "pre-trained with LocalMIM's official token coordinates "
        "(MIMSwinTransformer(merge_coordinates='official')); the official "
        "fine-tuning reads the weights of patch merging in another order, which "
        "merge_order='official_transfer' reproduces"
    ]


def _writes(native: State, recorded: Mapping[str, Any]) -> bool:
    if has_key(native, r"backbone\.stages\."):
        distilled = has_key(native, r"(extra_block|distillation)\.")
        return is_localmim(native) and not distilled
    return has_key(native, r"neck\.decoders\.0\.latent_norm\.")


LAYOUT = Layout(
    name="localmim",
    title="LocalMIM's official layout",
    marks=(r"decoder\.0\.(embed\.|mask_token$)", r"layers\.0\.blocks\."),
    unless=(r"encoder\.mask_token$",),
    condition=_is_localmim,
    chosen_by=lambda keys: "neck.norm.weight" in keys,
    to_native=lambda state, options: convert_official(state, options.merge_order),
    num_heads=lambda state: (
        heads_by_width(state) if has_key(state, r"decoder\.") else None
    ),
    advise=_advise,
    writes=_writes,
    to_official=lambda native, _, img_size: to_official(native, img_size),
)
