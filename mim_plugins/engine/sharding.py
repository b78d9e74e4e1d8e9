"""Which modules are FSDP units of their own."""

from __future__ import annotations

from mmengine.registry import FUNCTIONS
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn


@FUNCTIONS.register_module()
def shard_transformer_blocks(
    module: nn.Module, recurse: bool, nonwrapped_numel: int
) -> bool:
    """Whether a module is an FSDP unit of its own, as ``auto_wrap_policy``.

    Blocks of Vision Transformers are: they run through ``forward``, in which shards are
    gathered. Heads of detectors and segmentors do not, so that a rule by size alone
    would break them.

    Args:
        module: A part of a model.
        recurse: Whether it is asked if parts of it may be sharded: they may.
        nonwrapped_numel: Not used; numbers in the module outside such parts.
    """
    return recurse or isinstance(module, TransformerEncoderLayer)
