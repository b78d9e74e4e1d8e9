"""The official layouts of LocalMIM's Swin Transformers, and LocalMIM's object."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..metadata import MERGE_COORDINATES
from . import localmim
from .deepmim import num_decoders
from .key_rules import KeyRules
from .layout import Layout, Options, State, has_key
from .localmim import DECODER_RULES, level_norm_rules
from .simmim import is_localmim
from .swin import (
    COLUMN_BY_COLUMN,
    ROW_BY_ROW,
    STAGE_NORM_RULES,
    encoder_rules,
    has_stage_norms,
    quads_to_official,
    quads_to_ours,
    shift_masks,
    without_shift_masks,
)
from .vit import heads_by_width

MERGE_ORDERS = ("trained", "official_transfer")

# A fine-tuned classifier, or its encoder alone; `norm` follows the pooling. The
# backbone of segmentation has a norm behind every stage instead.
CLASSIFIER_RULES = [
    *encoder_rules(""),
    *STAGE_NORM_RULES,
    ("norm.{p}", "neck.norm.{p}"),
    ("head.{p}", "head.fc.{p}"),
]


def pretrain_rules(num_stages: int) -> KeyRules:
    """Rules of a pre-training checkpoint of an encoder with so many stages."""
    norms = level_norm_rules(
        "encoder.norm.", f"backbone.norm{num_stages - 1}", num_stages
    )
    return KeyRules([*encoder_rules("encoder."), *norms, *DECODER_RULES])


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of a state dict, official or ours, inferred from its keys.

    Raises:
        KeyError: If it is of no layout of LocalMIM's Swin Transformers.
    """
    text = "\n".join(keys)
    stages = re.findall(r"^(?:encoder\.layers|backbone\.stages)\.(\d+)\.", text, re.M)
    if re.search(r"^(encoder\.layers|neck\.decoders)\.", text, re.M) and stages:
        return pretrain_rules(int(max(stages, key=int)) + 1)
    if re.search(r"^(layers\.0\.blocks|backbone\.stages)\.", text, re.M):
        return KeyRules(CLASSIFIER_RULES)
    raise KeyError(
        "not a Swin Transformer of LocalMIM: it has neither encoder.layers "
        "(pre-training) nor layers.0.blocks (fine-tuning)"
    )


def convert_official(
    state: Mapping[str, Tensor], merge_order: str = "trained"
) -> OrderedDict[str, Tensor]:
    """Converts an official Swin state dict to our keys and mmpretrain's merge weights.

    Args:
        state: The official state dict: pre-training, or a fine-tuned classifier.
        merge_order: For pre-training weights: ``'trained'`` keeps what patch merging
            was trained to do; ``'official_transfer'`` gives what the official
            fine-tuning makes of the same weights, which it reads in another order
            (two of the four tokens of every quad change places). The published
            fine-tuning results came from the latter.

    Returns:
        The state dict. That of a pre-training records the official geometry in its
        metadata, see :mod:`mim_plugins.checkpoints.metadata`.

    Raises:
        KeyError: If a key is not accounted for.
        ValueError: If ``merge_order`` is unknown.
    """
    if merge_order not in MERGE_ORDERS:
        raise ValueError(f"merge_order is one of {MERGE_ORDERS}, got {merge_order!r}")
    state = without_shift_masks(state)
    pretraining = any(key.startswith("encoder.") for key in state)
    trained = pretraining and merge_order == "trained"
    order = ROW_BY_ROW if trained else COLUMN_BY_COLUMN
    converted = OrderedDict(quads_to_ours(rules_for(state).convert(state), order))
    if pretraining:
        # As if the encoder had saved this.
        metadata = {"backbone": {MERGE_COORDINATES: "official"}}
        converted._metadata = metadata  # type: ignore[attr-defined]
    return converted


def to_official(
    state: Mapping[str, Tensor], img_size: int = 224, patch_size: int = 4
) -> dict[str, Tensor]:
    """Converts our Swin state dict to an official one, the inverse of the above.

    Args:
        state: Of ``LocalMIM``, of an ``ImageClassifier`` with ``PooledNorm``, or a
            backbone of segmentation.
        img_size: Side in pixels of the images a classifier is for: its official layout
            holds the masks of shifted windows, which depend on it.
        patch_size: Side in pixels of a patch.

    Raises:
        KeyError: If a key is not accounted for.
    """
    state = {k: x for k, x in state.items() if not k.startswith("data_preprocessor.")}
    converted = rules_for(state).convert(state, to="official")
    pretraining = any(key.startswith("encoder.") for key in converted)
    converted = quads_to_official(
        converted, ROW_BY_ROW if pretraining else COLUMN_BY_COLUMN
    )
    if not pretraining and not has_stage_norms(converted):
        # In backbones of segmentation they are computed from the image.
        converted |= shift_masks(converted, img_size // patch_size)
    return converted


def _is_localmim(state: Mapping[str, Any]) -> bool:
    """Whether it has LocalMIM's decoders, or may be a Swin classifier of its own.

    Of the latter the norm follows the pooling, elsewhere it precedes it, which neither
    keys nor shapes show.
    """
    swin_classifier = {"norm.weight", "layers.0.blocks.0.norm1.weight"}
    return has_key(state, [r"decoder\.0\."]) or swin_classifier <= state.keys()


def _to_native(state: State, options: Options) -> Mapping[str, Tensor]:
    if has_key(state, [r"(encoder\.)?layers\."]):
        return convert_official(state, options.merge_order)
    return localmim.convert_official(state)


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
    if has_key(native, [r"backbone\.stages\."]):
        distilled = has_key(native, [r"(extra_block|distillation)\."])
        return is_localmim(native) and not distilled
    return has_key(native, [r"neck\.decoders\.0\.latent_norm\."])


def _to_official(native: State, _: Mapping[str, Any], img_size: int) -> State:
    if has_key(native, [r"backbone\.stages\."]):
        return to_official(native, img_size)
    rules = localmim.pretrain_rules(num_decoders(native))
    return rules.convert(native, to="official")


LAYOUT = Layout(
    name="localmim",
    title="LocalMIM's official layout",
    marks=(r"decoder\.0\.(embed\.|mask_token$)", r"layers\.0\.blocks\."),
    unless=(r"encoder\.mask_token$",),
    condition=_is_localmim,
    chosen_by=lambda keys: "neck.norm.weight" in keys,
    to_native=_to_native,
    num_heads=lambda state: (
        heads_by_width(state) if has_key(state, [r"decoder\."]) else None
    ),
    advise=_advise,
    writes=_writes,
    to_official=_to_official,
)
