"""Attention on maps of tokens with decomposed relative positions."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.backbones.vit_sam import (
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attention, split_heads


class GridAttention(MultiheadAttention):
    """mmpretrain's self-attention on maps of tokens, in windows or across all of them.

    Args:
        embed_dims: Width of the tokens.
        num_heads: Attention heads.
        window: Side of the windows in tokens; 0 attends across the complete map.
        table: Rows and columns that the tables of relative positions are made for;
            other maps interpolate them. None has no relative positions.
        **kwargs: Further arguments of mmpretrain's ``MultiheadAttention``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window: int = 0,
        table: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(embed_dims, num_heads, **kwargs)
        self.window = window
        self.relative = table is not None
        if table is not None:
            rows, cols = table
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * rows - 1, self.head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * cols - 1, self.head_dims))

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention, (N, rows, cols, C) -> (N, rows, cols, C).

        Maps that do not divide into windows are padded with zeros, which take part
        in their window, as in ViTDet's released code.
        """
        if self.window:
            size = (x.shape[1], x.shape[2])
            windows, padded = window_partition(x, self.window)
            out = window_unpartition(self._attend(windows), self.window, padded, size)
        else:
            out = self._attend(x)
        # Drop path drops images, not windows.
        return self.out_drop(self.gamma1(self.proj_drop(out)))

    def _attend(self, x: Tensor) -> Tensor:
        """Attention across maps, each by itself, (N, rows, cols, C)."""
        rows, cols = x.shape[1:3]
        tokens = self.qkv(x.flatten(1, 2))
        query, key, value = (
            split_heads(part, self.num_heads) for part in tokens.chunk(3, dim=-1)
        )
        dropout = self.attn_drop if self.training else 0.0
        if self.relative:
            grid = query.unflatten(2, (rows, cols))  # (N, heads, rows, cols, d)
            row_table = get_rel_pos(rows, rows, self.rel_pos_h).to(query.dtype)
            col_table = get_rel_pos(cols, cols, self.rel_pos_w).to(query.dtype)
            # MViTv2 (https://arxiv.org/abs/2112.01526), equation 4.
            of_rows = torch.einsum("nhrcd,rkd->nhrck", grid, row_table).flatten(2, 3)
            of_cols = torch.einsum("nhrcd,ckd->nhrck", grid, col_table).flatten(2, 3)
            out = attention_on_grid(query, key, value, of_rows, of_cols, dropout)
        else:
            out = self.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout
            )
        return self.proj(out.transpose(1, 2).flatten(2)).view_as(x)


def attention_on_grid(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    row_bias: Tensor,
    col_bias: Tensor,
    dropout_p: float = 0.0,
) -> Tensor:
    """Softmax attention over a grid, with biases for the row and column of the key.

    ``softmax(q k^T / sqrt(d) + row_bias[row of k] + col_bias[column of k]) v``. The
    biases join the matrix product, queries being continued by them and keys by the
    indicators of their row and column, so that nothing of L x L is stored: for the 64 x
    64 patches of a detector's global blocks that would be 16.8 million numbers per
    head, in the forward pass and again for the gradient.

    Args:
        query: (N, heads, L, d), L = rows * cols.
        key: (N, heads, L, d).
        value: (N, heads, L, d).
        row_bias: (N, heads, L, rows), of every query.
        col_bias: (N, heads, L, cols).
        dropout_p: Dropout probability of the attention weights.

    Returns:
        (N, heads, L, d).
    """
    dims, (rows, cols) = query.shape[-1], (row_bias.shape[-1], col_bias.shape[-1])
    query = torch.cat([query * dims**-0.5, row_bias, col_bias], dim=-1)
    row_of_key = torch.eye(rows, dtype=key.dtype, device=key.device)
    col_of_key = torch.eye(cols, dtype=key.dtype, device=key.device)
    where = torch.cat(
        [row_of_key.repeat_interleave(cols, dim=0), col_of_key.repeat(rows, 1)], dim=1
    )  # (L, rows + cols)
    key = torch.cat([key, where.expand(*key.shape[:2], -1, -1)], dim=-1)
    # Fused kernels want values as wide as keys.
    value = F.pad(value, (0, rows + cols))
    return attention(query, key, value, dropout_p, scale=1.0)[..., :dims]
