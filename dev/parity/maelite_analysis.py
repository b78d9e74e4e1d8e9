"""MAE-Lite's analyses of representations and attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mim_plugins.analysis import AttentionStatistics, MinibatchCKA, grid_distances
from mim_plugins.analysis.attention import PAPER_EPS, PAPER_PATCH, entropy

from .case import GoldenCase
from .vit import Produced


def run_cka(case: GoldenCase) -> Produced:
    """Similarity of layers, and the sums it is made of."""
    first, second = case.inputs["features1"], case.inputs["features2"]
    cka = MinibatchCKA(first.shape[1], second.shape[1])
    arrays: Produced = {}
    for features in zip(first, second, strict=True):
        cka.update(*(list(layers) for layers in features))
        arrays.setdefault("hsic_first", cka.between[0, 0].clone())
    within_first = cka.within_first[:, None].expand_as(cka.between)
    within_second = cka.within_second.expand_as(cka.between)
    sums = torch.stack([within_first, cka.between, within_second], dim=-1)
    return arrays | {"cka": cka.compute(), "hsic_sums": sums}


def run_attention(case: GoldenCase) -> Produced:
    """Distance and entropy of attention as in the published figures."""
    batches = case.inputs["attn_logits"]
    distances = _distances(batches.shape[-1])
    entropies, means = _statistics(batches, distances)
    first = batches[0].softmax(dim=-1)
    arrays: Produced = {
        "dist_matrix": distances,
        "entropy": entropies,
        "distance": means,
        "entropy_b0": entropy(first, PAPER_EPS),
        "distance_b0": (first * distances).sum(dim=-1),
    }
    if "full_logits" in case.inputs:
        # Stored in half precision, with the class token.
        layers = case.inputs["full_logits"].float()[..., 1:, 1:]
        distances = _distances(layers.shape[-1])
        found = [_statistics(layer[None], distances) for layer in layers]
        arrays["full_entropy"] = torch.stack([entropies for entropies, _ in found])
        arrays["full_distance"] = torch.stack([means for _, means in found])
    return arrays


def _statistics(batches: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    statistics = AttentionStatistics(distances, paper_figures=True)
    for logits in batches:
        statistics.update(logits)
    found = statistics.compute()
    return found.entropy, found.distance


def _distances(tokens: int) -> Tensor:
    side = math.isqrt(tokens)
    return grid_distances((side, side), (PAPER_PATCH, PAPER_PATCH))
