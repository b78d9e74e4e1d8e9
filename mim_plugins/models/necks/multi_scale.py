"""Decoders of levels whose tokens and targets are finer or coarser than the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..activation_checkpointing import checkpoint_activations
from ..masking import PatchMask
from ..position import sincos_position_embedding
from ..protocols import MaskedEncoder, NeckPlan
from ..specs import LevelSpec
from ..targets.cells import cells_by_patch
from .cell_prediction import CellPrediction
from .decoder import LevelDecoder, LevelDecoders

# Cells per patch and axis, shallow to deep, of an encoder with one patch size.
COLUMNAR_SCALES = (4, 2, 1, 0.5)


class ScaledLevelDecoder(LevelDecoder):
    """The decoder of one level with several tokens, or several cells, per patch.

    Args:
        in_dims: Width of the encoder's latent.
        embed_dims: Width of the decoder.
        depth: Number of blocks, at least 1.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        out_dims: Width of the prediction of a cell.
        norm_cfg: Norm layer.
        grid: Rows and columns of the mask's grid.
        tokens: Tokens of the latent per patch and axis.
        scale: Cells of the target per patch and axis.
        num_extra_tokens: 1 if a class token comes first, else 0.
        latent_norm: Whether the latent is un-normed.
        resamples: Whether the prediction is convolutional also where there is one
            cell for each token.
    """

    def __init__(
        self,
        in_dims: int,
        embed_dims: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        out_dims: int,
        norm_cfg: dict,
        grid: tuple[int, int],
        tokens: int,
        scale: float,
        num_extra_tokens: int,
        latent_norm: bool,
        resamples: bool,
    ) -> None:
        super().__init__(
            in_dims, embed_dims, depth, num_heads, mlp_ratio, out_dims, norm_cfg
        )
        self.tokens, self.scale = tokens, scale
        self.grid = grid
        self.num_extra_tokens = num_extra_tokens
        self.latent_norm = (
            build_norm_layer(norm_cfg, in_dims) if latent_norm else nn.Identity()
        )
        ratio = scale / tokens
        if ratio < 1:
            pool = nn.AvgPool2d(round(1 / ratio))
            self.decoder_pred = nn.Sequential(pool, nn.Conv2d(embed_dims, out_dims, 1))
        elif resamples:
            self.decoder_pred = CellPrediction(
                embed_dims, out_dims, int(ratio), norm_cfg
            )
        # Fixed, and in the checkpoint as in the official code.
        self.pos_embed = nn.Parameter(
            sincos_position_embedding(
                self._token_grid(grid), embed_dims, cls_token=num_extra_tokens > 0
            ),
            requires_grad=False,
        )

    def forward(  # type: ignore[override]
        self, latent: Tensor, mask: PatchMask, masked_only: bool
    ) -> Tensor:
        """Predicts the cells of the target, see :class:`MultiScaleDecoder`.

        Args:
            latent: (N, extra + L_vis * t**2, in_dims).
            mask: The mask the encoder saw.
            masked_only: Whether the cells of removed patches are enough.
        """
        pools = self.scale < self.tokens
        # A cell that pools tokens may need visible ones too.
        everything = pools or not masked_only
        patches = mask.num_patches if everything else mask.num_masked
        tokens = self.decode(
            self.latent_norm(latent),
            self._shuffled_positions(mask),
            patches * self.tokens**2,
        )
        if pools:
            return self._pooled(tokens, mask, masked_only)
        cells = self.decoder_pred(tokens)
        cells = self._row_by_row(cells, patches)
        return mask.restore(cells) if everything else cells

    def _row_by_row(self, cells: Tensor, patches: int) -> Tensor:
        """Cells by patch, token and place -> (N, patches, scale**2 * out_dims)."""
        t, ratio = self.tokens, int(self.scale) // self.tokens
        n, out_dims = len(cells), cells.shape[-1]
        blocks = cells.reshape(n, patches, t, t, ratio, ratio, out_dims)
        return blocks.transpose(3, 4).reshape(n, patches, -1)

    def _pooled(self, tokens: Tensor, mask: PatchMask, masked_only: bool) -> Tensor:
        """Pools all tokens, in shuffled order, on their grid, and predicts."""
        n, _, dims = tokens.shape
        t, (rows, cols) = self.tokens, mask.grid
        blocks = mask.restore(tokens.reshape(n, rows * cols, -1))
        # (N, C, rows * t, cols * t)
        image = blocks.view(n, rows, cols, t, t, dims).permute(0, 5, 1, 3, 2, 4)
        cells = self.decoder_pred(image.reshape(n, dims, rows * t, cols * t))
        cells = cells.permute(0, 2, 3, 1)  # (N, rows * scale, cols * scale, out)
        if self.scale < 1:
            return cells.flatten(1, 2)
        by_patch = cells_by_patch(cells, int(self.scale))
        return mask.masked(by_patch) if masked_only else by_patch

    def _shuffled_positions(self, mask: PatchMask) -> Tensor:
        """Position embeddings in shuffled order, (N, extra + L * t**2, C)."""
        extra, t = self.num_extra_tokens, self.tokens
        token_grid = self._token_grid(mask.grid)
        table = resize_pos_embed(
            self.pos_embed,
            self._token_grid(self.grid),
            token_grid,
            num_extra_tokens=extra,
        )
        first, tokens = table.split([extra, token_grid[0] * token_grid[1]], dim=1)
        by_patch = cells_by_patch(tokens.unflatten(1, token_grid), t)
        shuffled = F.embedding(mask.ids_shuffle, by_patch[0])
        shuffled = shuffled.reshape(len(shuffled), -1, table.shape[-1])
        return torch.cat([first.expand(len(shuffled), -1, -1), shuffled], dim=1)

    def _token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] * self.tokens, grid[1] * self.tokens


@MODELS.register_module()
class MultiScaleDecoder(LevelDecoders):
    """Independent decoders whose predictions have a scale of their own (LocalMIM).

    Each level has a small self-attention decoder, run in shuffled order as
    :class:`MIMDecoder`. Where the target has several cells for each token, the
    prediction ends in transposed convolutions, computed for removed patches alone;
    where it has one cell for several tokens, in an average pooling on the grid.

    All arguments from ``grid`` to ``num_extra_tokens`` are filled in by the algorithm
    from its encoder and its targets when they are not given.

    Args:
        grid: Rows and columns of the mask's grid.
        in_dims: Width of each level's latent, shallow to deep.
        out_dims: Width of the prediction of each level: of all cells of a patch, or
            of a cell where cells pool patches.
        scales: Cells of each level's target per patch of the mask and axis.
        level_scales: Tokens of each level's latent per patch of the mask and axis;
            there is 1, 2 or 4 times that number of cells, or an integer fraction of it.
        num_extra_tokens: 1 if latents start with a class token, else 0.
        embed_dims: Width of the decoders, multiples of 4 and of ``num_heads``; one for
            all levels, or one each.
        depth: Blocks of each decoder.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        norm_cfg: Norm layer.
        with_cp: Recompute every decoder in the backward pass instead of keeping its
            activations.
        init_cfg: As mmengine's.

    References:
        - Masked Image Modeling with Local Multi-Scale Reconstruction, 2023,
          https://arxiv.org/abs/2303.05251, section 3

    Note:
        All latents but the last, which is normed, have a norm here. As in the
        released code, predictions are 1x1 convolutions with torch's default
        initialisation if any level of the model resamples (its ViT), and otherwise
        linear layers with MAE's (its Swin).

    Raises:
        ValueError: If an argument has not one entry per level, a level's target
            cannot be reached from its tokens, or a width does not fit.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        in_dims: Sequence[int],
        out_dims: int | Sequence[int],
        scales: float | Sequence[float] = 1,
        level_scales: int | Sequence[int] = 1,
        num_extra_tokens: int = 1,
        embed_dims: int | Sequence[int] = 256,
        depth: int = 1,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)
        if depth < 1:
            raise ValueError(f"a decoder needs at least one block, got depth={depth}")
        self.grid = (grid[0], grid[1])
        self.in_dims = list(in_dims)
        levels = self.num_levels = len(self.in_dims)
        self.out_dims = _per_level("out_dims", out_dims, levels)
        self.scales = _per_level("scales", scales, levels)
        self.level_scales = _per_level("level_scales", level_scales, levels)
        self.embed_dims = _per_level("embed_dims", embed_dims, levels)
        for level in range(levels):
            self._check_level(level, num_heads)
        resamples = self.scales != self.level_scales
        self.decoders: Any = nn.ModuleList(
            ScaledLevelDecoder(
                in_dims=self.in_dims[level],
                embed_dims=self.embed_dims[level],
                depth=depth,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                out_dims=round(self.out_dims[level] / max(self.scales[level], 1) ** 2),
                norm_cfg=norm_cfg,
                grid=self.grid,
                tokens=self.level_scales[level],
                scale=self.scales[level],
                num_extra_tokens=num_extra_tokens,
                latent_norm=level < levels - 1,
                resamples=resamples,
            )
            for level in range(levels)
        )
        if with_cp:
            for decoder in self.decoders:
                checkpoint_activations(decoder)

    @classmethod
    def plan(cls, encoder: MaskedEncoder) -> NeckPlan:
        """Each level at its own scale: by default that of the encoder's maps.

        Where all levels have one resolution it is LocalMIM's.
        """
        plan = super().plan(encoder)
        return NeckPlan(
            num_targets=plan.num_targets,
            arguments={
                **plan.arguments,
                "level_scales": encoder.level_scales or 1,
                "num_extra_tokens": encoder.num_extra_tokens,
            },
            target_scales=encoder.level_scales or COLUMNAR_SCALES,
            takes_scales=True,
        )

    def check_target(self, level: int, target: LevelSpec) -> None:
        """Checks that a target has the scale that is predicted.

        Raises:
            ValueError: If it has another.
        """
        if target.scale != self.scales[level]:
            raise ValueError(
                f"level {level} predicts {self.scales[level]:g} cells per patch and "
                f"axis, its target has {target.scale:g}: leave the neck's scales out, "
                "they follow from the target"
            )

    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts the cells of each level's target.

        Args:
            latents: One (N, extra + L_vis * t**2, C) per level, t tokens per patch and
                axis; the tokens of a patch follow each other row by row.
            mask: The mask the encoder saw.
            masked_only: Predict removed patches alone, in the order of
                ``mask.ids_masked``; otherwise every patch in raster order.

        Returns:
            One (N, L_mask or L, width) per level, as :class:`LevelTarget` has it;
            where cells pool patches, all cells in raster order, (N, L * scale**2,
            dims).
        """
        return [
            decoder(latent, mask, masked_only)
            for decoder, latent in zip(self.decoders, latents, strict=True)
        ]

    def _check_level(self, level: int, num_heads: int) -> None:
        """Checks one level's settings.

        Raises:
            ValueError: Naming the level.
        """
        scale, tokens = self.scales[level], self.level_scales[level]
        width = self.embed_dims[level]
        if width % num_heads or width % 4:
            raise ValueError(
                f"embed_dims={width} of level {level} is not a multiple of 4 and of "
                f"num_heads={num_heads}"
            )
        ratio = scale / tokens
        if ratio not in (1, 2, 4) and (ratio > 1 or not (1 / ratio).is_integer()):
            raise ValueError(
                f"level {level} has {tokens}x{tokens} tokens per patch, its target "
                f"{scale:g}x{scale:g} cells: a decoder makes 1, 2 or 4 cells per axis "
                "of a token, or pools complete tokens; choose the level's cell_size so"
            )
        if self.out_dims[level] % max(scale, 1) ** 2:
            raise ValueError(
                f"out_dims={self.out_dims[level]} of level {level} does not divide "
                f"into the {scale:g}x{scale:g} cells of a patch"
            )
        if ratio < 1 and any(side * scale % 1 for side in self.grid):
            raise ValueError(
                f"the target of level {level} pools {1 / scale:g}x{1 / scale:g} "
                f"patches, which do not divide the {self.grid[0]}x{self.grid[1]} grid: "
                "choose another image size or a smaller cell_size"
            )


def _per_level(name: str, value: float | Sequence[float], levels: int) -> list:
    """One value for each level.

    Raises:
        ValueError: If a list has another length.
    """
    values = list(value) if isinstance(value, Sequence) else [value] * levels
    if len(values) != levels:
        raise ValueError(
            f"{name} has {len(values)} entries for {levels} levels: give one value per "
            "level, or one for all"
        )
    return values
