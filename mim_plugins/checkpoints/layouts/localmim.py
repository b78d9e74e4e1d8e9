"""The official layouts of LocalMIM (released code); Swin's are in `localmim_swin`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .key_rules import KeyRules
from .vit import CLASSIFIER_RULES, ENCODER_RULES, block_rules

T = TypeVar("T")

# Decoders and targets, alike for Vision Transformers and Swin Transformers. The
# prediction is a row of numbered layers, or one linear layer.
DECODER_RULES = [
    ("decoder.{i}.mask_token", "neck.decoders.{i}.mask_token"),
    ("decoder.{i}.pos_embed", "neck.decoders.{i}.pos_embed"),
    ("decoder.{i}.embed.{p}", "neck.decoders.{i}.decoder_embed.{p}"),
    *block_rules("decoder.{i}.blocks.{j}.", "neck.decoders.{i}.decoder_blocks.{j}."),
    ("decoder.{i}.norm.{p}", "neck.decoders.{i}.ln1.{p}"),
    ("decoder.{i}.pred.{j}.{p}", "neck.decoders.{i}.decoder_pred.{j}.{p}"),
    ("decoder.{i}.pred.{p}", "neck.decoders.{i}.decoder_pred.{p}"),
    ("hog_enc.{i}.conv.{p}", "target_generator.gradients.{i}.{p}"),
]


def level_norm_rules(official: str, last: str, num_levels: int) -> list:
    """Rules of the latents' norms, of which the last is the encoder's own.

    Args:
        official: What precedes the number of a level.
        last: Our name of the encoder's norm.
        num_levels: Number of levels.
    """
    return [
        (f"{official}{num_levels - 1}.{{p}}", f"{last}.{{p}}"),
        (f"{official}{{i}}.{{p}}", "neck.decoders.{i}.latent_norm.{p}"),
    ]


def pretrain_rules(num_levels: int) -> KeyRules:
    """Rules of a pre-training checkpoint with so many levels, four in all releases."""
    # The encoder has no norm without a number.
    encoder = [rule for rule in ENCODER_RULES if rule[0] != "norm.{p}"]
    norms = level_norm_rules("norm.", "backbone.ln1", num_levels)
    return KeyRules([*encoder, *norms, *DECODER_RULES])


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of an official state dict, inferred from its keys.

    Raises:
        KeyError: If the keys are of none of the known layouts.
    """
    keys = set(keys)
    levels = {int(m[1]) for k in keys if (m := re.match(r"decoder\.(\d+)\.", k))}
    if levels and "patch_embed.proj.weight" in keys:
        return pretrain_rules(max(levels) + 1)
    if (
        "patch_embed.proj.weight" in keys
        and "layers.0.blocks.0.norm1.weight" not in keys
    ):
        return KeyRules(CLASSIFIER_RULES)
    raise KeyError(
        "not an official checkpoint of a LocalMIM Vision Transformer: it has no "
        "patch_embed.proj.weight"
    )


def convert_official(state: Mapping[str, T]) -> dict[str, T]:
    """Renames an official state dict of a LocalMIM ViT to our keys.

    Args:
        state: The official state dict: pre-training (with decoders) or a fine-tuned
            classifier.

    Raises:
        KeyError: If a key is not accounted for.
    """
    return rules_for(state).convert(state)
