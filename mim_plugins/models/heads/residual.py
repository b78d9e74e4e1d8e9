"""The loss of paired predictions: a main part and its residual."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor

from ..targets import LevelTarget
from .reconstruction import ReconstructionHead


@MODELS.register_module()
class ResidualPairHead(ReconstructionHead):
    """Compares the sum of a shallow and a deep prediction with their target.

    The shallow prediction is the main part of the image, the deep one the residual
    that it leaves; only their sum is supervised, and nothing separates the two (MIRL,
    section 3 of https://arxiv.org/abs/2309.14136). The total is the mean over pairs,
    weighted where ``weights`` are given. Arguments as :class:`ReconstructionHead`,
    with pairs for levels, the outermost pair (shallowest and deepest) first.
    """

    predictions_per_target = 2

    def loss(
        self, predictions: Sequence[Tensor], targets: Sequence[LevelTarget]
    ) -> dict[str, Tensor]:
        """Computes the losses, in float32 also under autocast.

        Args:
            predictions: One (N, K, D) per decoder, shallow to deep.
            targets: One target for all pairs, or one per pair.

        Returns:
            ``{'loss': ...}`` for one pair, else ``{'loss_0': ..., 'loss_1': ...}``,
            each its share of the mean; mmengine sums them.
        """
        sums = [main.float() + rest.float() for main, rest in pair_up(predictions)]
        losses = super().loss(sums, targets)
        return {name: loss / len(losses) for name, loss in losses.items()}


def pair_up(predictions: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs the first with the last, the second with the last but one, and so on."""
    half = len(predictions) // 2
    return list(zip(predictions[:half], predictions[: half - 1 : -1], strict=True))
