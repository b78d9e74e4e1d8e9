"""A mask that somebody has drawn, on the patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch import Tensor

from ..datasets.image_files import check_image_file
from ..datasets.seeded_dataset import reason_of
from ..models.selfsup.image_loading import geometry_of, turns_by_exif

_EXIF_ORIENTATION = 0x0112


class DrawnMask:
    """A picture whose white parts are removed from images.

    It is drawn on the image, of the same size or the same proportions, and then cut and
    scaled as the image is; or on what the model sees of it. A patch is removed if more
    than half of it is white.

    Args:
        path: The picture.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or is wholly white or black.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            check_image_file(self.path)
            with Image.open(self.path) as image:
                self.shades = _shades(image)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no mask {path}") from None
        except Exception as error:
            reason = reason_of(error, self.path)
            raise ValueError(f"the mask {path} cannot be read: {reason}") from error
        if self.shades.max() < 0.5:
            raise ValueError(
                f"the mask {path} is black: what is white in it is removed from the "
                "image, so that there is nothing to predict"
            )
        if self.shades.min() > 0.5:
            raise ValueError(
                f"the mask {path} is white: what is white in it is removed from the "
                "image, so that there is nothing to predict it from"
            )

    def on_patches(
        self,
        grid: tuple[int, int],
        seen: tuple[int, int],
        image: tuple[int, int] | None,
        pipeline: Sequence[dict],
    ) -> Tensor:
        """The mask of an image, (1, L), 1 = removed.

        Args:
            grid: Rows and columns of the patches.
            seen: Height and width of the image as the model sees it.
            image: Height and width of the image file, if they are known.
            pipeline: What loads the image.

        Raises:
            ValueError: If the mask has other proportions than both, or removes no
                patch, or all.
        """
        rows, cols = grid
        pixels = self._as_seen(seen, image, pipeline)
        patches = cv2.resize(pixels, (cols, rows), interpolation=cv2.INTER_AREA)
        removed = torch.from_numpy(patches > 0.5).flatten()[None]
        count = int(removed.sum())
        if count in (0, rows * cols):
            height, width = seen[0] // rows, seen[1] // cols
            raise ValueError(
                f"the mask {self.path} removes {'all' if count else 'none'} of the "
                f"{rows}x{cols} patches: those of which more than half is white are "
                f"removed, of {height}x{width} pixels where the image has "
                f"{seen[0]}x{seen[1]}; {'leave' if count else 'draw'} larger areas"
            )
        return removed.float()

    def _as_seen(
        self,
        seen: tuple[int, int],
        image: tuple[int, int] | None,
        pipeline: Sequence[dict],
    ) -> np.ndarray:
        """The mask as large as the image that the model sees, (H, W)."""
        size = self.shades.shape
        own = (int(size[0]), int(size[1]))
        if own != image and _same_proportions(own, seen):
            return cv2.resize(self.shades, seen[::-1], interpolation=cv2.INTER_AREA)
        if image is None or not _same_proportions(own, image):
            where = "" if image is None else f"the image ({image[0]}x{image[1]}) nor "
            raise ValueError(
                f"the mask {self.path} has {own[0]}x{own[1]} pixels (height x width), "
                f"which are the proportions of neither {where}what the model sees of "
                f"it ({seen[0]}x{seen[1]}): draw it on one of them"
            )
        pixels = cv2.resize(self.shades, image[::-1], interpolation=cv2.INTER_AREA)
        colour = np.repeat((pixels * 255).round().astype(np.uint8)[..., None], 3, 2)
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            steps = Compose([TRANSFORMS.build(x) for x in geometry_of(pipeline)])
        results: Any = dict(img=colour, img_shape=image, ori_shape=image)
        cut = steps(results)["img"][..., 0].astype(np.float32) / 255
        return cv2.resize(cut, seen[::-1], interpolation=cv2.INTER_AREA)


def size_of_image(path: str, pipeline: Sequence[dict]) -> tuple[int, int] | None:
    """Height and width of an image file as a pipeline loads it; None if not known."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Exception:  # formats that Pillow does not know
        return None
    turned = turns_by_exif(pipeline) and exif_orientation(path) >= 5
    return (width, height) if turned else (height, width)


def exif_orientation(path: str) -> int:
    """How a photograph has to be turned, 1 to 8; 1 if not at all or not known."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # formats that Pillow does not know
        return 1


def _shades(image: Image.Image) -> np.ndarray:
    """A picture in grey from 0 to 1, on black where it is transparent, (H, W)."""
    if image.mode.startswith("I"):  # 16 bits
        return (np.asarray(image) / 65535).astype(np.float32)
    colour = image.convert("RGBA")
    black = Image.new("RGBA", colour.size, "black")
    grey = Image.alpha_composite(black, colour).convert("L")
    return np.asarray(grey, dtype=np.float32) / 255


def _same_proportions(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether sizes differ in scale alone, give or take less than a pixel."""
    (height, width), (rows, cols) = size, other
    return abs(height * cols - rows * width) < max(width, cols)
