"""What is in a zip archive of torch's, and whether torch could have written it."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

# How every archive of torch begins.
ZIP_MAGIC = b"PK\x03\x04"

# Only TorchScript's have this file.
SCRIPT = "constants.pkl"

# More than the source of a scripted model ever is; it alone is compressed.
_MOST_CODE = 1 << 26

# More than the list of a hundred thousand files; Python needs ten times as much for it.
_MOST_LISTED = 1 << 23

# A record at the very end of an archive, and the two before it in all of torch's.
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")


def is_archive(path: str | Path) -> bool:
    """Tells whether a file begins as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def list_archive(path: str | Path) -> dict[str, int]:
    """Lists the files in an archive, if it is one as torch writes them.

    Two readers of zip archives can see different files in one that is made for it;
    Python's looks here, torch's reads. What they could differ in is refused.

    Args:
        path: The archive.

    Returns:
        Sizes in bytes by name, without the folder that all of them are in.

    Raises:
        ValueError: If it is damaged, grows when it is read, or is otherwise none of
            torch's.
        zipfile.BadZipFile: If it is damaged.
    """
    with open(path, "rb") as file:
        _check_end(file)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    sizes: dict[str, int] = {}
    folders = {entry.filename.partition("/")[0] for entry in entries}
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if entry.flag_bits & 1 or stored and entry.file_size != entry.compress_size:
            raise ValueError("its archive is encrypted or damaged")
        sizes[entry.filename.partition("/")[2]] = entry.file_size
    distinct = {entry.filename.lower() for entry in entries}
    if len(folders) != 1 or len(distinct) != len(entries):
        raise ValueError(
            "its archive is none of torch's, which has all files in one folder, and "
            "each once"
        )
    slack = _MOST_CODE if SCRIPT in sizes else 0
    if sum(sizes.values()) > Path(path).stat().st_size + slack:
        raise ValueError("its archive is compressed, as no checkpoint's is")
    return sizes


def _check_end(file: BinaryIO) -> None:
    """Makes sure that there is one list of files, where every reader looks for it.

    Raises:
        ValueError: If there is none, or room for another.
    """
    damaged = ValueError(
        "its archive has no list of files at its end: it was cut short, or something "
        "was added"
    )
    end = file.seek(0, os.SEEK_END) - _END.size
    if end < 0:
        raise damaged
    file.seek(end)
    sign, *_, size, offset, comment = _END.unpack(file.read(_END.size))
    if sign != b"PK\x05\x06" or comment:
        raise damaged
    place = end - _LOCATOR.size
    file.seek(max(place, 0))
    sign, _, record, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if place >= 0 and sign == b"PK\x06\x07":
        if record + _END_64.size != place:
            raise damaged
        file.seek(record)
        sign, *_, size, offset = _END_64.unpack(file.read(_END_64.size))
        if sign != b"PK\x06\x06":
            raise damaged
        end = record
    if offset + size != end:
        raise damaged
    if size > _MOST_LISTED:
        raise ValueError("its archive has far more files than a checkpoint")
