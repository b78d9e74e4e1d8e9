"""The block of Hiera: attention inside mask units, or across all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention, build_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attention, attention_logits, split_heads


class MaskUnitAttention(MultiheadAttention):
    """mmpretrain's attention on tokens in mask units, (N, U, T, C).

    Args:
        embed_dims: Width of the output, a multiple of ``num_heads``.
        num_heads: Attention heads.
        pool: Max-pool the queries over 2x2 tokens, which leaves T / 4.
        local: Attend to the tokens of the own unit alone, rather than to all.
        **kwargs: Further arguments of mmpretrain's ``MultiheadAttention``, such as
            ``input_dims``, the width of the input.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, pool: bool, local: bool, **kwargs: Any
    ) -> None:
        super().__init__(embed_dims, num_heads, **kwargs)
        self.pool, self.local = pool, local
        self.scaled_dot_product_attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """(N, U, T, input_dims) -> (N, U, T or T / 4, embed_dims)."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        dropout = self.attn_drop if self.training else 0.0
        out = self.scaled_dot_product_attention(
            self.queries(query), self.heads(key), self.heads(value), dropout_p=dropout
        )
        out = out.transpose(1, 2).reshape(*x.shape[:2], -1, self.embed_dims)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(out))))

    def logits(self, x: Tensor) -> Tensor:
        """Logits before the softmax, (N or N * U, heads, queries, keys).

        As :func:`self_attention_logits`: computed separately, without values.
        """
        dims = 2 * self.embed_dims
        query, key = F.linear(x, self.qkv.weight[:dims], self.qkv.bias[:dims]).chunk(
            2, dim=-1
        )
        return attention_logits(self.queries(query), self.heads(key))

    def queries(self, tokens: Tensor) -> Tensor:
        """As :meth:`heads`, pooled if the layer pools."""
        return self.heads(max_pool(tokens) if self.pool else tokens)

    def heads(self, tokens: Tensor) -> Tensor:
        """Tokens that attend to each other: (N, U, T, C) -> (..., heads, L, d).

        Units are images of their own, (N * U, heads, T, d), or parts of one sequence,
        (N, heads, U * T, d): views in both cases.
        """
        dims = (0, 1) if self.local else (1, 2)
        return split_heads(tokens.flatten(*dims), self.num_heads)


class HieraBlock(TransformerEncoderLayer):
    """mmpretrain's transformer layer on mask units, which may widen and pool.

    Args:
        in_dims: Width of the input.
        embed_dims: Width of the output, a multiple of ``num_heads``.
        num_heads: Attention heads.
        feedforward_channels: Hidden width of the MLP.
        norm_cfg: Norm layer.
        pool: Max-pool over 2x2 tokens.
        local: Attend inside mask units alone.
        drop_path_rate: Probability that a branch is dropped.

    References:
        - Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles,
          2023, https://arxiv.org/abs/2306.00989, section 3
    """

    def __init__(
        self,
        in_dims: int,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        norm_cfg: dict,
        pool: bool = False,
        local: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            embed_dims,
            num_heads,
            feedforward_channels,
            drop_path_rate=drop_path_rate,
            norm_cfg=norm_cfg,
        )
        self.attn = MaskUnitAttention(
            embed_dims,
            num_heads,
            pool,
            local,
            input_dims=in_dims,
            dropout_layer=dict(type="DropPath", drop_prob=drop_path_rate),
        )
        self.proj: nn.Linear | None = None
        if in_dims != embed_dims:
            self.ln1 = build_norm_layer(norm_cfg, in_dims)
            self.proj = nn.Linear(in_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(N, U, T, in_dims) -> (N, U, T or T / 4, embed_dims)."""
        normed = self.ln1(x)
        if self.proj is not None:
            x = self.proj(normed)
            x = max_pool(x) if self.attn.pool else x
        x = x + self.attn(normed)
        return self.ffn(self.ln2(x), identity=x)


def unroll(tokens: Tensor) -> Tensor:
    """Orders the t x t tokens of units for pooling: (N, U, t * t, C), from rows.

    The place of a token in a 2x2 square is the slowest index of the new order, the
    square's place in its 2x2 squares the next one: :func:`max_pool` is a maximum over
    four equal parts, however often it has been applied before.
    """
    digits, order = _bits(tokens)
    return _permuted(tokens, digits, order)


def reroll(tokens: Tensor) -> Tensor:
    """Inverse of :func:`unroll`, after any number of poolings: tokens row by row."""
    digits, order = _bits(tokens)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return _permuted(tokens, digits, inverse)


def max_pool(tokens: Tensor) -> Tensor:
    """Maximum over 2x2 tokens of unrolled units: (N, U, T, C) -> (N, U, T / 4, C)."""
    n, units, _, dims = tokens.shape
    return tokens.reshape(n, units, 4, -1, dims).amax(dim=2)


def _permuted(tokens: Tensor, digits: Sequence[int], order: Sequence[int]) -> Tensor:
    """Permutes the digits of the tokens' numbers, (N, U, T, C) -> (N, U, T, C)."""
    # `unflatten` of two axes of any size is not exported correctly to ONNX.
    n, units, _, dims = tokens.shape
    tokens = tokens.reshape(n, units, *digits, dims).permute(*order)
    return tokens.reshape(n, units, -1, dims)


def _bits(tokens: Tensor) -> tuple[list[int], list[int]]:
    """Sizes of the binary digits of row and column, and their order when unrolled."""
    # An integer under torch.jit.trace, too, where sizes are tensors.
    count = (int(tokens.shape[2]).bit_length() - 1) // 2
    # Row by row, the highest digit of the row comes first, the column's lowest last.
    # The leading 1 is there for units of one token, which have no digits.
    pairs = [(2 + count - k, 2 + 2 * count - k) for k in range(count)]
    order = [0, 1, 2, *(dim for pair in pairs for dim in pair), 2 * count + 3]
    return [1] + [2] * (2 * count), order
