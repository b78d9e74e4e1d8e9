"""Square crops around boxes, for training and for tracking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Pixels of a tracked box that stay inside the image.
MARGIN = 10.0


@dataclass(frozen=True)
class Region:
    """A square of an image, in whole pixels; parts of it may be outside.

    Args:
        x: Left edge.
        y: Upper edge.
        side: Width and height.
    """

    x: int
    y: int
    side: int

    @classmethod
    def around(cls, box: Sequence[float] | np.ndarray, factor: float) -> Region:
        """The square around the centre of a box.

        Args:
            box: x, y, width, height in pixels.
            factor: Side of the square, relative to the square root of the box's area.

        Raises:
            ValueError: If the box has no area.
        """
        x, y, width, height = (float(value) for value in box)
        if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
            raise ValueError(
                f"a box is x,y,width,height with positive width and height, got "
                f"{x:g},{y:g},{width:g},{height:g}"
            )
        side = max(1, math.ceil(math.sqrt(width * height) * factor))
        left, top = x + width / 2 - side / 2, y + height / 2 - side / 2
        return cls(round(left), round(top), side)

    def meets(self, image: np.ndarray) -> bool:
        """Whether a pixel of an image (H, W, ...) is inside."""
        height, width = image.shape[:2]
        return (
            self.x < width
            and self.y < height
            and self.x + self.side > 0
            and self.y + self.side > 0
        )

    def crop(self, image: np.ndarray, size: int) -> np.ndarray:
        """The square, resized (bilinear), with zeros outside of the image.

        Args:
            image: (H, W, C).
            size: Side of the result in pixels.
        """
        height, width = image.shape[:2]
        right, bottom = self.x + self.side, self.y + self.side
        inside = image[max(self.y, 0) : max(bottom, 0), max(self.x, 0) : max(right, 0)]
        if inside.shape[:2] != (self.side, self.side):
            padded = np.zeros((self.side, self.side, *image.shape[2:]), image.dtype)
            top, left = max(-self.y, 0), max(-self.x, 0)
            rows, cols = inside.shape[:2]
            padded[top : top + rows, left : left + cols] = inside
            inside = padded
        return cv2.resize(inside, (size, size), interpolation=cv2.INTER_LINEAR)

    def relative(self, box: Sequence[float] | np.ndarray) -> np.ndarray:
        """A box x, y, width, height of the image, relative to the square."""
        x, y, width, height = box
        return np.array([x - self.x, y - self.y, width, height]) / self.side

    def absolute(self, box: Sequence[float] | np.ndarray) -> np.ndarray:
        """A box x, y, width, height relative to the square, in pixels of the image."""
        x, y, width, height = np.asarray(box, dtype=float) * self.side
        return np.array([x + self.x, y + self.y, width, height])


def clip_box(box: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
    """A box of which at least :data:`MARGIN` pixels are inside an image.

    Args:
        box: x, y, width, height.
        height: Of the image.
        width: Likewise.
    """
    x, y, w, h = box
    left, right = _clip(x, x + w, width)
    top, bottom = _clip(y, y + h, height)
    return np.array([left, top, right - left, bottom - top])


def _clip(start: float, end: float, size: int) -> tuple[float, float]:
    margin = min(MARGIN, float(size))
    start = min(max(0.0, start), size - margin)
    end = min(max(margin, end), float(size))
    return start, start + max(margin, end - start)
