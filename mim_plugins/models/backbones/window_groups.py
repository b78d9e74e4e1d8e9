"""Attention inside windows of which only some tokens are visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmpretrain.models.utils import WindowMSA
from torch import Tensor
from torch.nn import functional as F

from ..attention import attention
from ..masking import to_device


@dataclass(frozen=True)
class WindowGroups:
    """Visible tokens packed into groups of equal size, complete windows at a time.

    Windows of which masking leaves a few tokens share a group, in which attention
    stays inside each window: about as few pairs as windows have, in one dense product
    (LocalMIM's Swin encoder, after GreenMIM, https://arxiv.org/abs/2205.13515, section
    3.2, whose packing by dynamic programming gives the same values). A group's unused
    places hold copies of token 0 that attend to each other alone.

    Args:
        slots: Token in each place of the groups, (num_groups * size,), int64.
        places: Place of each token, (num_tokens,), int64.
        unused: Places that hold no token, int64.
        pairs: Row of the relative position table for each pair in a group, query
            minus key, (num_groups, size, size), int64; one past the table for pairs
            that do not meet, two past it for unused places.
    """

    slots: Tensor
    places: Tensor
    unused: Tensor
    pairs: Tensor

    @classmethod
    def pack(
        cls,
        coordinates: np.ndarray,
        samples: np.ndarray,
        window_size: int,
        shift: int,
        device: torch.device | str,
    ) -> WindowGroups:
        """Packs tokens by their place in the map.

        Args:
            coordinates: Row and column of each token, (num_tokens, 2).
            samples: Image that each token is of, (num_tokens,); windows of different
                images are different windows.
            window_size: Height and width of the windows, in tokens.
            shift: How far the windows are shifted, in tokens; as masked shifted
                windows do, those at the border are smaller.
            device: Where the indices are needed.
        """
        window = (coordinates + (window_size - shift) % window_size) // window_size
        columns = int(window[:, 1].max()) + 1
        rows = int(window[:, 0].max()) + 1
        number = (samples * rows + window[:, 0]) * columns + window[:, 1]
        _, window_of, sizes = np.unique(number, return_inverse=True, return_counts=True)
        size = int(sizes.max())
        group, start = pack_windows(sizes, size)
        # Tokens window by window, and how many of its window come before each.
        order = np.argsort(window_of, kind="stable")
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.empty_like(order)
        places[order] = (group * size + start)[window_of[order]] + rank
        slots = np.full((int(group.max()) + 1) * size, -1)
        slots[places] = np.arange(len(places))
        return cls._on_device(
            slots, places, coordinates, window_of, size, window_size, device
        )

    @classmethod
    def _on_device(
        cls,
        slots: np.ndarray,
        places: np.ndarray,
        coordinates: np.ndarray,
        window_of: np.ndarray,
        size: int,
        window_size: int,
        device: torch.device | str,
    ) -> WindowGroups:
        """Builds the pairs on the device, since they are the largest part."""
        unused = np.flatnonzero(slots < 0)
        slots = np.maximum(slots, 0)
        window = window_of[slots]
        window[unused] = -1
        held = np.column_stack([coordinates[slots], window])
        row, column, own = (
            to_device(torch.from_numpy(held), device).view(-1, size, 3).unbind(dim=-1)
        )
        width = 2 * window_size - 1
        pairs = (row[:, :, None] - row[:, None] + window_size - 1) * width + (
            column[:, :, None] - column[:, None] + window_size - 1
        )
        empty = (own < 0)[:, :, None] & (own < 0)[:, None]
        apart = own[:, :, None] != own[:, None]
        pairs = torch.where(apart, width**2, torch.where(empty, width**2 + 1, pairs))
        return cls(
            to_device(torch.from_numpy(slots), device),
            to_device(torch.from_numpy(places), device),
            to_device(torch.from_numpy(unused), device),
            pairs,
        )

    def bias(self, table: Tensor) -> Tensor:
        """Attention bias of every group, (1, num_groups * heads, size, size).

        Args:
            table: Relative position biases, ((2 * window_size - 1)**2, heads).
        """
        heads = table.shape[1]
        apart, empty = table.new_full((1, heads), -torch.inf), table.new_zeros(1, heads)
        table = torch.cat([table, apart, empty])
        bias = F.embedding(self.pairs, table)  # (num_groups, size, size, heads)
        return bias.permute(0, 3, 1, 2).flatten(0, 1)[None]

    def attend(self, msa: WindowMSA, tokens: Tensor) -> Tensor:
        """Attention of mmpretrain's ``WindowMSA`` inside the windows.

        Args:
            msa: The attention layer; its windows need not be full.
            tokens: (B, num_tokens, C); the groups are the same for all B.

        Returns:
            (B, num_tokens, C), in the same order.
        """
        batch, _, dims = tokens.shape
        groups, size, _ = self.pairs.shape
        heads = msa.num_heads
        held = _Reorder.apply(tokens, self.slots, self.places, None)
        qkv = msa.qkv(held).view(batch, groups, size, 3, heads, dims // heads)
        # (3, B, num_groups * heads, size, C / heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        out = attention(
            query,
            key,
            value,
            dropout_p=msa.attn_drop.p if msa.training else 0.0,
            bias=self.bias(msa.relative_position_bias_table),
            scale=msa.scale,
        )
        out = out.unflatten(1, (groups, heads)).transpose(2, 3)
        out = out.reshape(batch, groups * size, dims)
        out = _Reorder.apply(out, self.places, self.slots, self.unused)
        return msa.proj_drop(msa.proj(out))


class _Reorder(torch.autograd.Function):
    """Picks tokens (B, L, C) by an index that names each real one exactly once.

    Its backward pass is a pick by the inverse index, where autograd's would be a
    scatter-add, several times slower on the CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, order: Tensor, inverse: Tensor, unread: Tensor | None
    ) -> Tensor:
        """Picks along dimension 1.

        Args:
            ctx: torch's context.
            tokens: (B, L, C).
            order: Which token comes where.
            inverse: Where each of the L tokens went.
            unread: Tokens that ``order`` does not name, whose gradient is zero.
        """
        ctx.save_for_backward(inverse, unread)
        return tokens.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Puts the gradients back."""
        inverse, unread = ctx.saved_tensors
        grad = grads[0].index_select(1, inverse)
        if unread is not None and len(unread):
            grad.index_fill_(1, unread, 0)
        return grad, None, None, None


def pack_windows(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs windows into few groups: largest first, each where it fits tightest.

    Windows of one size and groups with one amount of room are dealt with together, so
    the time depends on the capacity, not on the number of windows.

    Args:
        sizes: Tokens of each window, at most ``capacity``.
        capacity: Tokens of a group.

    Returns:
        Group of each window, counted from 0, and how many tokens of the group come
        before it.
    """
    group = np.empty(len(sizes), dtype=np.int64)
    start = np.empty(len(sizes), dtype=np.int64)
    room = np.empty(0, dtype=np.int64)  # of each open group
    for size in np.unique(sizes)[::-1]:
        members = np.flatnonzero(sizes == size)
        # Each open group takes as many as fit, the fullest first.
        order = np.argsort(room, kind="stable")
        takers = np.repeat(order, room[order] // size)[: len(members)]
        per_group = capacity // size
        opened = -(-(len(members) - len(takers)) // per_group)
        fresh = np.repeat(np.arange(len(room), len(room) + opened), per_group)
        takers = np.concatenate([takers, fresh])[: len(members)]
        room = np.concatenate([room, np.full(opened, capacity)])
        taken = np.bincount(takers, minlength=len(room))
        first = np.cumsum(taken) - taken
        by_group = np.sort(takers)
        group[members] = by_group
        rank = np.arange(len(members)) - first[by_group]
        start[members] = capacity - room[by_group] + rank * size
        room = room - taken * size
    return group, start
