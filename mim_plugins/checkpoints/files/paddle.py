"""Reads checkpoints of PaddlePaddle without PaddlePaddle, and without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as brief_repr
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .allow_list import RestrictedUnpickler, brief
from .local_files import misnamed

# What paddle.save adds to a state dict: names of its own, and how arrays of more than
# 2**30 bytes were cut for protocols 2 and 3.
NAME_TABLE = "StructuredToParameterName@@"
SLICES = "UnpackBigParamInfor@@"

# dtypes of Paddle's, as arrays have them; uint16 are the bits of bfloat16.
_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "f2", "f4", "f8")


def read_paddle_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the model's tensors of a ``.pdparams`` or ``.pd`` file.

    Args:
        path: A file that ``paddle.save`` wrote, of a state dict or of a trainer's
            dict with the state dict under ``model``.

    Returns:
        The tensors by key on the CPU, as Paddle lays them out: weights of linear
        layers are (in, out).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a file, or holds anything but arrays;
            nothing of it was executed then.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    try:
        with open(path, "rb") as file:
            state = _state_dict(RestrictedUnpickler(file).load())
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(
            f"{path} is refused as a PaddlePaddle checkpoint: "
            f"{misnamed(path) or brief(error)}. Only plain "
            "containers and arrays are read, and nothing in it was executed"
        ) from error
    return {key: _to_tensor(key, value, path) for key, value in state.items()}


def _state_dict(content: Any) -> dict[str, Any]:
    """The state dict of a file's content, without Paddle's additions."""
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    state = {key: value for key, value in content.items() if key != NAME_TABLE}
    for key, parts in state.pop(SLICES, {}).items():
        flat = np.concatenate([state.pop(name) for name in parts["slices"]])
        state[key] = flat.reshape(parts["OriginShape"])
    if not state:
        raise ValueError("it holds no tensors")
    return state


def _to_tensor(key: Any, value: Any, path: str | Path) -> Tensor:
    """A tensor from an array, or from Paddle's pair of a name and an array."""
    if not isinstance(key, str):
        raise ValueError(f"{path}: {brief_repr(key)} is not the name of a tensor")
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"{path}: the entry {brief_repr(key)} is not an array of numbers but a "
            f"{type(value).__name__}"
        )
    if value.dtype.str[1:] not in _DTYPES:
        raise ValueError(
            f"{path}: the entry {brief_repr(key)} is an array of {value.dtype}, "
            "which PaddlePaddle does not have"
        )
    value = np.require(value, requirements=["C", "W"])
    if value.dtype == np.uint16:
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)
