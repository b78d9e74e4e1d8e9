"""Downloads checkpoints as mmengine does, and reads them without running code.

All of mmengine's addresses pass here or are refused: its own loaders run what is in a
file. The SHA-256 of a file is checked where the model index says what it should be, or
the end of the address (``https://.../x.pth#sha256=<64 digits>``). Names of OpenMMLab's
files have its first eight digits (``x-0a1b2c3d.pth``); if they differ, there is a
warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from .loading import check_file
from .local_files import load_from_local
from .zoo import sha256_of

# What may end an address: the digest of the file.
_FRAGMENT = "#sha256="

# Digits before the ending of a file's name that are of its digest, and of no date.
_NAMED_DIGEST = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8})\.\w+$")


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"), force=True)
def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | Path | None = None,
    progress: bool = os.isatty(0),
) -> Any:
    """Loads what an address has, from torch's cache if it was downloaded before.

    It stands in for mmengine's loader, which runs what is in a downloaded file. The
    first rank downloads, and the others find the file where they share its disk.

    Args:
        filename: The address.
        map_location: As ``torch.load``'s.
        model_dir: Folder of the cache; torch's by default.
        progress: Whether a bar shows how far the download is.

    Raises:
        ValueError: If the file is no checkpoint, refers to code, or is another one than
            the model index says.
    """
    rank, _ = get_dist_info()
    if rank > 0:
        barrier()
    try:
        path = fetch(filename, model_dir, progress)
    finally:  # the others find out for themselves what went wrong
        if rank == 0:
            barrier()
    return load_from_local(str(path), map_location)


# mmengine's torchvision:// and mmcls:// look it up here.
mmengine_checkpoint.load_from_http = load_from_http


@CheckpointLoader.register_scheme(prefixes="file://", force=True)
def load_from_file_address(filename: str, map_location: Any = None) -> Any:
    """Loads a file given as an address, which may end in its digest."""
    address, digest = _split(filename)
    path = Path(url2pathname(urlparse(address).path))
    if digest is not None:
        check_file(path)
        check_sha256(path, digest, "its address")
    return load_from_local(str(path), map_location)


@CheckpointLoader.register_scheme(
    prefixes=("open-mmlab://", "openmmlab://"), force=True
)
def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Loads a file by its name in mmengine's list of OpenMMLab's.

    Raises:
        ValueError: If it is not on the list.
    """
    name = filename.partition("://")[2]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    listed = mmengine_checkpoint.get_external_models()
    if name not in listed:
        raise ValueError(f"{filename}: mmengine's list of checkpoints has no {name!r}")
    if listed[name].startswith(("http://", "https://")):
        return load_from_http(listed[name], map_location)
    home = Path(mmengine_checkpoint._get_mmengine_home())
    return load_from_local(str(home / listed[name]), map_location)


@CheckpointLoader.register_scheme(
    prefixes=[r"(\S+\:)?s3://", r"(\S+\:)?petrel://"], force=True
)
def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    """Loads a file from an object store, which mmengine's backend reads."""
    backend = get_file_backend(filename, backend_args={"backend": "petrel"})
    with TemporaryDirectory() as folder:
        path = Path(folder, Path(urlparse(filename).path).name)
        path.write_bytes(backend.get(filename))
        return load_from_local(str(path), map_location)


@CheckpointLoader.register_scheme(prefixes="pavi://", force=True)
def load_from_pavi(filename: str, map_location: Any = None) -> Any:
    """Refuses what mmengine would read by running it.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"{filename}: files of pavi:// are not read; download it and give its path"
    )


def fetch(url: str, folder: str | Path | None = None, progress: bool = False) -> Path:
    """Downloads a file, unless it is there, and checks its digest if it is known.

    Args:
        url: The address, which may end in the digest.
        folder: Where to; torch's folder of checkpoints by default.
        progress: As of :func:`load_from_http`.

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
