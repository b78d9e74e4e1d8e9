"""Recognises files that are not checkpoints, or are under a wrong name."""

from __future__ import annotations

import os
from pathlib import Path

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


def name_folder(path: str | Path) -> str:
    """What to do about a folder that was given instead of a file.

    Args:
        path: The folder.
    """
    inside = sorted(Path(path).iterdir())
    files = [entry.name for entry in inside if entry.suffix in _ENDINGS]
    if files:
        more = f" (of {len(files)})" if len(files) > 3 else ""
        return f"give one of the files in it, such as {', '.join(files[:3])}{more}"
    return "there is no checkpoint in it" if inside else "it is empty"


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


def recognise(path: str | Path) -> str | None:
    """What a file is that is no checkpoint whatever its name, in words to follow *is*.

    Args:
        path: The file.

    Returns:
        None if it may be a checkpoint.
    """
    with open(path, "rb") as file:
        head = file.read(512)
        size = file.seek(0, os.SEEK_END)
    if not size:
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


def misnamed(path: str | Path) -> str | None:
    """What a checkpoint is that has the ending of another kind.

    Args:
        path: The file.

    Returns:
        A sentence that names the right ending; None if its ending may be right.
    """
    with open(path, "rb") as file:
        head = file.read(9)
        size = file.seek(0, os.SEEK_END)
    kind = Path(path).suffix
    torch_file = head[:4] == b"PK\x03\x04" or head.startswith(
        b"\x80\x02\x8a\nl\xfc\x9c"
    )
    if kind == ".safetensors":
        if torch_file or head[:1] == b"\x80":
            return "it is a file of torch or a pickle: name it .pth"
    elif head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size:
        return "it is a safetensors file: name it .safetensors"
    elif kind in (".pdparams", ".pd") and torch_file:
        return "it is a file of torch: name it .pth"
    elif kind not in (".pdparams", ".pd") and head[:1] == b"\x80" and not torch_file:
        return "it is a pickle; if PaddlePaddle wrote it, name it .pdparams"
    return None
