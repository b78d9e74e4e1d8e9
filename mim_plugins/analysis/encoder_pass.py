"""One pass of images through an encoder, from which every quantity is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .attention import (
    PAPER_PATCH,
    AttentionStatistics,
    HeadStatistics,
    token_similarity,
)
from .blocks import BlockReader, BlockReading
from .feature_store import FeatureStore


class BlockStatistics(NamedTuple):
    """What a pass found of a block.

    Args:
        heads: Attention distance, entropy and divergence of its heads.
        token_similarity: Mean cosine between the patch tokens of an image that leave
            the block.
    """

    heads: HeadStatistics
    token_similarity: float


class EncoderPass:
    """Reads every block of an encoder, batch by batch.

    Memory depends on the size of a batch, not on the number of images; the mean token
    of every image and block is kept on disk.

    Args:
        backbone: The encoder, in evaluation mode.
        encode: Encodes normalised images (N, C, H, W) with nothing masked, and returns
            the normed tokens of the last block, (N, L, C).
        paper_figures: Follow the official code where it differs, see
            :class:`AttentionStatistics`; distances are in units of 14 per patch, and
            features of layers are all of the normed tokens that enter a block, then
            those of the final norm, rather than the mean of the tokens that leave it.

    Attributes:
        store: Mean of the patch tokens that leave each block, of every image.
    """

    def __init__(
        self,
        backbone: Any,
        encode: Callable[[Tensor], Tensor],
        paper_figures: bool = False,
    ) -> None:
        self.reader = BlockReader(backbone)
        self.encode = encode
        self.paper_figures = paper_figures
        self.store = FeatureStore()
        self.images = 0
        self._attention: dict[int, AttentionStatistics] = {}
        self._similarity = torch.zeros(len(self.reader), dtype=torch.float64)

    @property
    def layers(self) -> int:
        """Number of layers whose features :meth:`update` returns."""
        return len(self.reader) + self.paper_figures

    @torch.no_grad()
    def update(self, images: Tensor) -> list[Tensor]:
        """Adds a batch.

        Args:
            images: Normalised images, (N, C, H, W).

        Returns:
            Features of every layer, (N, C), or (N, L * C) of the paper's figures.
        """
        means: list[Tensor] = []
        normed: list[Tensor] = []

        def visit(index: int, block: BlockReading) -> None:
            self._add(index, block)
            means.append(block.tokens.float().mean(dim=1))
            if self.paper_figures:
                normed.append(block.normed.flatten(1))

        height, width = images.shape[-2:]
        with self.reader.reading((height, width), visit):
            last = self.encode(images)
        self.store.append(means)
        self.images += len(images)
        return [*normed, last.flatten(1)] if self.paper_figures else means

    def _add(self, index: int, block: BlockReading) -> None:
        if index not in self._attention:
            distances = block.distances
            if self.paper_figures:
                distances = distances * (PAPER_PATCH / block.stride)
            self._attention[index] = AttentionStatistics(distances, self.paper_figures)
        self._attention[index].update(block.logits)
        if block.tokens.shape[1] > 1:
            self._similarity[index] += token_similarity(block.tokens).sum().cpu()
        else:
            self._similarity[index] = torch.nan

    def compute(self) -> list[BlockStatistics]:
        """The means over everything that was added, one per block."""
        return [
            BlockStatistics(
                self._attention[index].compute(),
                (self._similarity[index] / self.images).item(),
            )
            for index in range(len(self.reader))
        ]
