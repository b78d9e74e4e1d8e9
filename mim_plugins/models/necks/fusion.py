"""One decoder for all levels of a hierarchical encoder, fused: MAE on Hiera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..initialisation import is_pretrained
from ..masking import PatchMask
from ..patches import projection_weights
from ..protocols import MaskedEncoder, NeckPlan
from .multi_scale import MultiScaleDecoder


@MODELS.register_module()
class FusionDecoder(MultiScaleDecoder):
    """Fuses the levels of an encoder into one and decodes that.

    Every level is brought to the resolution and the width of the last one by a
    convolution with kernel = stride; their sum is normed and decoded as one level, with
    a learned position embedding. Convolutions stay inside mask units, so they are
    linear layers on the tokens of visible units.

    Args:
        grid: Rows and columns of the mask's grid.
        in_dims: Width of each level's latent, shallow to deep.
        out_dims: Width of the prediction of a mask unit, all its cells together.
        level_scales: Tokens of each level's latent per mask unit and axis, each a
            multiple of the last one.
        scales: Cells of the target per mask unit and axis.
        norm_cfg: Norm layer.
        **kwargs: Further arguments of :class:`MultiScaleDecoder`, such as
            ``embed_dims``, ``depth`` and ``num_heads``.

    References:
        - Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles,
          2023, https://arxiv.org/abs/2306.00989, appendix, and its released code

    Raises:
        ValueError: If the resolution of a level is not a multiple of the last one's;
            see also :class:`MultiScaleDecoder`.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        in_dims: Sequence[int],
        out_dims: int | Sequence[int],
        level_scales: Sequence[int],
        scales: float | Sequence[float] = 1,
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)
        *shallow_dims, dims = in_dims
        *shallow_scales, side = level_scales
        super().__init__(
            grid=grid,
            in_dims=[dims],
            out_dims=out_dims,
            scales=scales,
            level_scales=[side],
            norm_cfg=norm_cfg,
            **kwargs,
        )
        for scale in shallow_scales:
            if scale % side:
                raise ValueError(
                    f"levels of {[*shallow_scales, side]} tokens per mask unit and "
                    "axis cannot be fused: each is a multiple of the last one; choose "
                    "other backbone.taps"
                )
        self.fusion: Any = nn.ModuleList(
            nn.Conv2d(width, dims, scale // side, scale // side)
            for width, scale in zip(shallow_dims, shallow_scales, strict=True)
        )
        self.num_levels = len(in_dims)
        self.fusion_norm = build_norm_layer(norm_cfg, dims)
        decoder = self.decoders[0]
        decoder.pos_embed = nn.Parameter(torch.zeros_like(decoder.pos_embed))

    @classmethod
    def plan(cls, encoder: MaskedEncoder) -> NeckPlan:
        """One target, at its own default scale: all levels are fused into one."""
        return replace(super().plan(encoder), num_targets=1, target_scales=None)

    def init_weights(self) -> None:
        """Initialises as the official code, unless weights were loaded."""
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        nn.init.trunc_normal_(self.decoders[0].mask_token, std=0.02)
        nn.init.trunc_normal_(self.decoders[0].pos_embed, std=0.02)

    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts the cells of the target, see :class:`MultiScaleDecoder`.

        Args:
            latents: One (N, L_vis * t**2, C) per level, t tokens per unit and axis; the
                tokens of a unit follow each other row by row.
            mask: The mask the encoder saw.
            masked_only: As :class:`MultiScaleDecoder`.

        Returns:
            One prediction, (N, L_mask or L, out_dims).
        """
        latent = self.fusion_norm(self.fuse(latents))
        return super().forward([latent], mask, masked_only)

    def fuse(self, latents: Sequence[Tensor]) -> Tensor:
        """Sums all levels at the last one's resolution: (N, L_vis * t**2, C)."""
        *shallow, fused = latents
        for conv, latent in zip(self.fusion, shallow, strict=True):
            fused = fused + self._reduce(latent, conv)
        return fused

    def _reduce(self, latent: Tensor, conv: nn.Conv2d) -> Tensor:
        """A convolution with kernel = stride inside each unit's map."""
        side, kernel = self.level_scales[0], conv.kernel_size[0]
        blocks = latent.unflatten(1, (-1, side, kernel, side, kernel)).transpose(3, 4)
        # (N, L_vis, side, side, kernel, kernel, C)
        blocks = blocks.flatten(4).flatten(1, 3)
        return F.linear(blocks, *projection_weights(conv))
