"""The loaded-key check: refuses checkpoints that hold nothing for a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mmengine.logging import print_log

from ..layouts.key_rules import listed
from .target import Target


def check_loaded_keys(target: Target, keys: Iterable[str], source: str) -> None:
    """Makes sure that an encoder with our keys gets something of a checkpoint.

    torch passes over what does not fit; mmengine says so in warnings.

    Args:
        target: The model that is to load it.
        keys: Keys of the state dict it gets.
        source: Where it is from, for messages.

    Raises:
        ValueError: If the encoder would get nothing.
    """
    if not target.has_native_keys:
        return
    keys = list(keys)
    fitting = [key for key in keys if key in target.shapes]
    of_encoder = [key for key in fitting if key.startswith(target.prefix)]
    # A part without encoder, such as a head, may be meant.
    meant = any(key.startswith(target.prefix) for key in keys)
    if keys and not of_encoder and (meant or not fitting):
        raise ValueError(
            f"{source} has nothing for the {target.name} that is to load it: none of "
            f"the model's keys is in it, which has {listed(keys, 4)}. Give a "
            "checkpoint of this architecture; Hugging Face's layout, and that of other "
            "networks, is not converted"
        )


def check_decoders(
    target: Target, keys: Iterable[str], source: str, in_run: bool = False
) -> None:
    """Refuses, in a run, a pre-trained encoder without its decoders; else warns.

    Args:
        target: The model that is to load it.
        keys: Keys of the state dict it gets.
        source: Where it is from, for messages.
        in_run: Whether a run starts from it, and trains or tests its decoders.

    Raises:
        ValueError: If decoders of a pre-training would stay randomly initialised.
    """
    parts = {key.partition(".")[0] for key in keys if key in target.shapes}
    if not target.is_pretraining or "neck" in parts or "backbone" not in parts:
        return
    decoders = [key for key in target.shapes if key.startswith("neck.")]
    if in_run:
        raise ValueError(
            f"{source} holds an encoder without the decoders of the "
            f"{type(target.module).__name__} that is to load it "
            f"({listed(decoders, 2)}): they would be randomly initialised. To "
            "pre-train anew from this encoder, give it in "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE) rather "
            "than in load_from; else give the checkpoint of the pre-training"
        )
    print_log(
        f"{source} holds an encoder without decoders: features are as they should be, "
        "reconstructions and losses are not",
        logger="current",
        level=logging.WARNING,
    )
