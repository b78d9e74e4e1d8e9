"""The reconstruction loss over levels."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from ..arguments import as_numbers
from ..targets import LevelTarget


def _cosine(prediction: Tensor, target: Tensor) -> Tensor:
    return 2 - 2 * F.cosine_similarity(prediction, target, dim=-1)


def _l1(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none").mean(dim=-1)


def _l2(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction, target, reduction="none").mean(dim=-1)


def _smooth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(prediction, target, reduction="none").mean(dim=-1)


# Each compares (N, K, D) with (N, K, D) and returns one value per position, (N, K).
CRITERIA = {"L1": _l1, "L2": _l2, "smooth_l1": _smooth_l1, "cosine": _cosine}


@MODELS.register_module()
class ReconstructionHead(BaseModule):
    """Compares each level's prediction with its target on the removed patches.

    A level's loss is the mean over the channels of a patch, then over the removed
    patches of the batch; since every image loses the same number of patches, that is
    the plain mean over the masked tokens that the decoders return. Where a cell pools
    several patches, each cell is weighted by the share of them that was removed. The
    total is the weighted sum over levels (DeepMIM, section 3: all weights 1, constant).

    Args:
        criterion: ``'L2'``, ``'L1'``, ``'smooth_l1'`` or ``'cosine'``, which is
            2 - 2 cos (DeepMIM's official loss on CLIP features); one for all levels,
            or one per level.
        weights: One weight per level; all 1 by default.

    Raises:
        ValueError: If a criterion is unknown, or ``weights`` are not numbers.
    """

    predictions_per_target = 1

    def __init__(
        self,
        criterion: str | Sequence[str] = "L2",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        several = isinstance(criterion, Sequence) and not isinstance(criterion, str)
        names: list = list(criterion) if several else [criterion]
        for name in names:
            if not isinstance(name, str) or name not in CRITERIA:
                raise ValueError(
                    f"unknown criterion {name!r}: choose one of {sorted(CRITERIA)} for "
                    "all levels, or a list with one per level"
                )
        self.criterion = names if several else names[0]
        self.weights = (
            None
            if weights is None
            else as_numbers("weights", weights, "a list with one number per level")
        )

    def check_levels(self, num_levels: int) -> None:
        """Checks the per-level settings against the number of levels.

        Raises:
            ValueError: If a list is longer or shorter.
        """
        if self.weights is not None and len(self.weights) != num_levels:
            raise ValueError(
                f"the head has {len(self.weights)} loss weights for {num_levels} levels"
            )
        if not isinstance(self.criterion, str) and len(self.criterion) != num_levels:
            raise ValueError(
                f"the head has {len(self.criterion)} criteria for {num_levels} levels: "
                "give one per level, or one name for all"
            )

    def loss(
        self, predictions: Sequence[Tensor], targets: Sequence[LevelTarget]
    ) -> dict[str, Tensor]:
        """Computes the losses, in float32 also under autocast.

        Args:
            predictions: One (N, K, D) per level, shallow to deep.
            targets: One target for all levels, or one per level, shaped likewise.

        Returns:
            ``{'loss': ...}`` for one level, else ``{'loss_0': ..., 'loss_1': ...}``,
            shallow to deep; mmengine sums them.
        """
        num_levels = len(predictions)
        if len(targets) == 1:
            targets = [targets[0]] * num_levels
        criteria = (
            [self.criterion] * num_levels
            if isinstance(self.criterion, str)
            else self.criterion
        )
        weights = self.weights or [1.0] * num_levels
        losses = [
            weight * level_loss(criterion, prediction, target)
            for criterion, weight, prediction, target in zip(
                criteria, weights, predictions, targets, strict=True
            )
        ]
        if num_levels == 1:
            return {"loss": losses[0]}
        return {f"loss_{level}": loss for level, loss in enumerate(losses)}


def level_loss(criterion: str, prediction: Tensor, target: LevelTarget) -> Tensor:
    """The loss of one level: the weighted mean over its positions."""
    values = CRITERIA[criterion](prediction.float(), target.values.float())
    if target.weights is None:
        return values.mean()
    return (values * target.weights).sum() / target.weights.sum()
