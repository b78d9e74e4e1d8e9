"""Pixels of the removed patches as targets, raw or normalised per patch."""

from __future__ import annotations

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..masking import PatchMask
from ..patches import patchify


@MODELS.register_module()
class PixelTarget(nn.Module):
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

    def out_dims(self, patch_size: tuple[int, int], in_channels: int) -> int:
        """Width of the target of one patch: every pixel of it."""
        return patch_size[0] * patch_size[1] * in_channels

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> Tensor:
        """Builds the targets of the removed patches.

        Args:
            inputs: Images as the encoder receives them, (N, C, H, W).
            mask: The mask the encoder sees.

        Returns:
            (N, L_mask, p*q*C), float32, in the order of ``mask.ids_masked``.
        """
        patches = mask.masked(patchify(inputs, mask.grid)).float()
        if not self.norm_pix:
            return patches
        mean, std = self.statistics(patches)
        return (patches - mean) / std

    def statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each patch, (..., 1)."""
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + self.eps).sqrt()

    def denormalise(self, predictions: Tensor, patches: Tensor) -> Tensor:
        """Predictions back in the space of the inputs.

        Args:
            predictions: (N, L, p*q*C).
            patches: The true patches, whose statistics undo ``norm_pix``.
        """
        if not self.norm_pix:
            return predictions
        mean, std = self.statistics(patches)
        return predictions * std + mean
