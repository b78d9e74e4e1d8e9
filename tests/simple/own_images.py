"""Folders of generated images."""

from pathlib import Path

import cv2
import numpy as np


def write_images(folder: Path, count, shape=(40, 50, 3), dtype=np.uint8, ending=".png"):
    """Images of noise."""
    draw = np.random.default_rng(count)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = draw.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
        path = folder / f"{index}{ending}"
        if ending == ".npy":
            np.save(path, image)
        else:
            cv2.imwrite(str(path), image)
    return folder


def write_classes(folder: Path, count=4, names=("ant", "bee", "wasp"), **how):
    for number, name in enumerate(names):
        write_images(folder / name, count + number, **how)
    return folder
