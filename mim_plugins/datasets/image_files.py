"""Which image files can be read, and how files are named in messages."""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
from PIL import Image

# Endings that every build of OpenCV and Pillow reads.
EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)
# Endings that depend on the build.
OPTIONAL = (".gif", ".jp2", ".avif", ".heic", ".heif")

# Arrays of numpy, which LoadManyChannels reads.
ARRAYS = ".npy"

# Pixels of an image, Pillow's own limit, and bytes of its file. Beyond them, decoding
# takes minutes and gigabytes.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**28


def walk_files(root: str, skipped: list[str]) -> Iterator[str]:
    """Walks a folder without hidden entries, each linked folder once.

    mmengine's listing computes a relative path per file and enters hidden folders;
    this one takes seconds for a million files.

    Args:
        root: The folder.
        skipped: Gets a line, path and reason, for each entry that cannot be read:
            folders without permission, links that lead nowhere or to themselves,
            pipes, sockets and devices.

    Yields:
        Paths of regular files, each folder's in order.
    """
    stack, linked = [root], {os.path.realpath(root)}
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(folder) as found:
                # Sorted, so that which of two links to one folder counts does not
                # depend on the file system.
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(f"{printable(folder)} ({error.strerror})")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_file():
                    yield entry.path
                    continue
                if not entry.is_dir():
                    kind = entry.stat().st_mode  # raises for a broken link
                    skipped.append(f"{printable(entry.path)} ({_kind(kind)})")
                    continue
            except OSError as error:
                skipped.append(f"{printable(entry.path)} ({error.strerror})")
                continue
            if entry.is_symlink():
                # A link may lead back up: without this, forever.
                target = os.path.realpath(entry.path)
                if target in linked:
                    continue
                linked.add(target)
            stack.append(entry.path)


def describe_skipped(skipped: Sequence[str]) -> str:
    """What :func:`walk_files` has skipped, in a sentence."""
    more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return (
        f"{len(skipped)} entries cannot be read and are skipped: "
        f"{', '.join(skipped[:5])}{more}"
    )


def check_image_file(
    path: str, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> None:
    """Checks a local file before it is read and decoded.

    Only its size and the image's header are looked at. Formats that Pillow does not
    know are limited by their bytes alone.

    Args:
        path: Path of the file; an address, such as ``s3://…``, is not checked.
        max_pixels: Largest height times width. Above Pillow's own limit of 179 million,
            images beyond that one are not limited.
        max_bytes: Largest size of the file.

    Raises:
        OSError: If the file does not exist or may not be read.
        ValueError: If it is no regular file, empty or too large.
    """
    if "://" in path:
        return
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"it is no file but {_kind(found.st_mode)}")
    if not found.st_size:
        raise ValueError("the file is empty")
    if found.st_size > max_bytes:
        raise ValueError(
            f"the file has {found.st_size:,} bytes, more than max_bytes={max_bytes:,}"
        )
    pixels, beyond = 0, ""
    with warnings.catch_warnings():  # of Pillow's lower limit, without the path
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                pixels = image.width * image.height
        except Image.DecompressionBombError as error:
            beyond = str(error).split(",")[0]
        except Exception:  # whatever a damaged header leads to; decoding says more
            return
    if beyond and max_pixels <= MAX_PIXELS:
        raise ValueError(f"{beyond}; max_pixels={max_pixels:,}")
    if pixels > max_pixels:
        raise ValueError(
            f"the image has {pixels:,} pixels, more than max_pixels={max_pixels:,}"
        )


def _kind(mode: int) -> str:
    """What an entry of a folder is, other than a file or folder."""
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def readable_endings(pipeline: Sequence[Any] = ()) -> tuple[str, ...]:
    """Endings of the image files that a pipeline can load on this machine.

    Args:
        pipeline: Configs of its transforms, of which ``imdecode_backend`` of
            ``LoadImageFromFile`` decides; OpenCV without one. ``LoadManyChannels``
            reads ``.npy`` files, too.
    """
    types = [step.get("type") for step in pipeline if isinstance(step, Mapping)]
    arrays = (ARRAYS,) if "LoadManyChannels" in types else ()
    backend = next(
        (
            step["imdecode_backend"]
            for step in pipeline
            if isinstance(step, Mapping) and step.get("imdecode_backend")
        ),
        "cv2",
    )
    return EXTENSIONS + tuple(end for end in OPTIONAL if _reads(backend, end)) + arrays


def _reads(backend: str, ending: str) -> bool:
    if backend == "pillow":
        Image.init()
        return ending in Image.registered_extensions()
    # OpenCV answers by name for encoders only; each of these comes with a decoder.
    return backend == "cv2" and cv2.haveImageWriter(f"image{ending}")


def describe_others(paths: Iterable[str], accepted: Sequence[str]) -> str:
    """What is left out of a folder, by ending, in a sentence; ``""`` if nothing is.

    Args:
        paths: The files that are left out.
        accepted: The accepted endings.
    """
    counts = Counter(os.path.splitext(path)[1].lower() for path in paths)
    if not counts:
        return ""
    listed = ", ".join(
        f"{count} {printable(ending) or 'without an ending'}"
        for ending, count in counts.most_common(8)
    )
    text = f"left out: {listed}"
    if len(counts) > 8:
        text += f" and {len(counts) - 8} other endings"
    images = sorted(set(counts) & {*EXTENSIONS, *OPTIONAL} - set(accepted))
    if not images:
        return text
    pillow = [ending for ending in images if _reads("pillow", ending)]
    if pillow:
        text += (
            f". Pillow can read {', '.join(pillow)}: set "
            "LoadImageFromFile(imdecode_backend='pillow')"
        )
    if others := [ending for ending in images if ending not in pillow]:
        text += (
            f". Neither OpenCV nor Pillow can read {', '.join(others)} here: convert "
            "them"
        )
    return text


def printable(path: str) -> str:
    """A path in which bytes that are not UTF-8 are escaped, for messages and logs.

    Python keeps such bytes as surrogates, which no log file can hold.
    """
    return path.encode("utf-8", "backslashreplace").decode()
