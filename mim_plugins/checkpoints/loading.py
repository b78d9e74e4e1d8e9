"""Reads checkpoint files without ever running what is in them."""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .archives import is_archive
from .paddle import read_paddle_state_dict
from .recognition import misnamed, name_folder, recognise
from .saving import with_notes
from .stand_ins import UnknownGlobalError, brief, settle
from .survey import survey_archive, survey_pickles
from .torchscript import is_torchscript, read_torchscript
from .unpickling import TensorUnpickler, check_keys

# Names under which training scripts wrap the state dict, outermost first; Meta's Hiera
# has the last one.
WRAPPERS = ("state_dict", "model", "module", "model_state")


# Set to 1, it lets files run code when they are read, as plain torch.load does.
TRUST = "MIM_PLUGINS_TRUST_CHECKPOINTS"


# Types of numpy's that every torch has, too.
_NUMBERS = {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
}  # fmt: skip


def read_state_dict(path: str | Path, trust: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, without the wrappers around them.

    Args:
        path: A file of ``torch.save`` or ``torch.jit.save``, of safetensors
            (``.safetensors``), or of PaddlePaddle (``.pdparams``, ``.pd``).
        trust: Whether the file may run code, see :func:`read_file`.

    Returns:
        The tensors by key, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no tensors, or refers to code.
    """
    return some_tensors_of(read_file(path, trust=trust), path)


def some_tensors_of(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file's content, of which there must be some.

    Args:
        content: What the file holds.
        path: The file, for messages.

    Raises:
        ValueError: If there are none; see also :func:`tensors_of`.
    """
    tensors = tensors_of(content, str(path))
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors, only {sorted(map(str, content))[:10]}: give a "
            f"state dict, plain or under one of the keys {', '.join(WRAPPERS)}"
        )
    return tensors


def tensors_of(
    content: Mapping[str, Any], source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """The tensors of a file's content, without the wrappers around them.

    Arrays of numbers are taken as tensors.

    Args:
        content: What the file holds.
        source: Where it is from, for messages.

    Raises:
        ValueError: If what goes by the name of a parameter (``a.b``) is numbers, but
            neither a tensor nor such an array: left out, it would silently be missing.
    """
    wrapper = next((x for x in WRAPPERS if isinstance(content.get(x), Mapping)), None)
    if wrapper is not None:
        content = content[wrapper]
    tensors = {}
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        # Beside tensors without a wrapper lie arrays of other kinds, such as the state
        # of a generator.
        named = wrapper is not None or "." in key
        if named and isinstance(value, np.ndarray) and value.dtype.name in _NUMBERS:
            native = value.astype(value.dtype.newbyteorder("="))
            value = torch.from_numpy(np.ascontiguousarray(native))
        if isinstance(value, Tensor):
            tensors[key] = value
        elif re.search(r"\w\.\w+$", key) and _is_numeric(value):
            raise ValueError(
                f"{source}: {key} is a {type(value).__name__}, no tensor: the file was "
                "changed by hand. Give the original, or save it as a tensor"
            )
    return tensors


def _is_numeric(value: Any) -> bool:
    """Whether a value is, or is a list of, numbers."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _is_numeric(value[0])
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    return numeric or isinstance(value, (int, float, complex, np.number))


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
    check_file(path)
    if Path(path).suffix == ".safetensors":
        return _load_safetensors(path)
    if Path(path).suffix in (".pdparams", ".pd"):
        return read_paddle_state_dict(path)
    try:
        content = _load(path, map_location, trust or os.environ.get(TRUST) == "1")
    except UnknownGlobalError as error:
        raise ValueError(
            f"{path} is refused: it refers to {error.name}, which a checkpoint does "
            "not need and which could run code; nothing of it was run. If you trust "
            f"whoever made the file, set {TRUST}=1 (for "
            "tools/convert_checkpoint.py: --trust)"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(
            f"{path} cannot be read as a checkpoint: {misnamed(path) or brief(error)}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def check_file(path: str | Path) -> None:
    """Makes sure that there is a file, and that it is not plainly something else.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is a folder, empty, a web page, text or the like.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint: {name_folder(path)}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    what = recognise(path)
    if what is not None:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is {what}")


def _load(path: str | Path, map_location: Any, trust: bool) -> Any:
    """Reads a file of torch, TorchScript included, as it is."""
    if trust:
        if is_torchscript(path):
            return read_torchscript(path, map_location)
        return torch.load(path, map_location=map_location, weights_only=False)
    if is_archive(path):
        script, plain = survey_archive(path)
        if script:
            return read_torchscript(path, map_location)
    else:
        _refuse_tar(path)
        plain = survey_pickles(path)
    if plain:
        with contextlib.suppress(Exception):  # the next one tells
            return settle(
                torch.load(path, map_location=map_location, weights_only=True)
            )
    return settle(_load_leftovers(path, map_location))


def _load_leftovers(path: str | Path, map_location: Any) -> Any:
    """Reads what a training script left too, by an allow-list of our own.

    Those of torch, from 2.4 on, let a pickle change what is on the list, and arrays
    of numpy on it could be made to point anywhere.
    """
    return torch.load(
        path,
        map_location=map_location,
        weights_only=False,
        pickle_module=SimpleNamespace(
            Unpickler=TensorUnpickler,
            # torch reads the head of a file of before 1.6 with it.
            load=lambda file, **options: TensorUnpickler(file, **options).load(),
            __name__="restricted pickle",
        ),
    )


def _refuse_tar(path: str | Path) -> None:
    """Refuses tar archives, which torch unpacks to the disk.

    Raises:
        ValueError: If it is one.
    """
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return
    raise ValueError("it is a tar archive, as torch wrote before 0.2, or none of its")


def _load_safetensors(path: str | Path) -> dict[str, Any]:
    """Reads a safetensors file, with what :func:`.saving.save_state` noted in it.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If it is damaged.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs safetensors: pip install 'safetensors>=0.4'"
        ) from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            notes = file.metadata() or {}
            tensors = OrderedDict((key, file.get_tensor(key)) for key in file.keys())
        check_keys(tensors)
        return with_notes(tensors, notes)
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(
            f"{path} cannot be read as safetensors: {misnamed(path) or brief(error)}"
        ) from error
