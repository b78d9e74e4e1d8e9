"""Pictures of what a masked image model sees and what it predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import cv2
import numpy as np
import torch
from torch import Tensor

from .drawings import Drawing

_MIN_CELL = 112  # pixels; smaller images are enlarged
_GAP = 4
_BACKGROUND = 255
_MASKED = 127.5  # grey of removed patches


def value_range(images: Tensor) -> tuple[float, float]:
    """The values of images that pictures show as black and as white.

    Args:
        images: Images as files hold them, (N, C, H, W); of the channels only those that
            are drawn count.

    Returns:
        0 and 255 for images of 8 bits, floating ones included; else the values that
        0.1 % of the pixels do not exceed, and exceed.
    """
    if images.dtype == torch.uint8:
        return 0.0, 255.0
    drawn = images[:, : 3 if images.shape[1] >= 3 else 1].float()
    values = drawn[drawn.isfinite()].cpu().numpy()
    if len(values) == 0:
        return 0.0, 255.0
    if values.min() >= 0 and 64 < values.max() <= 255:
        return 0.0, 255.0
    low, high = (float(x) for x in np.percentile(values, (0.1, 99.9)))
    return low, high if high > low else low + 1


def to_pixels(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    shown: tuple[float, float] = (0.0, 255.0),
) -> Tensor:
    """Undo the normalisation of images.

    Args:
        images: Normalised images, (N, C, H, W).
        mean: Mean per channel, C values.
        std: Standard deviation per channel, C values.
        shown: The values that become 0 and 255.

    Returns:
        Pixel values from 0 to 255, (N, C, H, W), float32.
    """
    shape = (1, -1, 1, 1)
    images = images.float() * std.reshape(shape) + mean.reshape(shape)
    low, high = shown
    return ((images - low) * (255 / (high - low))).clamp(0, 255)


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
    predictions: Mapping[str, Tensor | Drawing],
    mean: Tensor,
    std: Tensor,
    grid: tuple[int, int],
    *,
    target: Tensor | None = None,
    shown: tuple[float, float] = (0.0, 255.0),
    notes: Sequence[str] = (),
    zoom: int = 1,
    max_columns: int | None = None,
) -> np.ndarray:
    """Draw a table: one row per image, labelled columns.

    The columns are the original, the image as the encoder sees it, the target if it is
    given, every prediction, each drawing after its target, and the last prediction with
    the visible patches of original or target pasted over it.

    Args:
        images: Normalised images as the model receives them, (N, C, H, W), RGB; of more
            than three channels the first three are drawn, of fewer the first, in grey.
        mask: (N, L), 1 = removed.
        predictions: By caption, images of the same shape in the same normalised range,
            or drawings, see :func:`.drawings.draw_levels`.
        mean: Mean per channel used for the normalisation, C values.
        std: Standard deviation per channel, C values.
        grid: Number of patches, (rows, cols).
        target: What the last prediction should be, like the images, where that is not
            the images.
        shown: The values shown as black and as white, see :func:`value_range`.
        notes: Sentences to write below the table.
        zoom: How much images are enlarged at least; small ones and those next to larger
            drawings are in any case.
        max_columns: Breaks a row with more columns into lines of equal length.

    Returns:
        The table, (height, width, 3), uint8, RGB.

    Raises:
        ValueError: If there is no prediction or one has another shape than the images.
    """
    if not predictions:
        raise ValueError("reconstruction_grid needs at least one prediction.")
    for name, prediction in predictions.items():
        if isinstance(prediction, Tensor) and prediction.shape != images.shape:
            raise ValueError(
                f"Prediction {name!r} has shape {tuple(prediction.shape)}, but the "
                f"images have {tuple(images.shape)}."
            )
    original = to_pixels(images, mean, std, shown)
    removed = pixel_mask(mask, grid, (images.shape[2], images.shape[3]))
    columns = {
        "original": original,
        "masked": torch.where(removed, torch.full_like(original, _MASKED), original),
    }
    true = original
    if target is not None:
        columns["target"] = true = to_pixels(target, mean, std, shown)
    targets = [p.target for p in predictions.values() if isinstance(p, Drawing)]
    given = {id(goal): goal for goal in targets if goal is not None}
    seen: set[int] = set()
    if len(given) == 1 and len(targets) == len(predictions):
        (number, goal), *_ = given.items()
        columns["target"] = _shades(goal)
        seen.add(number)
    pasted: Tensor | None = None
    for name, prediction in predictions.items():
        if isinstance(prediction, Tensor):
            columns[name] = picture = to_pixels(prediction, mean, std, shown)
            pasted = torch.where(removed, picture, true)
            continue
        picture, pasted = _shades(prediction.prediction), None
        if prediction.target is not None:
            goal = _shades(prediction.target)
            if id(prediction.target) not in seen:
                columns[f"target of {name}"] = goal
            seen.add(id(prediction.target))
            pasted = torch.where(_enlarged(removed, picture), picture, goal)
        columns[name] = picture
    if pasted is not None:
        columns["pasted"] = pasted
    height = max(column.shape[2] for column in columns.values())
    cells = {
        name: _as_rgb(column.repeat_interleave(k, 2).repeat_interleave(k, 3))
        for name, column in columns.items()
        for k in [height // column.shape[2]]
    }
    zoom = -(-zoom * images.shape[2] // height)
    table = _lines_of_tables(cells, zoom, max_columns or len(cells))
    return np.concatenate([table, *_lines(notes, table.shape[1])])


def _shades(drawing: Tensor) -> Tensor:
    """Turn -1 to 1 into 0 to 255."""
    return ((drawing + 1) * 127.5).clamp(0, 255)


def _enlarged(pixels: Tensor, like: Tensor) -> Tensor:
    """Repeat pixels (N, 1, H, W) until they are as many as those of a picture."""
    factor = like.shape[2] // pixels.shape[2]
    return pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _as_rgb(images: Tensor) -> np.ndarray:
    """Turn (N, C, H, W) into (N, H, W, 3), uint8."""
    if images.shape[1] < 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    images = images[:, :3].round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _lines_of_tables(
    columns: Mapping[str, np.ndarray], zoom: int, max_columns: int
) -> np.ndarray:
    """Lay out the columns, each (N, H, W, 3), a few in each line."""
    names = list(columns)
    lines = -(-len(names) // max_columns)
    per_line = -(-len(names) // lines)
    if lines > 1:
        # A target and its prediction stay together.
        per_line += per_line % 2
    tables = [
        _table({name: columns[name] for name in names[start : start + per_line]}, zoom)
        for start in range(0, len(names), per_line)
    ]
    return np.concatenate(widened(tables))


def widened(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tables (height, width, 3) as wide as the widest, white at the right."""
    width = max(table.shape[1] for table in tables)
    return [
        np.pad(
            table,
            ((0, 0), (0, width - table.shape[1]), (0, 0)),
            constant_values=_BACKGROUND,
        )
        for table in tables
    ]


def _table(columns: Mapping[str, np.ndarray], zoom: int = 1) -> np.ndarray:
    """Lay out the columns, each (N, H, W, 3), under their captions."""
    rows, height, width, _ = next(iter(columns.values())).shape
    zoom = max(zoom, -(-_MIN_CELL // min(height, width)))
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


def _lines(notes: Sequence[str], width: int) -> list[np.ndarray]:
    """Notes as lines of text, each (18, width, 3)."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4
    lines = []
    # Letters are seldom wider than 8 pixels at this scale.
    for text in (line for note in notes for line in wrap(note, max(20, width // 8))):
        line = np.full((18, width, 3), _BACKGROUND, dtype=np.uint8)
        cv2.putText(line, text, (_GAP, 13), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
        lines.append(line)
    return lines
