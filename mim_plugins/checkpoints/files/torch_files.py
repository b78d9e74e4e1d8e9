"""Reads files of torch without running code, and checks that they are undamaged."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .allow_list import RestrictedUnpickler, UnknownGlobalError, allowed_globals, brief
from .file_types import misnamed
from .torchscript import read_torchscript

# Set to 1, it lets files run code when they are read, as plain torch.load does.
TRUST = "MIM_PLUGINS_TRUST_CHECKPOINTS"

# How every archive of torch begins.
_ARCHIVE = b"PK\x03\x04"

# Only TorchScript's archives hold this file.
_SCRIPT = "constants.pkl"

# More than the source of a scripted model ever is; it alone is compressed.
_MOST_CODE = 1 << 26

# From torch 2.6 on, `weights_only=True` takes a list of names.
_TAKES_NAMES = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")


def read_torch(path: str | Path, map_location: Any = "cpu", trust: bool = False) -> Any:
    """Reads a file of ``torch.save``, or the tensors of one of ``torch.jit.save``.

    Args:
        path: The file.
        map_location: Where its tensors go, as ``torch.load``'s.
        trust: Whether the file may run code. The environment variable :data:`TRUST`,
            set to 1, allows it too.

    Raises:
        ValueError: If it is not such a file, is damaged, or refers to code.
    """
    trust = trust or os.environ.get(TRUST) == "1"
    try:
        if _is_archive(path) and _check_archive(path):
            return read_torchscript(path, map_location)
        return _load(path, map_location, trust)
    except Exception as error:  # a damaged file can fail anywhere
        if name := _refused_global(path, error):
            raise ValueError(
                f"{path} is refused: it refers to {name}, which a checkpoint does "
                "not need and which could run code; nothing of it was run. If you "
                f"trust whoever made the file, set {TRUST}=1 (for "
                "tools/convert_checkpoint.py: --trust)"
            ) from error
        raise ValueError(
            f"{path} cannot be read as a checkpoint: {misnamed(path) or _reason(error)}"
        ) from error


def _load(path: str | Path, map_location: Any, trust: bool) -> Any:
    if trust:
        return torch.load(path, map_location=map_location, weights_only=False)
    if _TAKES_NAMES:
        names = [(value, name) for name, value in allowed_globals().items()]
        with torch.serialization.safe_globals(names):
            return torch.load(path, map_location=map_location, weights_only=True)
    restricted = SimpleNamespace(
        Unpickler=RestrictedUnpickler,
        # torch reads the head of a file from before 1.6 with it.
        load=lambda file, **options: RestrictedUnpickler(file, **options).load(),
        __name__="restricted pickle",
    )
    return torch.load(
        path, map_location=map_location, weights_only=False, pickle_module=restricted
    )


def _is_archive(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_ARCHIVE)) == _ARCHIVE


def _check_archive(path: str | Path) -> bool:
    """Verifies an archive's checksums, which torch does not.

    Returns:
        Whether it is TorchScript's.

    Raises:
        ValueError: If a record does not match its checksum, or the archive is not as
            torch writes them.
        zipfile.BadZipFile: If it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.lower() for entry in entries]
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(set(names)) != len(names):
            raise ValueError(
                "its archive was not written by torch, which has all files in one "
                "folder, and each once"
            )
        is_script = any(name.endswith(f"/{_SCRIPT}") for name in names)
        size = Path(path).stat().st_size + is_script * _MOST_CODE
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its archive is compressed, as no checkpoint's is")
        if damaged := archive.testzip():
            raise ValueError(
                f"its record {damaged} does not match its checksum: the file was "
                "damaged on the disk or on the way; download or copy it again"
            )
    return is_script


def _refused_global(path: str | Path, error: Exception) -> str | None:
    """What a file refers to that is not on the list, if that is why it was refused."""
    if isinstance(error, UnknownGlobalError):
        return error.name
    if not _is_archive(path):  # a pickle of a kind that torch's reader does not know
        try:
            with open(path, "rb") as file:
                RestrictedUnpickler(file).load()
        except UnknownGlobalError as unknown:
            return unknown.name
        except Exception:
            pass
    match = re.search(r"GLOBAL (\S+) (was not an allowed|whose module)", str(error))
    return match[1] if match else None


def _reason(error: Exception) -> str:
    """What an error says, without torch's advice to read the file unsafely."""
    text = re.sub(r"Weights only load failed\.?.*WeightsUnpickler error: ", "",
                  str(error), flags=re.DOTALL)  # fmt: skip
    text = re.split(r"Check the documentation|Please file an issue|In PyTorch 2\.6",
                    text)[0]  # fmt: skip
    return brief(type(error)(text)) if text != str(error) else brief(error)
