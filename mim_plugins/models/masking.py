"""The mask type that all parts of a model share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class PatchMask:
    """The split of every image's patches into visible and removed ones.

    Every image of a batch keeps the same number of patches, so a batch stays
    dense. Decoders work in *shuffled order*: the visible patches in the order of
    ``ids_keep``, then the removed ones.

    Args:
        ids_keep: Raster index of each visible patch, (N, L_vis), int64.
        ids_restore: Position in shuffled order of each raster patch, (N, L), int64.
        mask: 1 where a patch is removed, 0 where it is visible, (N, L), float.
        grid: Rows and columns of the patch grid; ``L = rows * cols``.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    grid: tuple[int, int]

    @classmethod
    def from_noise(
        cls, noise: Tensor, mask_ratio: float, grid: tuple[int, int]
    ) -> PatchMask:
        """Keeps the ``int(L * (1 - mask_ratio))`` patches of the smallest noise.

        As the official MAE and DeepMIM code: the kept count is evaluated in double
        precision and truncated, and kept patches stay in the order of their noise.

        Args:
            noise: One number per patch, (N, L).
            mask_ratio: Share of patches to remove, in (0, 1).
            grid: Rows and columns of the patch grid.

        Raises:
            ValueError: If ``mask_ratio`` is outside (0, 1) or keeps no patch, or the
                noise does not cover the grid.
        """
        length = grid[0] * grid[1]
        if noise.ndim != 2 or noise.shape[1] != length:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, but the {grid[0]}x{grid[1]} "
                f"patch grid needs (N, {length})"
            )
        num_keep = count_visible(length, mask_ratio)
        # Stable, so that equal numbers fall in the same order on every device.
        ids_shuffle = noise.argsort(dim=1, stable=True)
        return cls._from_shuffle(ids_shuffle, num_keep, grid)

    @classmethod
    def from_mask(
        cls,
        mask: Tensor,
        grid: tuple[int, int],
        device: torch.device | str | None = None,
    ) -> PatchMask:
        """Takes a given mask; visible patches keep their raster order.

        Args:
            mask: Non-zero (or True) where a patch is removed: (N, L), or (N, rows,
                cols). Every row removes the same number of patches.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed; by default where it is.

        Raises:
            TypeError: If ``mask`` is not a tensor.
            ValueError: If its shape does not fit the grid, or its rows differ in
                their number of visible patches, or no patch is visible.
        """
        if not isinstance(mask, Tensor):
            raise TypeError(
                "a mask is a tensor (N, L) with 1 = removed, a PatchMask, or None for "
                f"no masking; got {mask!r} ({type(mask).__name__})"
            )
        length = grid[0] * grid[1]
        mask = mask.to(device or mask.device)
        removed = mask.flatten(1).bool() if mask.ndim > 1 else mask.bool()
        if removed.ndim != 2 or removed.shape[1] != length:
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}, but the {grid[0]}x{grid[1]} "
                f"patch grid needs (N, {length})"
            )
        counts = (~removed).sum(dim=1)
        num_keep = int(counts[0])
        if not bool((counts == num_keep).all()):
            raise ValueError(
                "every image of a batch must keep the same number of patches; the "
                f"given mask keeps {sorted(set(counts.tolist()))}"
            )
        if num_keep == 0:
            raise ValueError("the given mask keeps no patch; at least one must stay")
        # A stable sort puts visible patches first without changing their order.
        ids_shuffle = removed.to(torch.uint8).argsort(dim=1, stable=True)
        return cls._from_shuffle(ids_shuffle, num_keep, grid)

    @classmethod
    def of_nothing_visible(
        cls, count: int, grid: tuple[int, int], device: torch.device | str
    ) -> PatchMask:
        """Removes every patch, for targets of complete images; no encoder takes it.

        Args:
            count: Number of images.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed.
        """
        ids = torch.arange(grid[0] * grid[1], device=device).expand(count, -1)
        return cls._from_shuffle(ids, 0, grid)

    @classmethod
    def _from_shuffle(
        cls, ids_shuffle: Tensor, num_keep: int, grid: tuple[int, int]
    ) -> PatchMask:
        ids_restore = ids_shuffle.argsort(dim=1)
        mask = (ids_restore >= num_keep).to(torch.float32)
        result = cls(ids_shuffle[:, :num_keep], ids_restore, mask, grid)
        # Known already; spares the first use of `ids_shuffle` a sort.
        result.__dict__["ids_shuffle"] = ids_shuffle
        return result

    @cached_property
    def ids_shuffle(self) -> Tensor:
        """Raster index of each token in shuffled order, (N, L)."""
        return self.ids_restore.argsort(dim=1)

    @cached_property
    def ids_host(self) -> Tensor:
        """``ids_keep`` in host memory, for encoders that plan their work there.

        Reading it waits for the device, unless the mask was drawn on the host.
        """
        return self.ids_keep.cpu()

    @property
    def ids_masked(self) -> Tensor:
        """Raster index of each removed patch, in shuffled order, (N, L_mask)."""
        return self.ids_shuffle[:, self.num_visible :]

    @property
    def num_patches(self) -> int:
        """Number of patches L of an image."""
        return self.ids_restore.shape[1]

    @property
    def num_visible(self) -> int:
        """Number of visible patches L_vis of an image."""
        return self.ids_keep.shape[1]

    @property
    def num_masked(self) -> int:
        """Number of removed patches of an image."""
        return self.num_patches - self.num_visible

    def visible(self, tokens: Tensor) -> Tensor:
        """Picks the visible tokens: raster (N, L, C) -> (N, L_vis, C)."""
        return gather_tokens(tokens, self.ids_keep)

    def masked(self, tokens: Tensor) -> Tensor:
        """Picks the removed tokens: raster (N, L, C) -> (N, L_mask, C)."""
        return gather_tokens(tokens, self.ids_masked)

    def restore(self, tokens: Tensor) -> Tensor:
        """Puts shuffled tokens (N, L, C) back into raster order."""
        return gather_tokens(tokens, self.ids_restore)

    def at_scale(self, scale: float) -> Tensor:
        """The mask on a finer or coarser grid.

        Args:
            scale: Cells per patch and axis: 2 halves the cell, 0.5 pools 2x2 patches.

        Returns:
            (N, L * scale**2) in raster order; coarser cells hold the removed share of
            the patches they pool (LocalMIM's fractional weights).

        Raises:
            ValueError: If neither ``scale`` nor ``1 / scale`` is an integer, or the
                grid does not divide by it.
        """
        rows, cols = self.grid
        mask = self.mask.view(-1, rows, cols)
        if scale >= 1 and float(scale).is_integer():
            factor = int(scale)
            mask = mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            return mask.flatten(1)
        factor = round(1 / scale) if scale > 0 else 0
        if factor < 2 or not math.isclose(factor * scale, 1):
            raise ValueError(f"scale must be an integer or 1/integer, got {scale}")
        if rows % factor or cols % factor:
            raise ValueError(
                f"a {rows}x{cols} patch grid cannot be pooled by {factor}: choose an "
                f"image size that is a multiple of {factor} patches"
            )
        pooled = mask.view(-1, rows // factor, factor, cols // factor, factor)
        return pooled.mean(dim=(2, 4)).flatten(1)

    def to(self, device: torch.device | str) -> PatchMask:
        """Moves the index tensors to a device, as :func:`to_device`."""
        return PatchMask(
            to_device(self.ids_keep, device),
            to_device(self.ids_restore, device),
            to_device(self.mask, device),
            self.grid,
        )


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Moves a tensor, from the host to a GPU without waiting for its work.

    Args:
        tensor: A tensor.
        device: Where it is needed.
    """
    device = torch.device(device)
    if tensor.device.type != "cpu" or device.type in ("cpu", "mps"):
        return tensor.to(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_patch_mask(
    mask: PatchMask | Tensor, images: Tensor, grid: tuple[int, int]
) -> PatchMask:
    """The mask of a batch of images, which is given as it is or as a tensor.

    Args:
        mask: A ``PatchMask``, or what :meth:`PatchMask.from_mask` takes.
        images: The images, (N, C, H, W).
        grid: Rows and columns of the patches (cells, mask units) that they have.

    Raises:
        TypeError: If ``mask`` is not a mask.
        ValueError: If it is of another grid or of another number of images.
    """
    if not isinstance(mask, PatchMask):
        mask = PatchMask.from_mask(mask, grid, images.device)
    if mask.grid != grid:
        raise ValueError(
            f"the mask covers a grid of {mask.grid} patches, but images of "
            f"{tuple(images.shape[-2:])} pixels have {grid}"
        )
    if len(mask.mask) != len(images):
        raise ValueError(
            f"the mask is of {len(mask.mask)} images, the batch has {len(images)}: "
            "give one row per image"
        )
    return mask


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Picks tokens (N, L, C) at ``ids`` (N, K) -> (N, K, C)."""
    n, length, _ = tokens.shape
    # One flat index: its backward pass is a plain index_add.
    offset = torch.arange(n, device=ids.device)[:, None] * length
    flat = tokens.flatten(0, 1).index_select(0, (ids + offset).flatten())
    return flat.unflatten(0, ids.shape)


def count_visible(num_patches: int, mask_ratio: float) -> int:
    """Number of patches that stay visible, as the official code counts it.

    Raises:
        ValueError: If ``mask_ratio`` is outside (0, 1) or no patch stays visible.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(
            f"mask_ratio must lie between 0 and 1 (both excluded), got {mask_ratio}"
        )
    num_keep = int(num_patches * (1 - mask_ratio))
    if num_keep < 1:
        raise ValueError(
            f"mask_ratio={mask_ratio} keeps none of {num_patches} patches: a ratio "
            f"below {1 - 1 / num_patches:.4g} keeps one; or use smaller patches"
        )
    return num_keep
