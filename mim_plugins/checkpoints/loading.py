"""Reads checkpoint files without ever running what is in them."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .paddle import read_paddle_state_dict
from .torchscript import ZIP_MAGIC, is_torchscript, read_torchscript
from .unpickling import TensorUnpickler, UnknownGlobalError, settle

# Names under which training scripts wrap the state dict, outermost first; Meta's Hiera
# has the last one.
WRAPPERS = ("state_dict", "model", "module", "model_state")


# Set to 1, it lets files run code when they are read, as plain torch.load does.
TRUST = "MIM_PLUGINS_TRUST_CHECKPOINTS"


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
            f"{path} cannot be read as a checkpoint: {_advice(path) or error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def _load(path: str | Path, map_location: Any, trust: bool) -> Any:
    """Reads a file of torch, TorchScript included, as it is."""
    script = is_torchscript(path)
    if not trust:
        _check_archive(path, _CODE_SIZE if script else 0)
    if script:
        return read_torchscript(path, map_location)
    if trust:
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception:  # damaged, hostile, or with leftovers: the next one tells
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


# More than the source of a scripted model ever is; it is compressed.
_CODE_SIZE = 1 << 26


def _check_archive(path: str | Path, slack: int) -> None:
    """Refuses archives that torch.save never writes.

    Args:
        path: The file.
        slack: By how many bytes an archive may grow when it is read.

    Raises:
        ValueError: If they grow more, or are tar archives, which torch unpacks to
            the disk.
    """
    with open(path, "rb") as file:
        zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if zipped:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > Path(path).stat().st_size + slack:
            raise ValueError("its archive is compressed, as no checkpoint's is")
        return
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return
    raise ValueError("it is a tar archive, as torch wrote before 0.2, or none of its")


def _advice(path: str | Path) -> str | None:
    """What to do about a file with a wrong ending, if it is one."""
    with open(path, "rb") as file:
        head = file.read(9)
        size = file.seek(0, os.SEEK_END)
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and 8 + length <= size:
        return "it is a safetensors file: name it .safetensors"
    return None


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
        with open(path, "rb") as file:
            head = file.read(len(ZIP_MAGIC))
        problem: object = error
        if head == ZIP_MAGIC or head[:1] == b"\x80":
            problem = "it is a file of torch or a pickle: name it .pth"
        raise ValueError(f"{path} cannot be read as safetensors: {problem}") from error
