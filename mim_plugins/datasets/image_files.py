"""Which image files can be read, and how files are named in messages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


def readable_endings(pipeline: Sequence[Any] = ()) -> tuple[str, ...]:
    """Endings of the image files that a pipeline can load on this machine.

    Args:
        pipeline: Configs of its transforms, of which ``imdecode_backend`` of
            ``LoadImageFromFile`` decides; OpenCV without one.
    """
    backend = next(
        (
            step["imdecode_backend"]
            for step in pipeline
            if isinstance(step, Mapping) and step.get("imdecode_backend")
        ),
        "cv2",
    )
    return EXTENSIONS + tuple(end for end in OPTIONAL if _reads(backend, end))


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
