"""The official layouts of LocalMIM's Swin Transformers."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

from .geometry import MERGE_COORDINATES
from .localmim import DECODER_RULES, level_norm_rules
from .rules import KeyRules
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
    """The rules of a state dict, official or ours, told by its keys.

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
        The state dict. That of a pre-training notes the official geometry in its
        metadata, see :mod:`mim_plugins.checkpoints.geometry`.

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
        # What load_state_dict hands to the encoder, as if it had saved this.
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
