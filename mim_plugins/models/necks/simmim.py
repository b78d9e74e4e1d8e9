"""SimMIM's decoder, for encoders that read mask tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..masking import PatchMask
from ..protocols import LevelNeck, MaskedEncoder, NeckPlan
from ..specs import LevelSpec
from ..targets.cells import cells_by_patch


@MODELS.register_module()
class SimMIMDecoder(LevelNeck):
    """Predicts the cells of a target from the output map of a SimMIM encoder.

    The encoder has read mask tokens, so nothing is added here: a narrow linear layer,
    Swin blocks on the complete map, and a 1x1 convolution, which is computed for the
    tokens of removed cells alone. Without blocks it is mmpretrain's
    ``SimMIMLinearDecoder``. Layers keep torch's default initialisation.

    Args:
        grid: Rows and columns of the mask's grid.
        in_dims: Width of the latent, a list of one.
        out_dims: Width of the prediction of a mask's cell, of all its tokens together;
            an integer or a list of one.
        level_scale: Tokens of the latent per cell of the mask and axis; there is one
            prediction for each.
        latent_norm: Whether the latent is un-normed.
        embed_dims: Width of the blocks.
        depth: Number of Swin blocks, every second one shifted; 0 for SimMIM's own
            head, which reads the latent as it is.
        num_heads: Attention heads of the blocks.
        window_size: Side of their windows in tokens, or the map's shorter side where
            that is smaller.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        norm_cfg: Norm layer.
        init_cfg: As mmengine's.

    References:
        - SimMIM: A Simple Framework for Masked Image Modeling, 2021,
          https://arxiv.org/abs/2111.09886, section 3
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210,
          its released code: width 96, one block of 3 heads

    Raises:
        ValueError: If widths do not divide, or windows do not cover the map.
    """

    decodes_masked_tokens = True
    num_levels = 1

    def __init__(
        self,
        grid: tuple[int, int],
        in_dims: Sequence[int],
        out_dims: int | Sequence[int],
        level_scale: int = 1,
        latent_norm: bool = False,
        embed_dims: int = 96,
        depth: int = 1,
        num_heads: int = 3,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type="LN")
        self.grid = (grid[0], grid[1])
        (width,) = in_dims
        (out,) = [out_dims] if isinstance(out_dims, int) else out_dims
        self.out_dims = [out]
        self.level_scale = level_scale
        tokens = level_scale**2
        if out % tokens:
            raise ValueError(
                f"out_dims={out} does not divide by the {tokens} tokens that the "
                "latent has in each of the mask's cells"
            )
        self.norm = build_norm_layer(norm_cfg, width) if latent_norm else nn.Identity()
        self.decoder_embed: nn.Module = nn.Identity()
        self.decoder_blocks: Any = nn.ModuleList()
        if depth:
            if embed_dims % num_heads:
                raise ValueError(
                    f"embed_dims={embed_dims} does not divide by num_heads={num_heads}"
                )
            self.decoder_embed = nn.Linear(width, embed_dims)
            self.window_size = min(window_size, *self._map_size(self.grid))
            self._check_windows(self.grid)
            self.decoder_blocks.extend(
                SwinBlock(
                    embed_dims,
                    num_heads,
                    window_size=self.window_size,
                    shift=index % 2 == 1,
                    ffn_ratio=mlp_ratio,
                    norm_cfg=norm_cfg,
                )
                for index in range(depth)
            )
            width = embed_dims
        self.decoder_pred = nn.Conv2d(width, out // tokens, kernel_size=1)

    @classmethod
    def plan(cls, encoder: MaskedEncoder) -> NeckPlan:
        """One target, with a cell for each token of the latent."""
        plan = super().plan(encoder)
        (scale,) = encoder.level_scales or (1,)
        own = dict(level_scale=scale, latent_norm=not encoder.latent_is_normed)
        return replace(plan, arguments={**plan.arguments, **own})

    def check_target(self, level: int, target: LevelSpec) -> None:
        """Checks that a target has one cell for each token.

        Raises:
            ValueError: If it has another number.
        """
        if target.scale != self.level_scale:
            raise ValueError(
                f"the latent has {self.level_scale}x{self.level_scale} tokens in each "
                f"of the mask's cells, the target {target.scale:g}x{target.scale:g} "
                "cells: set the target's cell_size to the pixels of a token, the side "
                f"of the mask's cells divided by {self.level_scale}"
            )

    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts the cells of the target.

        Args:
            latents: One (N, rows * t * cols * t, C), all tokens in raster order.
            mask: The mask the encoder saw.
            masked_only: Predict removed cells alone, in the order of
                ``mask.ids_masked``; otherwise every cell in raster order.

        Returns:
            One prediction, (N, L_mask or L, out_dims), a cell's tokens row by row.

        Raises:
            ValueError: If windows do not cover the map.
        """
        (tokens,) = latents
        size = self._map_size(mask.grid)
        tokens = self.decoder_embed(self.norm(tokens))
        if len(self.decoder_blocks):
            self._check_windows(mask.grid)
        for block in self.decoder_blocks:
            tokens = block(tokens, size)
        cells = cells_by_patch(tokens.unflatten(1, size), self.level_scale)
        if masked_only:
            cells = mask.masked(cells)
        conv = self.decoder_pred
        each = cells.unflatten(2, (self.level_scale**2, -1))
        return [F.linear(each, conv.weight.flatten(1), conv.bias).flatten(2)]

    def _map_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the latent's map."""
        return grid[0] * self.level_scale, grid[1] * self.level_scale

    def _check_windows(self, grid: tuple[int, int]) -> None:
        """Checks that complete windows cover the map.

        Raises:
            ValueError: If they do not.
        """
        size = self._map_size(grid)
        if any(side % self.window_size for side in size):
            raise ValueError(
                f"the decoder has a map of {size[0]}x{size[1]} tokens, which windows "
                f"of {self.window_size} do not divide: set the neck's window_size to "
                "one that does, such as the encoder's"
            )
