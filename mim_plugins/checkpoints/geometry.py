"""Where a pre-trained Swin Transformer took its tokens to be, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from .loading import read_file

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


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any) -> Any:
    """Loads a file without running code, and says if its geometry is no plain Swin's.

    It stands in for mmengine's loader of files, which runs what is in them, and since a
    plain ``SwinTransformer`` has no part that could say so; ``load_from``, ``--resume``
    and ``Pretrained`` all pass here.

    Args:
        filename: Path of the checkpoint.
        map_location: As ``torch.load``'s.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or refers to code, see :func:`.read_file`.
    """
    checkpoint = read_file(Path(filename).expanduser(), map_location)
    if merge_coordinates_of(checkpoint) == "official":
        print_log(
            f"{filename} was pre-trained with LocalMIM's official token coordinates, "
            "which are scrambled after the first patch merging. Only "
            "MIMSwinTransformer(merge_coordinates='official') computes, under a mask, "
            "what it was trained for; a plain Swin Transformer has the true ones, as "
            "the official fine-tuning has",
            logger="current",
            level=logging.WARNING,
        )
    return checkpoint
