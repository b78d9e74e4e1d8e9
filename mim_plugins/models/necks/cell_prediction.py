"""Predictions of the cells of each token of a decoder."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F


class CellPrediction(nn.Sequential):
    """Predicts the r x r cells of each token, r = 1, 2 or 4.

    The layers are the official ones, transposed convolutions with kernel = stride = 2
    and a 1x1 convolution, which treat every token by itself: here they are linear
    layers on tokens in any order.

    Args:
        embed_dims: Width of a token, a multiple of r.
        out_dims: Width of the prediction of a cell.
        ratio: Cells per token and axis, r.
        norm_cfg: Norm layer between two transposed convolutions.
    """

    def __init__(
        self, embed_dims: int, out_dims: int, ratio: int, norm_cfg: dict
    ) -> None:
        half, quarter = embed_dims // 2, embed_dims // 4
        layers: list[nn.Module] = []
        if ratio >= 2:
            layers += [nn.ConvTranspose2d(embed_dims, half, 2, 2)]
        if ratio == 4:
            layers += [build_norm_layer(norm_cfg, half), nn.GELU()]
            layers += [nn.ConvTranspose2d(half, quarter, 2, 2)]
        layers += [nn.Conv2d(embed_dims // ratio, out_dims, 1)]
        super().__init__(*layers)
        self.ratio = ratio

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, K, C) -> (N, K, r * r, out_dims), the cells of a token row by row."""
        layers: Any = list(self)
        if self.ratio == 1:
            conv = layers[0]
            return F.linear(tokens, conv.weight.flatten(1), conv.bias)[:, :, None]
        if self.ratio == 2:
            return F.linear(tokens, *_joined(*layers)).unflatten(-1, (4, -1))
        deconv, norm, activation, *last = layers
        weight = deconv.weight.permute(2, 3, 1, 0).flatten(0, 2)
        quarters = F.linear(tokens, weight, deconv.bias.repeat(4))
        quarters = activation(norm(quarters.unflatten(-1, (4, -1))))
        cells = F.linear(quarters, *_joined(*last))  # (N, K, 2*2, 2*2*out)
        cells = cells.unflatten(-1, (2, 2, -1)).unflatten(2, (2, 2))
        return cells.transpose(3, 4).flatten(2, 5)


def _joined(deconv: Any, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A transposed and a 1x1 convolution as one linear layer to 2 * 2 * out values.

    Nothing stands between the two, so their product is taken once for all tokens.
    """
    last = conv.weight.flatten(1)  # (out, mid)
    weight = torch.einsum("om,cmyx->yxoc", last, deconv.weight)
    bias = F.linear(deconv.bias, last, conv.bias)
    return weight.flatten(0, 2), bias.repeat(4)
