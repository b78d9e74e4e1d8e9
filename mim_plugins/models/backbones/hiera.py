"""Hiera: a hierarchical Vision Transformer of plain blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed, to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.metadata import RecordsGeometry
from ..activation_checkpointing import checkpoint_activations
from ..initialisation import is_pretrained
from ..masking import PatchMask
from ..patches import unpatchify
from .hiera_block import HieraBlock, reroll, unroll

OUT_TYPES = ("avg_featmap", "featmap")


@MODELS.register_module()
class Hiera(RecordsGeometry, BaseBackbone):
    """Hiera for classification and, with ``out_type='featmap'``, for dense tasks.

    An image is a grid of mask units, 32x32 pixels in the published models, each
    ``2 ** (stages - 1)`` tokens a side. Early stages attend inside units, late ones
    across all; width and heads double with each stage, and the first ``q_pool`` times
    the tokens are pooled 2x2. Tokens travel as (N, units, tokens, C), which makes
    attention of either kind, pooling and the removal of units plain views or slices.

    References:
        - Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles,
          2023, https://arxiv.org/abs/2306.00989, section 3
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        arch: Name in ``arch_zoo`` or a dict with ``embed_dims``, ``depths`` and
            ``num_heads`` (of the first stage). (The lightweight study's Hiera-Tiny is
            ``dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1)``, half as wide as
            ``'tiny'`` here.)
        img_size: Input height and width in pixels, multiples of a mask unit.
        patch_size: Height and width in pixels of the stride between tokens.
        patch_kernel: Height and width in pixels of what a token sees of the image.
        in_channels: Number of image channels.
        mlp_ratio: Hidden width of the MLPs over a block's width.
        q_pool: How many stages begin with pooling: 3 for fine-tuning, 2 in MAE
            pre-training; the weights are the same.
        mask_unit_attn: For each stage, whether its attention stays inside mask units.
            The first block of a stage takes the setting of the stage before.
        out_type: ``'avg_featmap'``: the normed mean of the tokens, (N, C);
            ``'featmap'``: the un-normed maps of ``out_indices``.
        out_indices: Zero-based stages whose maps are returned; all by default. Their
            strides are 4, 8, 16, 32 pixels at ``q_pool=3``.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        norm_cfg: Norm layer.
        with_cp: Recompute every block in the backward pass instead of keeping its
            activations: less memory for about a third more time.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If the architecture is unknown or does not fit, or the image size
            is not a multiple of the mask unit.

    Note:
        Built from mmpretrain's layers. timm has a Hiera of one fixed image size, whose
        blocks see units as the fastest index of one sequence: local attention is then
        five-dimensional, for which torch has no fused kernel, and masking a boolean
        index that waits for the device.
    """

    arch_zoo = {
        "tiny": dict(embed_dims=96, depths=(1, 2, 7, 2), num_heads=1),
        "small": dict(embed_dims=96, depths=(1, 2, 11, 2), num_heads=1),
        "base": dict(embed_dims=96, depths=(2, 3, 16, 3), num_heads=1),
        "base_plus": dict(embed_dims=112, depths=(2, 3, 16, 3), num_heads=2),
        "large": dict(embed_dims=144, depths=(2, 6, 36, 4), num_heads=2),
        "huge": dict(embed_dims=256, depths=(2, 6, 36, 4), num_heads=4),
    }
    num_extra_tokens = 0

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        patch_kernel: int = 7,
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        q_pool: int = 3,
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        out_type: str = "avg_featmap",
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = _check_arch(self.arch_zoo, arch)
        depths = tuple(arch["depths"])
        stages = len(depths)
        if not 0 <= q_pool < stages:
            raise ValueError(
                f"q_pool={q_pool} does not fit {stages} stages: a pooling begins each "
                f"stage but the first, so it lies between 0 and {stages - 1}"
            )
        if len(mask_unit_attn) != stages:
            raise ValueError(
                f"mask_unit_attn has {len(mask_unit_attn)} entries for {stages} stages"
            )
        if out_type not in OUT_TYPES:
            raise ValueError(f"out_type is one of {OUT_TYPES}, got {out_type!r}")
        self.depths, self.q_pool, self.out_type = depths, q_pool, out_type
        self.patch_size, self.patch_kernel = patch_size, patch_kernel
        self.mask_patch_size = (patch_size * self.unit_side,) * 2
        self.img_size = tuple(to_2tuple(img_size))
        self.grid = self._grid_of(self.img_size)
        self.out_indices = _check_stages(
            range(stages) if out_indices is None else out_indices, stages
        )
        self.stage_dims = [arch["embed_dims"] * 2**stage for stage in range(stages)]
        self.norm_cfg = norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)

        # Units are cut out with the pixels their tokens see, so nothing is padded here.
        self.patch_embed = PatchEmbed(
            in_channels,
            self.stage_dims[0],
            kernel_size=patch_kernel,
            stride=patch_size,
            padding=0,
        )
        rows, cols = self._token_grid(self.grid)
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * cols, self.stage_dims[0]))
        self._register_load_state_dict_pre_hook(self._resize_loaded_positions)
        rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.layers: Any = nn.ModuleList()
        for stage, depth in enumerate(depths):
            for index in range(depth):
                before = stage - 1 if stage > 0 and index == 0 else stage
                self.layers.append(
                    HieraBlock(
                        in_dims=self.stage_dims[before],
                        embed_dims=self.stage_dims[stage],
                        num_heads=arch["num_heads"] * 2**stage,
                        feedforward_channels=int(self.stage_dims[stage] * mlp_ratio),
                        pool=before < stage <= q_pool,
                        local=mask_unit_attn[before],
                        drop_path_rate=next(rates),
                        norm_cfg=norm_cfg,
                    )
                )
        self.in_channels = in_channels
        if out_type == "avg_featmap":
            self.ln2 = build_norm_layer(norm_cfg, self.stage_dims[-1])
        if with_cp:
            for layer in self.layers:
                checkpoint_activations(layer)

    @property
    def unit_side(self) -> int:
        """Tokens per mask unit and axis in the first stage."""
        return 2 ** (len(self.depths) - 1)

    @property
    def num_layers(self) -> int:
        """Number of blocks, of all stages."""
        return len(self.layers)

    def init_weights(self) -> None:
        """Initialises as the official classifier, unless weights were loaded."""
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                nn.init.constant_(module.bias, 0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encodes images (N, C, H, W); what is returned depends on ``out_type``."""
        stages = self.stage_outputs(self.run_blocks(self.embed(x)))
        if self.out_type == "avg_featmap":
            return (self.ln2(stages[-1].flatten(1, 2).mean(dim=1)),)
        grid = self.image_grid(x)
        return tuple(feature_map(stages[index], grid) for index in self.out_indices)

    def embed(self, x: Tensor, mask: PatchMask | None = None) -> Tensor:
        """Embeds the tokens of all units, or of the visible ones.

        Removed units are zero to the tokens at the border of their neighbours.

        Args:
            x: Images, (N, C, H, W).
            mask: Which units are visible.

        Returns:
            (N, units, tokens, C), units in the order of ``mask.ids_keep``, tokens
            unrolled.
        """
        grid = self.image_grid(x)
        positions = self._positions(grid)
        if mask is None:
            maps = self.patch_embed.projection(self._padded(x))
            return unroll(self._by_units(maps.permute(0, 2, 3, 1), grid) + positions)
        removed = mask.at_scale(self.mask_patch_size[0]).bool()
        x = x.masked_fill(removed.view(len(x), 1, *x.shape[2:]), 0)
        units = mask.visible(self._cut_units(x))
        positions = F.embedding(mask.ids_keep, positions[0].flatten(1))
        side = self.mask_patch_size[0] - self.patch_size + self.patch_kernel
        tokens, _ = self.patch_embed(units.reshape(-1, x.shape[1], side, side))
        tokens = tokens.unflatten(0, units.shape[:2])
        return unroll(tokens + positions.view_as(tokens[: len(positions)]))

    def run_blocks(self, tokens: Tensor) -> Iterator[Tensor]:
        """Runs the blocks on (N, units, tokens, C), as far as it is iterated.

        Yields:
            The tokens as they enter block 0, 1, ... and, at last, as they leave the
            last block.
        """
        for layer in self.layers:
            yield tokens
            tokens = layer(tokens)
        yield tokens

    def stage_outputs(self, stream: Iterable[Tensor]) -> list[Tensor]:
        """Picks the output of every stage out of :meth:`run_blocks`."""
        ends = list(accumulate(self.depths))
        return [tokens for index, tokens in enumerate(stream) if index in ends]

    def image_grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the mask units of images (N, C, H, W).

        Raises:
            ValueError: If the images do not divide into mask units.
        """
        return self._grid_of((x.shape[-2], x.shape[-1]))

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter and number of depths, as mmpretrain's ViT.

        The embedding has depth 0, block i, counted through all stages, i + 1, all else
        the last.
        """
        depths = self.num_layers + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            return depths - 1, depths
        if name.startswith(("pos_embed", "patch_embed")):
            return 0, depths
        if name.startswith("layers."):
            return int(name.split(".")[1]) + 1, depths
        return depths - 1, depths

    def _cut_units(self, x: Tensor) -> Tensor:
        """Cuts units out with the margin their tokens see, (N, L, C * k * k)."""
        step = self.mask_patch_size[0]
        overlap = self.patch_kernel - self.patch_size
        x = self._padded(x)
        units = x.unfold(2, step + overlap, step).unfold(3, step + overlap, step)
        # (N, C, rows, cols, k, k)
        return units.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def _padded(self, x: Tensor) -> Tensor:
        """Images with the margin that the tokens at their border see."""
        overlap = self.patch_kernel - self.patch_size
        before = (self.patch_kernel - 1) // 2
        return F.pad(x, (before, overlap - before) * 2)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings, unit by unit, row by row, (1, L, T, C)."""
        tokens = self._token_grid(grid)
        table = resize_pos_embed(
            self.pos_embed, self.position_grid, tokens, num_extra_tokens=0
        )
        return self._by_units(table.reshape(1, *tokens, -1), grid)

    def _by_units(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Splits a map into its units' tokens, (N, rows, cols, C) -> (N, L, T, C)."""
        # By sizes that are no shapes of tensors, which an exported model would keep.
        (rows, cols), side, dims = grid, self.unit_side, self.stage_dims[0]
        tokens = maps.reshape(-1, rows, side, cols, side, dims).transpose(2, 3)
        return tokens.reshape(-1, rows * cols, side**2, dims)

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of the first stage."""
        return self._token_grid(self.grid)

    def _token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid[0] * self.unit_side, grid[1] * self.unit_side

    def _grid_of(self, img_size: tuple[int, int]) -> tuple[int, int]:
        unit = self.mask_patch_size[0]
        rows, cols = (side // unit for side in img_size)
        if (rows * unit, cols * unit) != tuple(img_size) or not rows * cols:
            raise ValueError(
                f"image size {tuple(img_size)} is not a multiple of Hiera's mask units "
                f"of {unit} pixels (patch_size * 2 ** (stages - 1)): change img_size "
                "(and the crop of the data pipeline, or its padding) or patch_size"
            )
        return rows, cols

    def _resize_loaded_positions(
        self, state_dict: dict[str, Tensor], prefix: str, *_: Any
    ) -> None:
        """Resizes the position table of a checkpoint of another image size.

        Raises:
            ValueError: If the grid of the table cannot be inferred.
        """
        key = prefix + "pos_embed"
        table = state_dict.get(key)
        if table is None or table.shape[1] == self.pos_embed.shape[1]:
            return
        side = math.isqrt(table.shape[1])
        if side**2 != table.shape[1]:
            raise ValueError(
                f"{key} has {table.shape[1]} positions, which is no square grid, and "
                f"this Hiera {self.pos_embed.shape[1]}: load it with the img_size it "
                "was trained at"
            )
        state_dict[key] = resize_pos_embed(
            table, (side, side), self.position_grid, num_extra_tokens=0
        )


def feature_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The map of all units' tokens: (N, L, T, C) -> (N, C, rows * t, cols * t)."""
    side = math.isqrt(tokens.shape[2])
    return unpatchify(reroll(tokens).flatten(2), grid, (side, side))


def _check_arch(zoo: dict[str, dict], arch: str | dict) -> dict:
    """Settings of an architecture.

    Raises:
        ValueError: If there is no such architecture, a setting is missing, or the width
            does not divide into the heads.
    """
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f"Hiera has no arch {arch!r}: choose one of {sorted(zoo)}")
        return zoo[arch]
    keys = {"embed_dims", "depths", "num_heads"}
    if set(arch) != keys:
        raise ValueError(f"Hiera's arch is a dict with {sorted(keys)}, got {arch}")
    if arch["embed_dims"] % arch["num_heads"] or min(arch["depths"]) < 1:
        raise ValueError(
            f"Hiera's embed_dims is a multiple of num_heads and every stage has a "
            f"block, got {arch}"
        )
    return arch


def _check_stages(indices: Sequence[int], stages: int) -> tuple[int, ...]:
    """Validates stage indices.

    Raises:
        ValueError: If there is no such stage.
    """
    for index in indices:
        if index not in range(stages):
            raise ValueError(
                f"out_indices={tuple(indices)} names stage {index}; Hiera has stages "
                f"0 to {stages - 1}"
            )
    return tuple(indices)
