"""The head of the tracker: where the centre of the box is, and how large the box."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

# Limits of scores and sizes behind the sigmoid.
_SMALLEST = 1e-4


class Maps(NamedTuple):
    """What the head predicts for every cell of the search region.

    Args:
        score: How likely the centre of the box is in the cell, (N, 1, rows, cols).
        size: Width and height of the box relative to the search region, (N, 2, rows,
            cols).
        offset: Where in the cell the centre is, column and row, in cells, likewise.
    """

    score: Tensor
    size: Tensor
    offset: Tensor

    def boxes(self, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The box of the highest score.

        Args:
            window: Factors of the scores, (rows, cols).

        Returns:
            Boxes (N, 4): centre x and y, width, height, relative to the search region;
            and the scores, times the window, that they were chosen by, (N,).
        """
        rows, cols = self.score.shape[-2:]
        scores = self.score if window is None else self.score * window
        best, place = scores.flatten(1).max(dim=1)
        index = place[:, None, None].expand(-1, 2, 1)
        offset = self.offset.flatten(2).gather(2, index)[..., 0]  # (N, 2)
        size = self.size.flatten(2).gather(2, index)[..., 0]
        row = torch.div(place, cols, rounding_mode="floor")
        cell = torch.stack([place % cols, row], dim=1)
        centre = (cell + offset) / offset.new_tensor([cols, rows])
        return torch.cat([centre, size], dim=1), best


@MODELS.register_module()
class CentreHead(BaseModule):
    """Three branches of convolutions: score, offset and size of the box.

    Each is four 3x3 convolutions with batch norm and ReLU, of widths c, c/2, c/4 and
    c/8, and a 1x1 convolution.

    References:
        - OSTrack, 2022, https://arxiv.org/abs/2203.11991, section 3.3

    Args:
        in_channels: Width of the encoder.
        channels: Width c of the first convolution.
        norm_cfg: The norms.
        init_cfg: As mmengine's ``BaseModule``.

    Raises:
        ValueError: If ``channels`` is no multiple of 8.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if channels % 8 or channels < 8:
            raise ValueError(f"channels of CentreHead is a multiple of 8: {channels}")
        norm_cfg = norm_cfg or dict(type="BN")
        widths = [in_channels, *(channels // 2**k for k in range(4))]
        for name, out in (("score", 1), ("offset", 2), ("size", 2)):
            layers: list[nn.Module] = [
                nn.Sequential(
                    nn.Conv2d(a, b, 3, padding=1),
                    build_norm_layer(norm_cfg, b)[1],
                    nn.ReLU(inplace=True),
                )
                for a, b in zip(widths, widths[1:], strict=False)
            ]
            layers.append(nn.Conv2d(widths[-1], out, 1))
            setattr(self, name, nn.Sequential(*layers))

    def init_weights(self) -> None:
        """Draws matrices and kernels as the official head (xavier)."""
        super().init_weights()
        if self.init_cfg:
            return
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor) -> Maps:
        """Predicts maps from the search region's features, (N, C, rows, cols)."""
        score, size = (
            branch(features).sigmoid().clamp(_SMALLEST, 1 - _SMALLEST)
            for branch in (self.score, self.size)
        )
        return Maps(score, size, self.offset(features))


def hann_window(grid: tuple[int, int], **options: Any) -> Tensor:
    """A Hann window without zeros at its ends, (rows, cols).

    Args:
        grid: Rows and columns.
        **options: Of the tensor, such as ``device``.
    """
    rows, cols = (
        torch.hann_window(side + 2, periodic=False, **options)[1:-1] for side in grid
    )
    return rows[:, None] * cols[None, :]
