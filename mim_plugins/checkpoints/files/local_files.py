"""Finds or downloads the file that is meant, and recognises what is no checkpoint.

The SHA-256 of a download is checked where the model index says what it should be, or
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
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import print_log

from ...model_index import sha256_of

# What may end an address: the digest of the file.
_FRAGMENT = "#sha256="

# Digits before the ending of a file's name that are of its digest, and of no date.
_NAMED_DIGEST = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8})\.\w+$")

# How files begin that are taken for checkpoints, and what they are.
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, which says where the file is: run "
     "`git lfs pull`, or download the file itself"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "an array of numpy's (.npy), not a state dict"),
    (b"GGUF", "a GGUF file, as llama.cpp writes"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "packed with xz: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (b"%PDF", "a PDF document"),
)  # fmt: skip

_PAGES = ("<!doctype", "<html", "<head", "<?xml", "<!--")

# Endings of checkpoints, as people look for them in a folder.
_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".pdparams", ".pd", ".pkl", ".ckpt")


def file_at(address: str) -> Path | None:
    """The file that an ``http(s)://`` or ``file://`` address names; else None.

    The first rank downloads, and the others find the file where they share its disk.

    Raises:
        ValueError: If it cannot be downloaded, or is another file than it should be.
    """
    if address.startswith("file://"):
        address, digest = _split(address)
        path = Path(url2pathname(urlparse(address).path))
        if digest is not None:
            check_file(path)
            _check_sha256(path, digest, "its address")
        return path
    if not address.startswith(("http://", "https://")):
        return None
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

    It goes to a folder, by default torch's folder of checkpoints.

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
        for wanted, source in (
            (digest, "its address"),
            (sha256_of(address), "the model index"),
        ):
            if wanted is not None:
                _check_sha256(path, wanted, source, address)
    except ValueError:
        if fresh:  # else every later attempt would find it
            path.unlink()
        raise
    if digest is None and (named := _NAMED_DIGEST.search(path.name)):
        try:
            _check_sha256(path, named[1], "its name", address)
        except ValueError as error:
            print_log(str(error), logger="current", level=logging.WARNING)
    return path


def check_file(path: str | Path) -> None:
    """Makes sure that there is a file, and that it is not plainly something else.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is a folder, empty, a web page, text or the like.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(path.iterdir())
        files = [entry.name for entry in inside if entry.suffix in _ENDINGS]
        advice = "there is no checkpoint in it" if inside else "it is empty"
        if files:
            advice = f"give one of the files in it, such as {', '.join(files[:3])}"
            advice += f" (of {len(files)})" if len(files) > 3 else ""
        raise ValueError(f"{path} is a folder, not a checkpoint: {advice}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    what = _recognise(path)
    if what is not None:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is {what}")


def misnamed(path: str | Path) -> str | None:
    """A sentence that names the right ending, if a checkpoint has a wrong one."""
    with open(path, "rb") as file:
        head = file.read(9)
        size = file.seek(0, os.SEEK_END)
    kind = Path(path).suffix
    of_torch = head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9c"))
    if kind == ".safetensors":
        if of_torch or head[:1] == b"\x80":
            return "it is a file of torch or a pickle: name it .pth"
    elif head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size:
        return "it is a safetensors file: name it .safetensors"
    elif kind in (".pdparams", ".pd"):
        return "it is a file of torch: name it .pth" if of_torch else None
    elif head[:1] == b"\x80" and not of_torch:
        return "it is a pickle; if PaddlePaddle wrote it, name it .pdparams"
    return None


def _recognise(path: Path) -> str | None:
    """What a file is that is no checkpoint whatever its name, to follow *it is*."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "empty: it was not written, or not downloaded, to its end"
    for magic, what in _BEGINNINGS:
        if head.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive, as torch wrote before 0.2, or of something else"
    if not head.strip(b"\0"):
        return "nothing but zeros at its beginning: it was not downloaded to its end"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a letter is cut in two
            return None
        text = head[: error.start].decode()
    text = text.lstrip("\ufeff")
    if not all(c.isprintable() or c in "\n\r\t" for c in text):
        return None
    if text.lstrip().lower().startswith(_PAGES):
        return (
            "a web page, such as a login or an error that was saved instead: "
            "download the file again, by a link that needs no browser"
        )
    beginning = " ".join(text.split())[:40]
    return f"text, not tensors; it begins with {beginning!r}"


def _split(address: str) -> tuple[str, str | None]:
    """An address, and the digest it may end in."""
    address, found, digest = address.partition(_FRAGMENT)
    if found and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ValueError(
            f"{address}{found}{digest}: a SHA-256 has 64 hexadecimal digits"
        )
    return address, digest if found else None


def _check_sha256(path: Path, wanted: str, source: str, address: str = "") -> None:
    """Makes sure that a file has a SHA-256, or one of these first digits."""
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", str(wanted)):
        raise ValueError(f"{source} gives {wanted!r} for {path}, which is no SHA-256")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(wanted.lower()):
        origin = f", downloaded from {address}," if address else ""
        raise ValueError(
            f"{path}{origin} is not the file that {source} names: its SHA-256 is "
            f"{found}, not {wanted}. Delete it and download it anew; if it stays so, "
            "the file was replaced: do not use it unchecked"
        )
