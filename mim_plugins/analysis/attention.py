"""What the attention of a layer looks at: distance, entropy, diversity of heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Least probability in the divergence of heads.
_MIN_PROBABILITY = 1e-8

# MAE-Lite's published figures count 14 pixels per patch, whose patches have 16, and add
# a small number inside the logarithm.
PAPER_PATCH = 14
PAPER_EPS = 1e-6


class HeadStatistics(NamedTuple):
    """Means over images and queries, for every head of a layer.

    Args:
        distance: Mean distance between a query and what it attends to, in pixels,
            (heads,).
        entropy: Of the attention of a query, in nats, (heads,).
        divergence: Mean Kullback-Leibler divergence from the other heads, (heads,);
            NaN for a single head.
    """

    distance: Tensor
    entropy: Tensor
    divergence: Tensor


class AttentionStatistics:
    """Sums up the attention of one layer over batches of images.

    Only attention between patches counts: class tokens are dropped before the softmax,
    which equals dropping them from the probabilities and renormalising. Memory does not
    depend on the number of images.

    Args:
        distances: Between queries and keys, in pixels, (L_q, L_k), see
            :func:`grid_distances`.
        paper_figures: Compute what the figures of "An Experimental Study on Exploring
            Strong Lightweight Vision Transformers" (2024,
            https://arxiv.org/abs/2404.12210) show: every batch has the same weight,
            however many images it holds, and the entropy has 1e-6 inside its logarithm.
            (The distances in units of 14 pixels are the caller's.)
    """

    def __init__(self, distances: Tensor, paper_figures: bool = False) -> None:
        self.distances = distances
        self.paper_figures = paper_figures
        self.weight = 0.0
        self._distance = self._entropy = self._cross = torch.zeros(())

    def update(self, logits: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: Before the softmax, (N, heads, L_q, L_k), of patches alone; -inf
                where a pair does not meet.
        """
        probabilities = logits.float().softmax(dim=-1)
        weight = 1.0 if self.paper_figures else float(len(logits))
        entropies = entropy(probabilities, PAPER_EPS if self.paper_figures else 0.0)
        distances = (probabilities * self.distances.to(probabilities)).sum(dim=-1)
        self._entropy = self._entropy + weight * _per_head(entropies)
        self._distance = self._distance + weight * _per_head(distances)
        self._cross = self._cross + weight * _cross_entropies(probabilities)
        self.weight += weight

    def compute(self) -> HeadStatistics:
        """The means over everything that was added."""
        cross = self._cross / self.weight
        heads = len(cross)
        divergence = (cross - cross.diagonal()[:, None]).sum(dim=1) / (heads - 1)
        if heads == 1:
            divergence = torch.full((1,), torch.nan, dtype=torch.float64)
        return HeadStatistics(
            self._distance / self.weight, self._entropy / self.weight, divergence
        )


def entropy(probabilities: Tensor, eps: float = 0.0) -> Tensor:
    """Entropy over the last dimension, in nats.

    Args:
        probabilities: (..., L).
        eps: Added inside the logarithm.
    """
    if not eps:
        return torch.special.entr(probabilities).sum(dim=-1)
    return -(probabilities * (probabilities + eps).log()).sum(dim=-1)


def grid_distances(grid: tuple[int, int], patch_size: tuple[int, int]) -> Tensor:
    """Distances between the centres of patches, (L, L), float64.

    Args:
        grid: Rows and columns of patches.
        patch_size: Height and width of a patch in pixels.
    """
    rows = torch.arange(grid[0], dtype=torch.float64) * patch_size[0]
    cols = torch.arange(grid[1], dtype=torch.float64) * patch_size[1]
    centres = torch.cartesian_prod(rows, cols)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine between the tokens of an image, over all pairs, (N,), float64.

    Args:
        tokens: Patch tokens, (N, L, C), L > 1.
    """
    length = tokens.shape[1]
    directions = torch.nn.functional.normalize(tokens.double(), dim=-1)
    total = directions.sum(dim=1).square().sum(dim=-1)
    own = directions.square().sum(dim=(1, 2))
    return (total - own) / (length * (length - 1))


def _per_head(values: Tensor) -> Tensor:
    """(N, heads, L_q) -> mean of every head, float64."""
    return values.double().mean(dim=(0, 2)).cpu()


def _cross_entropies(probabilities: Tensor) -> Tensor:
    """-sum_k P_h ln P_h' for all pairs of heads, mean over queries, (heads, heads)."""
    clamped = probabilities.clamp_min(_MIN_PROBABILITY)
    by_head = clamped.transpose(0, 1).flatten(1)
    queries = by_head.shape[1] // probabilities.shape[-1]
    return -(by_head @ by_head.log().T).double().cpu() / queries
