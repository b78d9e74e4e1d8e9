"""Downloads checkpoints, and checks that they are the right ones.

The SHA-256 of a file is checked where the model index says what it should be, or the
end of the address (``https://.../x.pth#sha256=<64 digits>``). Names of OpenMMLab's
files have its first eight digits (``x-0a1b2c3d.pth``); if they differ, there is a
warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log

from ...model_index import sha256_of
from .file_types import check_file

# What may end an address: the digest of the file.
_FRAGMENT = "#sha256="

# Digits before the ending of a file's name that are of its digest, and of no date.
_NAMED_DIGEST = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8})\.\w+$")


def local_path(address: str) -> Path | None:
    """The file that a path or an address names; it is downloaded, once, if need be.

    The first rank downloads, and the others find the file where they share its disk.

    Args:
        address: A path, or an address that starts with ``http(s)://`` or ``file://``.

    Returns:
        Its path; None for addresses of other kinds.

    Raises:
        ValueError: If it cannot be downloaded, or is another file than it should be.
    """
    if address.startswith("file://"):
        address, digest = _split(address)
        path = Path(url2pathname(urlparse(address).path))
        if digest is not None:
            check_file(path)
            check_sha256(path, digest, "its address")
        return path
    if not address.startswith(("http://", "https://")):
        return None if "://" in address else Path(address).expanduser()
    rank, _ = get_dist_info()
    if rank > 0:
        barrier()
    try:
        return fetch(address, progress=os.isatty(0))
    finally:  # the others find out for themselves what went wrong
        if rank == 0:
            barrier()


def fetch(url: str, folder: str | Path | None = None, progress: bool = False) -> Path:
    """Downloads a file, unless it is there, and checks its digest if it is known.

    Args:
        url: The address, which may end in the digest.
        folder: Where to; torch's folder of checkpoints by default.
        progress: Whether a bar shows how far the download is.

    Returns:
        Its path.

    Raises:
        ValueError: If it cannot be downloaded, or is no checkpoint, or another one.
    """
    address, digest = _split(url)
    target = Path(folder or Path(torch.hub.get_dir(), "checkpoints"))
    target.mkdir(parents=True, exist_ok=True)
    path = target / Path(urlparse(address).path).name
    if path.is_dir():
        raise ValueError(f"{url} names no file: give the address of a checkpoint")
    fresh = not path.exists()
    if fresh:
        try:
            torch.hub.download_url_to_file(address, str(path), progress=progress)
        except OSError as error:
            raise ValueError(
                f"{address} cannot be downloaded: {error}. Check the address, or "
                "download the file otherwise and give its path"
            ) from error
    try:
        check_file(path)
        if digest is not None:
            check_sha256(path, digest, "its address", address)
        if (listed := sha256_of(address)) is not None:
            check_sha256(path, listed, "the model index", address)
    except ValueError:
        if fresh:  # else every later attempt would find it
            path.unlink()
        raise
    if digest is None and (named := _NAMED_DIGEST.search(path.name)):
        try:
            check_sha256(path, named[1], "its name", address)
        except ValueError as error:
            print_log(str(error), logger="current", level=logging.WARNING)
    return path


def check_sha256(
    path: str | Path, wanted: str, source: str, address: str | None = None
) -> None:
    """Makes sure that a file is the one that is meant.

    Args:
        path: The file.
        wanted: Its SHA-256 in hexadecimal digits, or the first eight or more of them.
        source: Who says so, for the message.
        address: Where it was downloaded from, if it was.

    Raises:
        ValueError: If its SHA-256 is another, or ``wanted`` is none.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", str(wanted)):
        raise ValueError(f"{source} gives {wanted!r} for {path}, which is no SHA-256")
    found = _digest(Path(path))
    if not found.startswith(wanted.lower()):
        origin = f", downloaded from {address}," if address else ""
        raise ValueError(
            f"{path}{origin} is not the file that {source} names: its SHA-256 is "
            f"{found}, not {wanted}. Delete it and download it anew; if it stays so, "
            "the file was replaced: do not use it unchecked"
        )


def _split(address: str) -> tuple[str, str | None]:
    """An address, and the digest it may end in.

    Raises:
        ValueError: If what it ends in is no SHA-256.
    """
    address, found, digest = address.partition(_FRAGMENT)
    if found and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ValueError(
            f"{address}{found}{digest}: a SHA-256 has 64 hexadecimal digits"
        )
    return address, digest if found else None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
