"""The base class of targets: widths at build time, values per level in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..masking import PatchMask
from ..specs import ImageSpec, LevelSpec


class LevelTarget(NamedTuple):
    """The target of one level for a batch.

    Args:
        values: Of the removed patches in the order of ``mask.ids_masked``, (N, L_mask,
            width), a patch's cells row by row; or, where a cell pools patches, of
            every cell in raster order, (N, L * scale**2, dims). float32.
        weights: How much each position counts, (N, L_mask or L * scale**2); None if
            all count alike.
    """

    values: Tensor
    weights: Tensor | None = None


class Target(nn.Module):
    """A target of the masked patches.

    A target is one for all levels (lists of length one below) or one per level.
    """

    @abstractmethod
    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """Adapts the target to the encoder's images, once, at build time.

        Returns:
            The shape of the target: one entry for all levels, or one per level.

        Raises:
            ValueError: If the target cannot be made of such images.
        """

    @abstractmethod
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Builds the targets of a batch, without autograd.

        Args:
            inputs: Images as the encoder receives them, (N, C, H, W).
            mask: The mask the encoder sees.

        Returns:
            One entry for all levels, or one per level, as :meth:`prepare`.
        """

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """Predictions as pixels of the input space; None where they are none.

        Args:
            predictions: One (N, L, width) per level, raster order.
            patches: The true patches of :func:`patchify`, (N, L, p*q*C).
        """
        return [None] * len(predictions)

    def at_level(self, level: int) -> tuple[Target, int]:
        """The target of a level, and which of that target's own levels it is."""
        return self, level


class LevelTargets(Target):
    """A different target for each level, built from a list in the config.

    A target named at several levels is built, and computed, once.

    Args:
        targets: One target per level, shallow to deep; the same object may appear
            more than once.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        super().__init__()
        unique = list(dict.fromkeys(targets))
        self.targets: Any = nn.ModuleList(unique)
        self.order = [unique.index(target) for target in targets]

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """Asks every target for its shape.

        Raises:
            ValueError: If a target of the list is itself one of several levels.
        """
        specs = [self._prepare_one(target, images) for target in self.targets]
        return [specs[index] for index in self.order]

    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Computes every target once."""
        results = [target(inputs, mask)[0] for target in self.targets]
        return [results[index] for index in self.order]

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """Each level by its own target."""
        return [
            self.targets[index].denormalise([prediction], patches)[0]
            for index, prediction in zip(self.order, predictions, strict=True)
        ]

    def at_level(self, level: int) -> tuple[Target, int]:
        """The entry of the list."""
        return self.targets[self.order[level]], 0

    @staticmethod
    def _prepare_one(target: Target, images: ImageSpec) -> LevelSpec:
        specs = target.prepare(images)
        if len(specs) != 1:
            raise ValueError(
                f"{type(target).__name__} makes {len(specs)} levels by itself: inside "
                "a list, where every entry is one level, give it single values "
                "instead of sequences; or make it the target_generator by itself"
            )
        return specs[0]
