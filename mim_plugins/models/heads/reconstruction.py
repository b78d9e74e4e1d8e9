"""The reconstruction loss over levels."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

CRITERIA = {"L1": F.l1_loss, "L2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


@MODELS.register_module()
class ReconstructionHead(BaseModule):
    """Compares each level's prediction with its target on the removed patches.

    A level's loss is the mean over the channels of a patch, then over the removed
    patches of the batch; since every image loses the same number of patches, that
    is the plain mean over the tail the decoders return. The total is the weighted
    sum over levels (DeepMIM, section 3: all weights 1, constant).

    Args:
        criterion: ``'L2'``, ``'L1'`` or ``'smooth_l1'``.
        weights: One weight per level; all 1 by default.

    Raises:
        ValueError: If the criterion is unknown.
    """

    def __init__(
        self, criterion: str = "L2", weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise ValueError(
                f"unknown criterion {criterion!r}: choose one of {sorted(CRITERIA)}"
            )
        self.criterion = criterion
        self.weights = None if weights is None else list(weights)

    def loss(
        self, predictions: Sequence[Tensor], targets: Tensor | Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Computes the losses, in float32 also under autocast.

        Args:
            predictions: One (N, L_mask, D) per level, shallow to deep.
            targets: One target for all levels, or one per level, shaped likewise.

        Returns:
            ``{'loss': ...}`` for one level, else ``{'loss_0': ..., 'loss_1': ...}``,
            shallow to deep; mmengine sums them.
        """
        if isinstance(targets, Tensor):
            targets = [targets] * len(predictions)
        weights = self.weights or [1.0] * len(predictions)
        compare = CRITERIA[self.criterion]
        losses = [
            weight * compare(prediction.float(), target.float())
            for weight, prediction, target in zip(
                weights, predictions, targets, strict=True
            )
        ]
        if len(losses) == 1:
            return {"loss": losses[0]}
        return {f"loss_{level}": loss for level, loss in enumerate(losses)}
