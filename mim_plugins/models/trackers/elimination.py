"""Candidate elimination: search tokens that the template does not attend to go."""

from __future__ import annotations

import math

import torch
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor

from ..attention import attention, attention_logits


def central_token(grid: tuple[int, int]) -> int:
    """Index of the token at the centre of a template, up and left where it is even.

    It is token (3, 3) of 8 x 8 and of 7 x 7 tokens, OSTrack's ``CTR_POINT``.
    """
    rows, cols = grid
    return (rows - 1) // 2 * cols + (cols - 1) // 2


def attend_and_score(
    attn: MultiheadAttention, tokens: Tensor, query: int, num_template: int
) -> tuple[Tensor, Tensor]:
    """Self-attention as mmpretrain's, and the attention that search tokens get.

    Args:
        attn: The layer.
        tokens: Template tokens, then search tokens, (N, L, C).
        query: The template token whose attention counts.
        num_template: Number of template tokens.

    Returns:
        The layer's output, (N, L, C), and the attention from ``query`` to each search
        token, the mean over the heads, (N, L - num_template), without gradient.
    """
    qkv = attn.qkv(tokens).unflatten(-1, (3, attn.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, heads, L, C / heads) each
    with torch.no_grad():
        # Of one query: L weights per head, where all of them would be L * L.
        weights = attention_logits(q[:, :, query : query + 1].float(), k.float())
        scores = weights.softmax(dim=-1)[:, :, 0, num_template:].mean(dim=1)
    out = attention(q, k, v, attn.attn_drop if attn.training else 0.0)
    out = attn.proj_drop(attn.proj(out.transpose(1, 2).flatten(2)))
    return attn.out_drop(attn.gamma1(out)), scores


def eliminate(
    search: Tensor, places: Tensor, scores: Tensor, keep_rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Keeps the search tokens with the highest scores, in their order.

    Args:
        search: (N, n, C).
        places: Where each of them is in the search map, (N, n).
        scores: (N, n).
        keep_rate: Share that is kept, rounded up.

    Returns:
        The kept tokens, their places, and the places of the others.
    """
    count = math.ceil(keep_rate * search.shape[1])
    if count == search.shape[1]:
        return search, places, places[:, :0]
    order = scores.sort(dim=1, descending=True).indices
    kept, others = order[:, :count], order[:, count:]
    index = kept.unsqueeze(-1).expand(-1, -1, search.shape[2])
    return search.gather(1, index), places.gather(1, kept), places.gather(1, others)


def restore(search: Tensor, places: Tensor, length: int) -> Tensor:
    """Puts search tokens back to their places, zeros elsewhere: (N, length, C)."""
    index = places.unsqueeze(-1).expand(-1, -1, search.shape[2])
    empty = search.new_zeros(search.shape[0], length, search.shape[2])
    return empty.scatter(1, index, search)


def keep_rate_at(epoch: int, start: int, end: int, final: float) -> float:
    """The share of search tokens that training keeps in an epoch.

    All before ``start``, ``final`` from ``end`` on, half a cosine in between.
    """
    if epoch < start:
        return 1.0
    if epoch >= end:
        return final
    progress = (epoch - start) / (end - start)
    return final + (1 - final) * (math.cos(math.pi * progress) + 1) / 2
