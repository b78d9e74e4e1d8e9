"""Copies of models whose traces hold for images of any size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from mmcv.cnn.bricks.transformer import AdaptivePadding
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .attention import WindowAttention

Model = TypeVar("Model", bound=nn.Module)


def traceable(model: Model) -> Model:
    """A copy of a model that computes the same, with nothing decided by sizes.

    mmpretrain computes paddings, shifts and numbers of windows as Python numbers,
    which a trace keeps as those of the image it was made with.

    Args:
        model: A model, such as a Swin Transformer; any other one is only copied.
    """
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, WindowAttention):
            _take_default_scale(module)
        if isinstance(module, _BatchNorm) and module.weight is None:
            # The exporter infers their number from a width that it has lost by then.
            module.weight = nn.Parameter(torch.ones(module.num_features))
            module.bias = nn.Parameter(torch.zeros(module.num_features))
        replacement: nn.Module
        if type(module) is ShiftWindowMSA:
            replacement = _ShiftedWindows(module)
        elif isinstance(module, AdaptivePadding) and _covers(module):
            replacement = _CornerPadding(module.stride)
        else:
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, replacement)
    return model


def _take_default_scale(attn: WindowAttention) -> None:
    """Moves the scale of the logits into the queries: torch 2.1 exports no other."""
    width = attn.embed_dims // attn.num_heads
    with torch.no_grad():
        for tensor in (attn.qkv.weight, attn.qkv.bias):
            if tensor is not None:
                tensor[: attn.embed_dims] *= attn.scale * width**0.5
    attn.scale = None


class _CornerPadding(nn.Module):
    """mmcv's padding to a multiple of the stride, to the right and below."""

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = (
            -side % step for side, step in zip(x.shape[2:], self.stride, strict=True)
        )
        return F.pad(x, (0, cols, 0, rows))


class _ShiftedWindows(nn.Module):
    """mmpretrain's ``ShiftWindowMSA``, with its parameters."""

    def __init__(self, like: Any) -> None:
        super().__init__()
        self.window_size, self.shift_size = like.window_size, like.shift_size
        self.always_shifts = like.pad_small_map
        self.w_msa, self.drop = like.w_msa, like.drop

    def forward(self, query: Tensor, hw_shape: tuple[Any, Any]) -> Tensor:
        """Attention in windows, (N, H * W, C) -> (N, H * W, C)."""
        height, width = hw_shape
        side, dims = self.window_size, query.shape[-1]
        maps = query.reshape(-1, height, width, dims)
        maps = F.pad(maps, (0, 0, 0, -width % side, 0, -height % side))
        rows, cols = maps.shape[1], maps.shape[2]
        mask, shift = None, torch.zeros((), dtype=torch.int64)
        row, col = torch.arange(rows), torch.arange(cols)
        if self.shift_size:
            shift = shift + self.shift_size
            if not self.always_shifts:
                # None where one window covers a side.
                shorter = torch.minimum(torch.as_tensor(height), torch.as_tensor(width))
                shift = shift * (shorter > side).long()
            mask = self._mask(row, col, shift)
            maps = maps.index_select(1, (row + shift) % rows)
            maps = maps.index_select(2, (col + shift) % cols)
        out = self.w_msa(_windows(maps, side).flatten(1, 2), mask=mask)
        out = out.reshape(-1, rows // side, cols // side, side, side, dims)
        out = out.transpose(2, 3).reshape(-1, rows, cols, dims)
        if self.shift_size:
            out = out.index_select(1, (row + rows - shift) % rows)
            out = out.index_select(2, (col + cols - shift) % cols)
        out = out[:, :height, :width].reshape(-1, height * width, dims)
        return self.drop(out)

    def _mask(self, row: Tensor, col: Tensor, shift: Tensor) -> Tensor:
        """What keeps the regions of shifted windows apart, (windows, L, L)."""
        region_row, region_col = (
            (place >= place.shape[0] - self.window_size).long()
            + (place >= place.shape[0] - shift).long()
            for place in (row, col)
        )
        regions = 3 * region_row[:, None] + region_col
        regions = _windows(regions[None, :, :, None], self.window_size).flatten(1)
        apart = regions[:, :, None] != regions[:, None]
        return apart.float() * -100.0


def _windows(maps: Tensor, side: int) -> Tensor:
    """Cuts maps into windows, (N, H, W, C) -> (N * windows, side, side, C)."""
    _, rows, cols, dims = maps.shape
    windows = maps.reshape(-1, rows // side, side, cols // side, side, dims)
    return windows.transpose(2, 3).reshape(-1, side, side, dims)


def _covers(padding: Any) -> bool:
    """Whether a padding is to a multiple of the stride, at the far ends."""
    exact = tuple(padding.kernel_size) == tuple(padding.stride)
    return exact and tuple(padding.dilation) == (1, 1) and padding.padding == "corner"
