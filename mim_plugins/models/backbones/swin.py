"""The Swin Transformer that drops masked tokens, with mmpretrain's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.models import SwinTransformer
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import PatchMerging, to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..attention import WindowAttention
from ..initialisation import init_transformer, is_pretrained
from ..masking import PatchMask, as_patch_mask
from ..patches import patchify, projection_weights
from ..protocols import MaskedEncoder
from .relative_position import resize_bias_tables
from .taps import check_taps
from .window_groups import WindowGroups

COORDINATES = ("correct", "official")


@MODELS.register_module()
class MIMSwinTransformer(SwinTransformer, MaskedEncoder):
    """Swin Transformer that encodes only the visible cells of masked images.

    A mask removes square cells of ``patch_size * 2 ** (stages - 1)`` pixels, 32 for
    the published models, which patch merging never straddles: a cell is 8x8 tokens in
    the first stage and one in the last. Removed tokens take no part in anything;
    visible ones attend to the visible tokens of their (shifted) window. Parameters,
    their names and the forward pass without a mask are those of mmpretrain's
    ``SwinTransformer``, so checkpoints load there as they are.

    References:
        - Masked Image Modeling with Local Multi-Scale Reconstruction, 2023,
          https://arxiv.org/abs/2303.05251, section 3 and its released code
        - Green Hierarchical Vision Transformer for Masked Image Modeling, 2022,
          https://arxiv.org/abs/2205.13515, section 3

    Args:
        arch: Name in mmpretrain's ``arch_zoo`` or a dict with ``embed_dims``,
            ``depths``, ``num_heads``.
        img_size: Input height and width in pixels, multiples of the mask's cells.
        patch_size: Patch height and width in pixels.
        window_size: Height and width of the windows in tokens. In stages whose map is
            smaller the window is the map's shorter side, without shift.
        taps: Zero-based indices, increasing, of the stages whose un-normed output,
            after their patch merging, is returned before the final latent; by default
            all but the last. The final latent, normed, always comes last.
        merge_coordinates: Where a masked pass takes tokens to be after a patch
            merging: ``'correct'``, or ``'official'`` as the released pre-training
            code, which goes on numbering tokens cell by cell, but reads the numbers
            row by row, so that from the second stage on (the last excepted) windows
            and relative positions are scrambled, always in the same way.
        norm_eps: Epsilon of every LayerNorm; None leaves mmpretrain's 1e-5. LocalMIM
            has 1e-6.
        mlp_norm_eps: Epsilon of the norm before each MLP, where it differs; 1e-5 in
            LocalMIM's fine-tuning.
        **kwargs: Further arguments of mmpretrain's ``SwinTransformer``, such as
            ``drop_path_rate``, which is 0.1 there and 0 in the papers' pre-training.

    Raises:
        ValueError: If a tap or ``merge_coordinates`` does not exist, or the
            image does not divide into the mask's cells and every stage's windows.

    Note:
        The released LocalMIM models were pre-trained with ``'official'`` coordinates
        and fine-tuned by a plain Swin Transformer, that is with correct ones.
    """

    num_extra_tokens = 0
    takes_absolute_positions = False

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 4,
        window_size: int = 7,
        taps: Sequence[int] | None = None,
        merge_coordinates: str = "correct",
        norm_eps: float | None = None,
        mlp_norm_eps: float | None = None,
        pad_small_map: bool = False,
        stage_cfgs: dict | Sequence[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        if merge_coordinates not in COORDINATES:
            raise ValueError(
                f"merge_coordinates is one of {COORDINATES}, got {merge_coordinates!r}"
            )
        if kwargs.get("use_abs_pos_embed") and not self.takes_absolute_positions:
            raise ValueError(
                "MIMSwinTransformer has relative positions only: leave "
                "use_abs_pos_embed at False"
            )
        self.patch_size: tuple[int, int] = tuple(to_2tuple(patch_size))
        # The architectures that mmpretrain has a name for have four stages.
        num_stages = len(arch["depths"]) if isinstance(arch, dict) else 4
        side = 2 ** (num_stages - 1)
        self.mask_patch_size = self.patch_size[0] * side, self.patch_size[1] * side
        self.grid = self._grid_of(tuple(to_2tuple(img_size)))
        self._asked_window = window_size
        windows = [window_size] * num_stages
        if not pad_small_map:
            windows = [min(window_size, *size) for size in self._map_sizes(self.grid)]
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            window_size=window_size,
            pad_small_map=pad_small_map,
            stage_cfgs=_with_windows(stage_cfgs, windows),
            **{"out_indices": (num_stages - 1,), **kwargs},
        )
        self.taps = check_taps(
            range(num_stages - 1) if taps is None else taps, num_stages, unit="stage"
        )
        if num_stages - 1 not in self.out_indices:
            raise ValueError(
                f"out_indices={tuple(self.out_indices)} leaves out the last stage, "
                f"{num_stages - 1}, whose norm the final latent needs"
            )
        self.in_channels = self.patch_embed.projection.in_channels
        self._set_levels((*self.taps, num_stages - 1))
        self.merge_coordinates = merge_coordinates
        self.pad_small_map = pad_small_map
        if not pad_small_map:
            self._check_windows(self.grid)
        for module in self.modules():
            if norm_eps is not None and isinstance(module, nn.LayerNorm):
                module.eps = norm_eps
        for stage in self.stages:
            for block in stage.blocks:
                block.attn.window_reverse = window_reverse
                if mlp_norm_eps is not None:
                    block.norm2.eps = mlp_norm_eps

    @property
    def level_names(self) -> list[str]:
        """Encoder stages, counted from 1."""
        return [f"stage {stage + 1}" for stage in (*self.taps, len(self.stages) - 1)]

    def stage_norm(self, stage: int) -> nn.Module:
        """The norm of a stage's output, which mmpretrain adds by name."""
        return self.get_submodule(f"norm{stage}")

    def _set_levels(self, stages: Sequence[int]) -> None:
        """Sets width and scale of the latents, which are outputs of these stages."""
        last = len(self.stages) - 1
        self.level_dims = [self.stages[k].out_channels for k in stages]
        self.level_scales = [2 ** max(last - 1 - k, 0) for k in stages]

    def init_weights(self) -> None:
        """Initialises as LocalMIM's released code (relative positions: std 0.02).

        Weights loaded through ``init_cfg=dict(type='Pretrained')`` stay untouched.
        """
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        init_transformer(self)
        # The patch embedding as the linear layer it is; its bias keeps conv's default.
        weight = self.patch_embed.projection.weight.data
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))

    def forward(
        self, x: Tensor, mask: PatchMask | Tensor | None = None
    ) -> tuple[Tensor, ...] | list[Tensor]:
        """Encodes images, all of them or their visible cells only.

        Args:
            x: Images, (N, C, H, W).
            mask: ``None`` for plain features; a ``PatchMask`` or a tensor (N, L) with
                1 = removed for the masked pass, L counting cells. A mask that is the
                same for all images costs the least.

        Returns:
            Without a mask, mmpretrain's tuple of feature maps. With one, a list of
            latents (N, L_vis * t**2, C), shallow to deep: visible cells in the order
            of ``mask.ids_keep``, a cell's t x t tokens (``level_scales``) row by row;
            only the last one is normed.

        Raises:
            TypeError: If ``mask`` is a bool: encoders never draw masks.
            ValueError: If the image or the mask does not fit the cells or windows.
        """
        if mask is None:
            return SwinTransformer.forward(self, x)
        mask = as_patch_mask(mask, x, self.image_grid(x))
        tokens = self.drop_after_pos(self.embed_visible(x, mask))
        latents = []
        for index, stage in enumerate(self.stages):
            groups: dict[int, WindowGroups] = {}
            for block in stage.blocks:
                shift = window_shift(block, self._map_sizes(mask.grid)[index])
                if shift not in groups:
                    groups[shift] = self._window_groups(block, shift, index, mask)
                tokens = _run_block(block, tokens, groups[shift])
            if stage.downsample is not None:
                tokens = _merge(stage.downsample, tokens, self._cell_side(index))
            if index in self.taps:
                latents.append(tokens)
        latents.append(self.stage_norm(len(self.stages) - 1)(tokens))
        return latents

    def image_grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the mask's cells in images (N, C, H, W).

        Raises:
            ValueError: If the images do not divide into cells and windows, or the
                encoder was built for dense tasks.
        """
        if self.pad_small_map:
            raise ValueError(
                "pad_small_map=True pads windows for dense tasks; a masked pass has "
                "no tokens to pad: leave it at False for pre-training"
            )
        grid = self._grid_of((x.shape[-2], x.shape[-1]))
        self._check_windows(grid)
        return grid

    def embed_visible(self, x: Tensor, mask: PatchMask) -> Tensor:
        """Embeds the patches of visible cells: (N, L_vis * t**2, embed_dims)."""
        side, (height, width) = self._cell_side(0), self.patch_size
        cells = mask.visible(patchify(x, mask.grid))  # (N, L_vis, rows*columns*C)
        patches = cells.unflatten(2, (side, height, side, width, -1)).transpose(3, 4)
        tokens = F.linear(
            patches.reshape(len(x), mask.num_visible * side**2, -1),
            *projection_weights(self.patch_embed.projection),
        )
        norm = self.patch_embed.norm
        return tokens if norm is None else norm(tokens)

    def _prepare_relative_position_bias_table(
        self, state_dict: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Called by mmpretrain before weights are loaded."""
        resize_bias_tables(self, state_dict, prefix)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Records how coordinates are merged in the metadata of the state dict."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            metadata = destination._metadata[prefix[:-1]]
            metadata["merge_coordinates"] = self.merge_coordinates

    def _window_groups(
        self, block: SwinBlock, shift: int, stage: int, mask: PatchMask
    ) -> WindowGroups:
        """Packs the visible tokens of a stage by the windows of a block."""
        area = self._cell_side(stage) ** 2
        cells = mask.ids_host.numpy()
        if (cells == cells[0]).all():
            cells = cells[:1]
        tokens = (cells[:, :, None] * area + np.arange(area)).reshape(len(cells), -1)
        return WindowGroups.pack(
            self._coordinates(stage, mask.grid)[tokens.ravel()],
            np.repeat(np.arange(len(tokens)), tokens.shape[1]),
            block.attn.window_size,
            shift,
            mask.mask.device,
        )

    def _coordinates(self, stage: int, grid: tuple[int, int]) -> np.ndarray:
        """Row and column of every token, numbered cell by cell, (L * t**2, 2)."""
        rows, cols = self._map_sizes(grid)[stage]
        places = np.indices((rows, cols))
        if self.merge_coordinates == "official" and stage > 0:
            return places.reshape(2, -1).T
        side = self._cell_side(stage)
        cells = places.reshape(2, grid[0], side, grid[1], side)
        return cells.transpose(1, 3, 2, 4, 0).reshape(-1, 2)

    def _cell_side(self, stage: int) -> int:
        """Tokens of a cell per axis in the blocks of a stage."""
        return self.mask_patch_size[0] // self.patch_size[0] // 2**stage

    def _map_sizes(self, grid: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of tokens in the blocks of each stage."""
        sides = [
            self._cell_side(0) >> k for k in range(self._cell_side(0).bit_length())
        ]
        return [(grid[0] * side, grid[1] * side) for side in sides]

    def _grid_of(self, img_size: tuple[int, int]) -> tuple[int, int]:
        if any(
            side % cell
            for side, cell in zip(img_size, self.mask_patch_size, strict=True)
        ):
            raise ValueError(
                f"image size {img_size} is not a multiple of the mask's cells of "
                f"{self.mask_patch_size} pixels (patch_size * 2 ** (stages - 1)): "
                "change img_size (and the crop of the data pipeline) or patch_size"
            )
        rows, cols = (
            side // cell
            for side, cell in zip(img_size, self.mask_patch_size, strict=True)
        )
        return rows, cols

    def _check_windows(self, grid: tuple[int, int]) -> None:
        """Checks that complete windows cover every stage's map.

        Raises:
            ValueError: Naming the stage.
        """
        for index, (size, stage) in enumerate(
            zip(self._map_sizes(grid), self.stages, strict=True)
        ):
            window = stage.blocks[0].attn.window_size
            if size[0] % window or size[1] % window:
                raise ValueError(
                    f"stage {index} has a map of {size[0]}x{size[1]} tokens, which "
                    f"windows of {window} do not divide: {self._fitting(grid)}"
                )

    def _fitting(self, grid: tuple[int, int]) -> str:
        """Image sizes for the windows, and windows for an image of a grid, in words."""
        asked = self._asked_window
        rows, cols = self.mask_patch_size

        def fits(grid: tuple[int, int], window: int) -> bool:
            sizes = self._map_sizes(grid)
            return all(
                side % min(window, *size) == 0 for size in sizes for side in size
            )

        scales = [k for k in range(1, 2 * max(grid) + 2 * asked) if fits((k, k), asked)]
        below = [k for k in scales if k < max(grid)][-1:]
        above = [k for k in scales if k > max(grid)][:1]
        images = " or ".join(f"{k * rows}x{k * cols}" for k in below + above)
        largest = max(self._map_sizes(grid)[0])
        windows = [w for w in range(2, min(largest, 24) + 1) if fits(grid, w)]
        size = f"{grid[0] * rows}x{grid[1] * cols}"
        return f"window_size={asked} fits images of {images}, and images of {size} " + (
            f"fit window_size={' or '.join(map(str, windows[-3:]))}"
            if windows
            else "no window_size"
        )


def window_shift(block: SwinBlock, size: Sequence[int]) -> int:
    """Shift of a block's windows on a map: none where one window covers a side."""
    covers = min(size) <= block.attn.window_size
    return 0 if covers else block.attn.shift_size


def window_reverse(windows: Tensor, height: int, width: int, side: int) -> Tensor:
    """Lays windows out as maps, (N * windows, side, side, C) -> (N, height, width, C).

    mmpretrain's method of this name computes N as a Python number, which a traced or
    exported model would keep.
    """
    maps = windows.view(
        -1, height // side, width // side, side, side, windows.shape[-1]
    )
    return maps.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def _run_block(block: SwinBlock, tokens: Tensor, groups: WindowGroups) -> Tensor:
    """A ``SwinBlock`` of mmpretrain on visible tokens, (N, L, C) -> (N, L, C)."""

    def run(tokens: Tensor) -> Tensor:
        normed = block.norm1(tokens)
        if len(groups.places) != tokens.shape[1]:
            # Another mask for each image: groups span the batch.
            normed = normed.flatten(0, 1)[None]
        attended = groups.attend(block.attn.w_msa, normed).view_as(tokens)
        tokens = tokens + block.attn.drop(attended)
        return block.ffn(block.norm2(tokens), identity=tokens)

    if block.with_cp and tokens.requires_grad:
        return checkpoint(run, tokens, use_reentrant=False)
    return run(tokens)


def _merge(downsample: PatchMerging, tokens: Tensor, side: int) -> Tensor:
    """Merges 2x2 tokens inside each cell of ``side`` x ``side`` tokens."""
    quads = tokens.unflatten(1, (-1, side // 2, 2, side // 2, 2))
    # A quad's values run over its channels, then its rows, then its columns.
    quads = quads.permute(0, 1, 2, 4, 6, 3, 5).flatten(4).flatten(1, 3)
    return downsample.reduction(downsample.norm(quads))


def _with_windows(
    stage_cfgs: dict | Sequence[dict] | None, windows: Sequence[int]
) -> list[dict]:
    """Settings of each stage: the window that fits its map, and our attention."""
    if not isinstance(stage_cfgs, Sequence):
        stage_cfgs = [stage_cfgs or {}] * len(windows)
    return [
        {
            "window_size": window,
            **cfg,
            "block_cfgs": _with_attention(cfg.get("block_cfgs", {})),
        }
        for window, cfg in zip(windows, stage_cfgs, strict=True)
    ]


def _with_attention(block_cfgs: dict | Sequence[dict]) -> Any:
    """Settings of all blocks, or of each, with our attention in their windows."""
    if isinstance(block_cfgs, Sequence):
        return [_with_attention(cfg) for cfg in block_cfgs]
    attn_cfgs = {"window_msa": WindowAttention, **block_cfgs.get("attn_cfgs", {})}
    return {**block_cfgs, "attn_cfgs": attn_cfgs}
