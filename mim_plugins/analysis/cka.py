"""Linear CKA: how alike the representations of two layers are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .feature_store import FeatureStore

# The unbiased estimate divides by n (n - 3).
MIN_BATCH = 4


class MinibatchCKA:
    """Linear CKA between the layers of one or two models, batch by batch.

    For every pair of layers the unbiased HSIC of the two Gram matrices is summed over
    batches, each with the same weight: "Do Wide and Deep Networks Learn the Same
    Things?" (2020, https://arxiv.org/abs/2010.15327, equations 2 and 3), as in the
    official code of "An Experimental Study on Exploring Strong Lightweight Vision
    Transformers" (2024, https://arxiv.org/abs/2404.12210). Memory does not depend on
    the number of batches, and a batch costs one Gram matrix per layer.

    Args:
        first: Layers of the first model.
        second: Layers of the second model.
    """

    def __init__(self, first: int, second: int) -> None:
        self.between = torch.zeros(first, second, dtype=torch.float64)
        self.within_first = torch.zeros(first, dtype=torch.float64)
        self.within_second = torch.zeros(second, dtype=torch.float64)
        self.batches = 0

    def update(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """Adds a batch.

        Args:
            first: One tensor per layer of the first model, (N, ...).
            second: Likewise of the second model, of the same images; the same list for
                one model.

        Raises:
            ValueError: If the batch has fewer than four images.
        """
        rows = torch.stack([u_centred_gram(layer) for layer in first])
        cols = (
            rows
            if second is first
            else torch.stack([u_centred_gram(layer) for layer in second])
        )
        n = len(first[0])
        rows, cols = rows.flatten(1), cols.flatten(1)
        scale = 1 / (n * (n - 3))
        self.between += (rows @ cols.T * scale).cpu()
        self.within_first += (rows.square().sum(1) * scale).cpu()
        self.within_second += (cols.square().sum(1) * scale).cpu()
        self.batches += 1

    def compute(self) -> Tensor:
        """The CKA of every pair of layers, (first, second), float64."""
        return self.between / torch.outer(self.within_first, self.within_second).sqrt()


def u_centred_gram(features: Tensor) -> Tensor:
    """The U-centred Gram matrix of features (N, ...), (N, N), float64.

    The unbiased HSIC of two layers is the inner product of theirs, divided by
    ``N (N - 3)``: "Partial Distance Correlation with Methods for Dissimilarities"
    (2014, https://arxiv.org/abs/1310.2926, definition 2).

    Raises:
        ValueError: If N is less than four.
    """
    n = len(features)
    if n < MIN_BATCH:
        raise ValueError(
            f"the unbiased HSIC needs batches of at least {MIN_BATCH} images, got {n}"
        )
    rows = features.flatten(1).float()
    gram = (rows @ rows.T).double().fill_diagonal_(0)
    sums = gram.sum(dim=1)
    gram -= (sums[:, None] + sums[None, :]) / (n - 2)
    gram += sums.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0)


def linear_cka(first: FeatureStore, second: FeatureStore) -> Tensor:
    """The exact linear CKA of every pair of layers, over all images together.

    ``|Y^T X|^2 / (|X^T X| |Y^T Y|)`` of column-centred features: "Similarity of Neural
    Network Representations Revisited" (2019, https://arxiv.org/abs/1905.00414, section
    3). Products are summed up chunk by chunk, one layer of the first model after the
    other: memory depends neither on the number of images nor on that of pairs.

    Args:
        first: Features of the first model.
        second: Features of the second model, of the same images; the same for one.

    Returns:
        (layers of first, layers of second), float64.
    """
    rows = []
    for index, own in enumerate(_own_norms(first)):
        span = _span(first, index)
        product = torch.zeros(1, 1, dtype=torch.float64)
        pairs = zip(
            first.chunks(centred=True), second.chunks(centred=True), strict=True
        )
        for x, y in pairs:
            product = product + (x[:, span].T @ y).double()
        squares = product.square().sum(dim=0).split(second.widths)
        rows.append(torch.stack([part.sum() for part in squares]) / own)
    return torch.stack(rows) / _own_norms(second)


def _own_norms(features: FeatureStore) -> Tensor:
    """``|X^T X|`` of every layer, (layers,)."""
    norms = []
    for index in range(len(features)):
        span = _span(features, index)
        product = torch.zeros(1, 1, dtype=torch.float64)
        for rows in features.chunks(centred=True):
            product = product + (rows[:, span].T @ rows[:, span]).double()
        norms.append(product.norm())
    return torch.stack(norms)


def _span(features: FeatureStore, index: int) -> slice:
    """Columns of a layer."""
    start = sum(features.widths[:index])
    return slice(start, start + features.widths[index])
