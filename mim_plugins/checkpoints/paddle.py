"""Reads checkpoints of PaddlePaddle without PaddlePaddle, and without running code."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What paddle.save adds to a state dict: names of its own, and how arrays of more than
# 2**30 bytes were cut for protocols 2 and 3.
NAME_TABLE = "StructuredToParameterName@@"
SLICES = "UnpackBigParamInfor@@"


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
        ValueError: If the file is not such a file, or asks for anything but arrays;
            nothing of it was executed then.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    with open(path, "rb") as file:
        try:
            state = _state_dict(_ArrayUnpickler(file).load())
        except _REFUSALS as error:
            raise ValueError(
                f"{path} is refused as a PaddlePaddle checkpoint: {error}. Only plain "
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


# What a damaged or hostile pickle raises while it is read.
_REFUSALS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what arrays and containers are pickled with, and nothing else."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        # Made anew for each file: a pickle may set attributes of what it is given.
        known: dict[str, Any] = {
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
            "collections.OrderedDict": OrderedDict,
            "argparse.Namespace": type("Namespace", (), {}),
            "_codecs.encode": _latin1_encoder(),
            "builtins.tuple": tuple,
            "__builtin__.tuple": tuple,
        }
        # Written as numpy.core by numpy 1, as numpy._core by numpy 2.
        for core in ("core", "_core"):
            prefix = f"numpy.{core}.multiarray."
            known[prefix + "_reconstruct"] = np.empty(0).__reduce__()[0]
            known[prefix + "scalar"] = np.float32(0).__reduce__()[0]
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, by name alone: nothing is imported.

        Raises:
            UnpicklingError: If it is not needed for arrays.
        """
        try:
            return self._known[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _latin1_encoder() -> Callable[[str, str], bytes]:
    """Protocol 2 writes bytes as encoded text, always in this encoding."""

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
        return text.encode("latin1")

    return encode


def _to_tensor(key: str, value: Any, path: str | Path) -> Tensor:
    """A tensor from an array, or from Paddle's pair of a name and an array."""
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise ValueError(
            f"{path}: the entry {key!r} is no array of numbers but a "
            f"{type(value).__name__}"
        )
    # A file's array may be read-only and in another byte order.
    value = np.array(value, dtype=value.dtype.newbyteorder("="))
    if value.dtype == np.uint16:
        # Paddle has no uint16: these are the bits of bfloat16.
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)
