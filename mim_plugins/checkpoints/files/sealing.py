"""A checksum over all of a file of torch, in its archive's comment.

The archive's own checksums cover the tensors and none of what is between them. With the
comment every changed bit is noticed; torch and other readers pass over it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

_MARK = b"mim_plugins:crc32="
# Not a power of two, so that no single bit makes its length zero.
_LENGTH = len(_MARK) + 8
_BLOCK = 1 << 20


def save_sealed(content: Any, path: str | Path) -> None:
    """Saves with ``torch.save`` and adds the checksum.

    Args:
        content: What ``torch.save`` takes.
        path: The file.

    Raises:
        OSError: If it cannot be written. A file that torch opens by itself ends in a
            ``RuntimeError`` without a reason.
    """
    with open(path, "wb") as file:
        torch.save(content, file)
    with open(path, "r+b") as file:
        file.seek(-2, 2)
        if file.read(2) != b"\0\0":
            raise ValueError(f"{path}: its archive ends in a comment of torch")
        file.seek(-2, 2)
        file.write(_LENGTH.to_bytes(2, "little"))
        checksum = _checksum(file, file.seek(0, 2))
        file.write(_MARK + b"%08x" % checksum)


def check_seal(path: str | Path, archive: zipfile.ZipFile) -> bool:
    """Whether a file has the checksum, which is then compared.

    Args:
        path: The file.
        archive: The same, opened.

    Raises:
        ValueError: If it does not match.
    """
    if not archive.comment:
        return False
    with open(path, "rb") as file:
        size = file.seek(-_LENGTH - 2, 2) + 2
        end = file.read()
        found = _MARK + b"%08x" % _checksum(file, size)
    if end != _LENGTH.to_bytes(2, "little") + found:
        raise ValueError(
            "it does not match its checksum: the file was damaged on the disk or on "
            "the way"
        )
    return True


def _checksum(file: Any, size: int) -> int:
    """Of the first bytes of a file."""
    file.seek(0)
    checksum = 0
    while size and (block := file.read(min(_BLOCK, size))):
        checksum = zlib.crc32(block, checksum)
        size -= len(block)
    return checksum
