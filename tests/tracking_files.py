"""Drawn videos of a moving square, in the layouts of tracking data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH, SIDE = 60, 80, 16


def draw(step: int, seed: int = 0) -> tuple[np.ndarray, tuple[float, ...]]:
    """A frame with a bright square, and its box."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    x, y = 10 + 3 * step, 20 + step
    image[y : y + SIDE, x : x + SIDE] = (40, 220, 240)
    return image, (x, y, SIDE, SIDE)


def write_frames(folder: Path, count: int, first: int = 1, digits: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(count):
        name = f"{step + first:0{digits}}.jpg"
        cv2.imwrite(str(folder / name), draw(step)[0])


def box_lines(count: int) -> str:
    return "".join(",".join(map(str, draw(k)[1])) + "\n" for k in range(count))


def write_lasot(
    root: Path, names: tuple[str, ...] = ("cup-1", "cup-2", "dog-1"), count: int = 6
) -> Path:
    """Sequences in LaSOT's layout."""
    for name in names:
        folder = root / name.rpartition("-")[0] / name
        write_frames(folder / "img", count)
        (folder / "groundtruth.txt").write_text(box_lines(count))
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text(",".join("0" * count))
    return root
