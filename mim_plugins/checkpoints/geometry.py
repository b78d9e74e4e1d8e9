"""Where a pre-trained Swin Transformer took its tokens to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Entry of a module's metadata in a state dict, which torch.save keeps.
MERGE_COORDINATES = "merge_coordinates"


def merge_coordinates_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The geometry a checkpoint's Swin Transformer was pre-trained with, if it says.

    Args:
        checkpoint: A checkpoint of mmengine, or a state dict.

    Returns:
        ``'official'``, ``'correct'``, or None.
    """
    metadata = getattr(checkpoint.get("state_dict", checkpoint), "_metadata", {})
    for entry in metadata.values():
        if MERGE_COORDINATES in entry:
            return entry[MERGE_COORDINATES]
    return None
