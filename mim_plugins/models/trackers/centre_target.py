"""The target of the score map: a Gaussian around the centre of the box."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_radius(width: Tensor, height: Tensor, overlap: float = 0.7) -> Tensor:
    """CornerNet's radius, as its released code has it, in cells, (N,).

    Note:
        The formulas divide by 2, where the solutions of the quadratic equations divide
        by 2 a. Trackers are trained with them all the same.

    Args:
        width: Of boxes in cells, (N,).
        height: Likewise.
        overlap: Overlap with the box that corners inside the radius should keep.
    """
    radii = [
        (b + (b**2 - 4 * a * c).sqrt()) / 2
        for a, b, c in (
            (1, height + width, width * height * (1 - overlap) / (1 + overlap)),
            (4, 2 * (height + width), (1 - overlap) * width * height),
            (
                4 * overlap,
                -2 * overlap * (height + width),
                (overlap - 1) * width * height,
            ),
        )
    ]
    return torch.stack(radii).amin(dim=0).clamp_min(0).int()


def centre_heatmap(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the score map should be.

    Args:
        boxes: (N, 4), x, y, width, height, relative to the search region.
        grid: Rows and columns of the map.

    Returns:
        (N, 1, rows, cols): 1 in the cell of the centre, a Gaussian around it, 0 further
        away than the radius. It is cut at the border.
    """
    rows, cols = grid
    x, y, width, height = (boxes.float() * boxes.new_tensor([cols, rows] * 2)).T
    radius = gaussian_radius(width, height)
    sigma = (2 * radius + 1) / 6
    centres = ((x + width / 2).round(), (y + height / 2).round())
    dx = torch.arange(cols, device=boxes.device) - centres[0][:, None]  # (N, cols)
    dy = torch.arange(rows, device=boxes.device) - centres[1][:, None]  # (N, rows)
    squares = dx[:, None, :] ** 2 + dy[:, :, None] ** 2  # (N, rows, cols)
    heat = (-squares / (2 * sigma[:, None, None] ** 2)).exp()
    inside = (dx.abs() <= radius[:, None])[:, None, :] & (dy.abs() <= radius[:, None])[
        :, :, None
    ]
    return torch.where(inside, heat, 0.0).unsqueeze(1)
