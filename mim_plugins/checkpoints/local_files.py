"""Reads local files for mmengine without running code, and knows them by tensor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .geometry import merge_coordinates_of
from .loading import read_file, tensors_of

# Files by the tensors in them: mmengine hands on the tensors alone.
_SOURCES: MutableMapping[Tensor, str] = WeakTensorKeyDictionary()


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
    _check_names(checkpoint, filename)
    for tensor in tensors_of(checkpoint, filename).values():
        _SOURCES[tensor] = filename
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


def source_of(content: Mapping[str, Any]) -> str:
    """The file that tensors were loaded from, for messages.

    Args:
        content: What :func:`load_from_local` gave, or its state dict.
    """
    tensors = tensors_of(content).values()
    return next((_SOURCES[x] for x in tensors if x in _SOURCES), "checkpoint")


def _check_names(checkpoint: Mapping[str, Any], filename: str) -> None:
    """Makes sure that tensors go by names, which mmengine takes for granted.

    Raises:
        ValueError: If one does not.
    """
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{filename}: its state_dict is a {type(state).__name__}, not a dict of "
            "tensors"
        )
    other = next((key for key in state if not isinstance(key, str)), None)
    if other is not None:
        raise ValueError(f"{filename}: {other!r} in its state dict is no name")
