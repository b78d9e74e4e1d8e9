"""Reads checkpoint files without ever running what is in them."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .paddle import read_paddle_state_dict

# Names under which training scripts wrap the state dict, outermost first; Meta's Hiera
# has the last one.
WRAPPERS = ("state_dict", "model", "module", "model_state")


# Set to 1, it lets files run code when they are read, as plain torch.load does.
TRUST = "MIM_PLUGINS_TRUST_CHECKPOINTS"


def _method_of_log(owner: object, name: str) -> Any:
    """Stands in for getattr: statistics of mmengine's log, and nothing else."""
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        return getattr(HistoryBuffer, name)
    return None


def _path_of(*parts: str) -> str:
    """Stands in for paths, which become text."""
    return os.path.join("", *map(str, parts))


# What training scripts leave in their checkpoints beside tensors, and what it becomes.
# HistoryBuffer (mmengine's log) is pickled with getattr, which must not run as it is.
LEFTOVERS: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "mmengine.logging.history_buffer.HistoryBuffer": HistoryBuffer,
    "builtins.getattr": _method_of_log,
    "__builtin__.getattr": _method_of_log,
    "builtins.slice": slice,
    "__builtin__.slice": slice,
    **{
        f"{module}.{name}": _path_of
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    # What numpy pickles arrays and scalars with, under its module's old and new name.
    **{
        f"numpy.{core}.multiarray.{name}": value.__reduce__()[0]
        for core in ("core", "_core")
        for name, value in (("_reconstruct", np.zeros(0)), ("scalar", np.float64(0)))
    },
}


def read_state_dict(path: str | Path, trust: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, without the wrappers around them.

    Args:
        path: A file of ``torch.save``, of safetensors, or of PaddlePaddle
            (``.pdparams``, ``.pd``).
        trust: Whether the file may run code, see :func:`read_file`.

    Returns:
        The tensors by key, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no tensors, or refers to code.
    """
    content = read_file(path, trust=trust)
    tensors = tensors_of(content)
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors, only {sorted(map(str, content))[:10]}: give a "
            f"state dict, plain or under one of the keys {', '.join(WRAPPERS)}"
        )
    return tensors


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file's content, without the wrappers around them."""
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    return {
        k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)
    }


def read_file(
    path: str | Path, map_location: Any = "cpu", trust: bool = False
) -> dict[str, Any]:
    """Reads a checkpoint file as it is.

    Args:
        path: As for :func:`read_state_dict`.
        map_location: Where its tensors go, as ``torch.load``'s.
        trust: Whether a file of ``torch.save`` may run code. The environment variable
            :data:`TRUST`, set to 1, allows it too.

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
    if Path(path).suffix in (".pdparams", ".pd"):
        return read_paddle_state_dict(path)
    try:
        if trust or os.environ.get(TRUST) == "1":
            content = torch.load(path, map_location=map_location, weights_only=False)
        else:
            _check_archive(path)
            content = _load_weights_only(path, map_location)
    except Exception as error:  # a damaged file can fail anywhere
        code = re.search(
            r"(?:GLOBAL|refers to|class) ([A-Za-z_][\w.]*\.\w+)", str(error)
        )
        if code:
            raise ValueError(
                f"{path} is refused: it refers to {code[1]}, which a checkpoint does "
                "not need and which could run code; nothing of it was run. If you "
                f"trust whoever made the file, set {TRUST}=1 (for "
                "tools/convert_checkpoint.py: --trust)"
            ) from error
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def _check_archive(path: str | Path) -> None:
    """Refuses archives that grow when they are read, which torch.save never writes.

    Raises:
        ValueError: If entries are compressed.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
        raise ValueError("its archive is compressed, as no checkpoint's is")


def _load_safetensors(path: str | Path) -> dict[str, Any]:
    """Reads a safetensors file.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If it is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs safetensors: pip install 'safetensors>=0.4'"
        ) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError, MemoryError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _load_weights_only(path: str | Path, map_location: Any) -> Any:
    if hasattr(torch.serialization, "safe_globals"):
        # numpy 2 names its dtypes' classes too.
        dtypes = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "b1")]
        allowed: list[Any] = [(value, name) for name, value in LEFTOVERS.items()]
        with torch.serialization.safe_globals(allowed + dtypes):
            return torch.load(path, map_location=map_location, weights_only=True)
    return torch.load(
        path,
        map_location=map_location,
        weights_only=False,
        pickle_module=SimpleNamespace(
            Unpickler=_TensorUnpickler, load=_load, __name__="restricted pickle"
        ),
    )


def _load(file: Any, **options: Any) -> Any:
    """What ``pickle.load`` is to pickle; torch reads a legacy file's head with it."""
    return _TensorUnpickler(file, **options).load()


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
