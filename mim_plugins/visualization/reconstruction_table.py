"""The table of what a model makes of a batch, with the notes to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..models.data_preprocessor import image_statistics
from .drawings import Drawing, draw_levels
from .reconstruction import reconstruction_grid, widened

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel

_VISIBLE = (
    "No loss looks at predictions of visible patches, which therefore look like noise."
)
_WITH_STATISTICS = (
    "norm_pix: predictions have the mean and deviation of each true patch put back, so "
    "that even a prediction of zero resembles the image. Without them: "
)
_WITHOUT_STATISTICS = (
    "norm_pix: target and predictions as the loss compares them, every patch of the "
    "target with mean 0 (the mean colour here) and deviation 1."
)


class ReconstructionTable:
    """Draws what a model makes of a batch of images, whatever it predicts.

    Args:
        model: The model.
        inputs: Normalised images, (N, C, H, W).
        result: What :meth:`MaskedImageModel.reconstruct` has made of them.
        shown: The values of images shown as black and as white.
        patch_statistics: Whether ``result`` has the statistics of the true patches.
        otherwise: How to have it without them, for the note below the picture.
    """

    def __init__(
        self,
        model: MaskedImageModel,
        inputs: Tensor,
        result: dict[str, Any],
        shown: tuple[float, float] = (0.0, 255.0),
        patch_statistics: bool = True,
        otherwise: str = "reconstruct(patch_statistics=False)",
    ) -> None:
        self.levels, drawing_notes = draw_levels(model, inputs, result)
        self.notes = [_VISIBLE, *drawing_notes]
        if model.normalises_patches:
            self.notes.append(
                f"{_WITH_STATISTICS}{otherwise}."
                if patch_statistics
                else _WITHOUT_STATISTICS
            )
        if shown != (0.0, 255.0):
            self.notes.append(f"Black is {shown[0]:.4g}, white {shown[1]:.4g}.")
        mean, std = (
            default if value is None else value.to(inputs.device).float()
            for value, default in zip(
                image_statistics(model.data_preprocessor),
                (inputs.new_zeros(1), inputs.new_ones(1)),
                strict=True,
            )
        )
        mask = result["mask"]
        self._how: dict[str, Any] = dict(
            images=inputs, mask=mask.mask, mean=mean, std=std, grid=mask.grid
        )
        self._how["shown"] = shown
        if not patch_statistics:
            self._how["target"] = result["images"]
        # Tables of some of the levels are as large as those of all.
        self._how["zoom"] = max(
            [
                level.prediction.shape[2] // inputs.shape[2]
                for level in self.levels.values()
                if isinstance(level, Drawing)
            ],
            default=1,
        )

    def draw(self, max_columns: int | None = None) -> np.ndarray:
        """The table as an RGB picture, (height, width, 3), uint8.

        Args:
            max_columns: See :func:`reconstruction_grid`.
        """
        return reconstruction_grid(
            predictions=self.levels,
            notes=self.notes,
            max_columns=max_columns,
            **self._how,
        )

    def frames(self) -> list[np.ndarray]:
        """A table without notes for each level, shallow to deep, all of one size."""
        tables = [
            reconstruction_grid(predictions={name: level}, **self._how)
            for name, level in self.levels.items()
        ]
        return widened(tables)
