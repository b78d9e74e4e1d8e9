"""Reads checkpoint files without ever running what is in them."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Names under which training scripts wrap the state dict, outermost first; Meta's Hiera
# has the last one.
WRAPPERS = ("state_dict", "model", "module", "model_state")


class _Leftover:
    """Stands in for an object of a training script that nobody needs here."""

    def __setstate__(self, state: object) -> None:
        """Takes no state."""


def _nothing(*_args: object) -> None:
    """Stands in for a function that a harmless leftover is pickled with."""


# What training scripts leave in their checkpoints beside tensors, and what it becomes.
# HistoryBuffer (mmengine's log) is pickled with getattr, which must not run.
LEFTOVERS: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "mmengine.logging.history_buffer.HistoryBuffer": _Leftover,
    "builtins.getattr": _nothing,
    "__builtin__.getattr": _nothing,
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    # What numpy pickles arrays and scalars with, under its module's old and new name.
    **{
        f"numpy.{core}.multiarray.{name}": value.__reduce__()[0]
        for core in ("core", "_core")
        for name, value in (("_reconstruct", np.zeros(0)), ("scalar", np.float64(0)))
    },
}


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, without the wrappers around them.

    Args:
        path: A file of ``torch.save``, or of safetensors.

    Returns:
        The tensors by key, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no tensors, or refers to code.
    """
    content = read_file(path)
    for name in WRAPPERS:
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors, only {sorted(map(str, content))[:10]}: give a "
            f"state dict, plain or under one of the keys {', '.join(WRAPPERS)}"
        )
    return tensors


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint file as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a safetensors file and safetensors is not installed.
        ValueError: If it is no checkpoint, or refers to code that is not known to be
            harmless.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    if Path(path).suffix == ".safetensors":
        return _load_safetensors(path)
    try:
        content = _load_weights_only(path)
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def _load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ImportError: If safetensors is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs safetensors: pip install 'safetensors>=0.4'"
        ) from error
    return dict(load_file(path))


def _load_weights_only(path: str | Path) -> Any:
    if hasattr(torch.serialization, "safe_globals"):
        # numpy 2 names its dtypes' classes too.
        dtypes = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "b1")]
        allowed: list[Any] = [(value, name) for name, value in LEFTOVERS.items()]
        with torch.serialization.safe_globals(allowed + dtypes):
            return torch.load(path, map_location="cpu", weights_only=True)
    return torch.load(
        path,
        map_location="cpu",
        weights_only=False,
        pickle_module=SimpleNamespace(
            Unpickler=_TensorUnpickler, load=pickle.load, __name__="restricted pickle"
        ),
    )


class _TensorUnpickler(pickle.Unpickler):
    """For a torch without an allow-list: knows tensors and leftovers alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up among those known to be harmless.

        Raises:
            UnpicklingError: If it is not, naming it.
        """
        full_name = f"{module}.{name}"
        if full_name in LEFTOVERS:
            return LEFTOVERS[full_name]
        known = torch._weights_only_unpickler._get_allowed_globals()
        if full_name in known or full_name in ("_codecs.encode", "torch.storage"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"it refers to {full_name}, which is not known to be harmless"
        )
