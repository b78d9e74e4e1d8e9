"""Pixels of the removed patches as targets, raw or normalised per patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ..masking import PatchMask
from ..patches import patchify
from .base import ImageSpec, LevelSpec, LevelTarget, Target


@MODELS.register_module()
class PixelTarget(Target):
    """The pixels of each removed patch (MAE, section 3; DeepMIM, section 3.1).

    Args:
        norm_pix: Subtract each patch's mean and divide by its standard deviation
            (MAE, "simple implementation"), ``(t - mean) / sqrt(var + eps)`` with
            the unbiased variance.
        eps: Added to the variance, so that a constant patch gives 0.
    """

    def __init__(self, norm_pix: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm_pix = norm_pix
        self.eps = eps

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """Every pixel of a patch, p*q*C values."""
        return [
            LevelSpec(images.patch_size[0] * images.patch_size[1] * images.channels)
        ]

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Cuts the removed patches out of the images, (N, L_mask, p*q*C)."""
        patches = mask.masked(patchify(inputs, mask.grid)).float()
        if self.norm_pix:
            mean, std = self.statistics(patches)
            patches = (patches - mean) / std
        return [LevelTarget(patches)]

    def statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each patch, (..., 1)."""
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """Undoes ``norm_pix`` with the statistics of the true patches."""
        if not self.norm_pix:
            return list(predictions)
        mean, std = self.statistics(patches)
        return [prediction * std + mean for prediction in predictions]
