"""Pictures of what a masked image model sees and what it predicts."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

_MIN_CELL = 112  # pixels; smaller images are enlarged
_GAP = 4
_BACKGROUND = 255
_MASKED = 127.5  # grey of removed patches


def to_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo the normalisation of images.

    Args:
        images: Normalised images, (N, C, H, W).
        mean: Mean per channel, C values, in the range 0–255.
        std: Standard deviation per channel, C values.

    Returns:
        Pixel values from 0 to 255, (N, C, H, W), float32.
    """
    shape = (1, -1, 1, 1)
    images = images.float() * std.reshape(shape) + mean.reshape(shape)
    return images.clamp(0, 255)


def pixel_mask(mask: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Enlarge a mask of patches to the pixels they cover.

    Args:
        mask: (N, L), 1 = removed.
        grid: Number of patches, (rows, cols).
        size: Size of the images in pixels, (H, W).

    Returns:
        (N, 1, H, W), bool, True = removed.
    """
    rows, cols = grid
    mask = mask.bool().reshape(-1, 1, rows, cols)
    mask = mask.repeat_interleave(size[0] // rows, dim=2)
    return mask.repeat_interleave(size[1] // cols, dim=3)


def reconstruction_grid(
    images: Tensor,
    mask: Tensor,
    predictions: Mapping[str, Tensor],
    mean: Tensor,
    std: Tensor,
    grid: tuple[int, int],
) -> np.ndarray:
    """Draw a table: one row per image, labelled columns.

    The columns are the original, the image as the encoder sees it, every prediction,
    and the last prediction with the visible patches pasted over it.

    Args:
        images: Normalised images as the model receives them, (N, C, H, W), RGB; of more
            than three channels the first three are drawn, of fewer the first, in grey.
        mask: (N, L), 1 = removed.
        predictions: By caption, images of the same shape in the same normalised range.
        mean: Mean per channel used for the normalisation, C values.
        std: Standard deviation per channel, C values.
        grid: Number of patches, (rows, cols).

    Returns:
        The table, (height, width, 3), uint8, RGB.

    Raises:
        ValueError: If there is no prediction or one has another shape than the images.
    """
    if not predictions:
        raise ValueError("reconstruction_grid needs at least one prediction.")
    for name, prediction in predictions.items():
        if prediction.shape != images.shape:
            raise ValueError(
                f"Prediction {name!r} has shape {tuple(prediction.shape)}, but the "
                f"images have {tuple(images.shape)}."
            )
    original = to_pixels(images, mean, std)
    removed = pixel_mask(mask, grid, (images.shape[2], images.shape[3]))
    columns = {
        "original": original,
        "masked": torch.where(removed, torch.full_like(original, _MASKED), original),
    }
    columns |= {k: to_pixels(v, mean, std) for k, v in predictions.items()}
    last = list(columns.values())[-1]
    columns["pasted"] = torch.where(removed, last, original)
    return _table({name: _as_rgb(column) for name, column in columns.items()})


def _as_rgb(images: Tensor) -> np.ndarray:
    """Turn (N, C, H, W) into (N, H, W, 3), uint8."""
    if images.shape[1] < 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    images = images[:, :3].round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _table(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Lay out the columns, each (N, H, W, 3), under their captions."""
    rows, height, width, _ = next(iter(columns.values())).shape
    zoom = max(1, -(-_MIN_CELL // min(height, width)))
    height, width = height * zoom, width * zoom
    header = 20 + width // 24
    table = np.full(
        (header + rows * (height + _GAP), len(columns) * (width + _GAP) + _GAP, 3),
        _BACKGROUND,
        dtype=np.uint8,
    )
    for column, (name, images) in enumerate(columns.items()):
        left = _GAP + column * (width + _GAP)
        _write_caption(table, name, left, header, width)
        for row, image in enumerate(images):
            top = header + row * (height + _GAP)
            # Nearest-neighbour enlargement.
            cell = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
            table[top : top + height, left : left + width] = cell
    return table


def _write_caption(
    table: np.ndarray, text: str, left: int, header: int, width: int
) -> None:
    """Write black text into the header above a column, shrunk until it fits."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, width / 300
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, 1)
    if text_width > width:
        scale *= width / text_width
        (text_width, text_height), _ = cv2.getTextSize(text, font, scale, 1)
    origin = (left + max(0, (width - text_width) // 2), (header + text_height) // 2)
    cv2.putText(table, text, origin, font, scale, (0, 0, 0), 1, cv2.LINE_AA)
