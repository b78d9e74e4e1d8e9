"""Mask samplers: a mask per image, or one for all images of a process."""

from __future__ import annotations

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .counter_rng import counter_uniform
from .masking import PatchMask, count_visible, to_device


@MODELS.register_module()
class RandomPatchMask(nn.Module):
    """Draws a uniform random mask per image (MAE, section 3; DeepMIM, section 3).

    With one seed per image, the noise comes from a counter-based RNG of (seed, patch),
    so that an image's mask depends on neither its place in the batch, nor the rank,
    nor a restart; without seeds it comes from torch's generator.

    Args:
        mask_ratio: Share of patches to remove, in (0, 1).

    Raises:
        ValueError: If ``mask_ratio`` is outside (0, 1).
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        super().__init__()
        if not 0 < mask_ratio < 1:
            raise ValueError(
                f"mask_ratio must lie between 0 and 1 (both excluded), got {mask_ratio}"
            )
        self.mask_ratio = mask_ratio

    def forward(
        self,
        batch_size: int,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
        seeds: Tensor | None = None,
    ) -> PatchMask:
        """Draws a mask for each image.

        Args:
            batch_size: Number of images N.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed.
            seeds: One int64 per image, (N,), or None.
        """
        length = grid[0] * grid[1]
        if seeds is None:
            noise = torch.rand(batch_size, length, device=device)
        else:
            noise = counter_uniform(to_device(seeds, device), length)
        return PatchMask.from_noise(noise, self.mask_ratio, grid)

    def count_visible(self, num_patches: int) -> int:
        """Number of patches that stay visible.

        Raises:
            ValueError: If none does.
        """
        return count_visible(num_patches, self.mask_ratio)

    def extra_repr(self) -> str:
        """Shows the mask ratio in the module's print-out."""
        return f"mask_ratio={self.mask_ratio}"


@MODELS.register_module()
class SharedPatchMask(RandomPatchMask):
    """Draws one mask for all images of a batch (LocalMIM's released Swin code).

    The Swin encoder packs the visible tokens of such a batch once for all its images,
    which is what makes it fast. Each process draws its own mask, anew at each step,
    from the seed of its first image, or from torch's generator; it is drawn on the
    host, where the packing happens.

    Note:
        As the official code, it removes ``int(mask_ratio * L) + 1`` patches: 37 of 49
        at 0.75.
    """

    def forward(
        self,
        batch_size: int,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
        seeds: Tensor | None = None,
    ) -> PatchMask:
        """Draws a mask for the batch.

        Args:
            batch_size: Number of images N.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed.
            seeds: One int64 per image, (N,), or None.
        """
        length = grid[0] * grid[1]
        if seeds is None:
            noise = torch.rand(1, length, device="cpu")
        else:
            noise = counter_uniform(seeds[:1].cpu(), length)
        return self.from_ranks(noise.argsort(dim=1)[0], batch_size, grid, device)

    def from_ranks(
        self,
        ranks: Tensor,
        batch_size: int,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> PatchMask:
        """Removes the patches of the lowest ranks, from all images alike.

        Args:
            ranks: A permutation of the patches, (L,).
            batch_size: Number of images N.
            grid: Rows and columns of the patch grid.
            device: Where the mask is needed.
        """
        self.count_visible(len(ranks))
        removed = ranks.cpu() <= int(self.mask_ratio * len(ranks))
        host = PatchMask.from_mask(removed.expand(batch_size, -1), grid)
        mask = host.to(device)
        mask.__dict__["ids_host"] = host.ids_keep
        return mask

    def count_visible(self, num_patches: int) -> int:
        """Number of patches that stay visible.

        Raises:
            ValueError: If none does.
        """
        num_keep = num_patches - int(self.mask_ratio * num_patches) - 1
        if num_keep < 1:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} keeps none of {num_patches} patches "
                "when one more than that share is removed, as the official Swin code "
                f"does: choose a ratio below {1 - 1 / num_patches:.4g}"
            )
        return num_keep
