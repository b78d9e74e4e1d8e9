"""Targets that are patch features of a frozen network."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn import functional as F

from ..masking import PatchMask
from .base import ImageSpec, LevelSpec, LevelTarget, Target
from .teacher import AbsentTeacher, FrozenTeacher

# Of the per-token LayerNorm without affine (torch's default, as data2vec uses it).
NORM_EPS = 1e-5


class FeatureTarget(Target):
    """Features of a frozen network at the removed patches.

    The teacher sees the complete image, renormalised from the student's mean and
    standard deviation to its own in one affine step; it runs once per batch, under
    the current autocast, without autograd; the features are returned in float32.

    Args:
        network: The teacher: images (N, 3, H, W) to tokens (N, K + L, dims), patches
            last and in raster order; or an absent one.
        dims: Width of a token.
        patch_size: Height and width in pixels of the teacher's patches; None, for an
            absent teacher, leaves its patch grid unchecked.
        mean: Mean of the teacher's images per channel, in pixel values from 0 to 255.
        std: Standard deviation, likewise.
        input_size: Height and width in pixels (or one number for both) of the images
            the teacher sees, for a teacher whose patches are larger or smaller than
            the student's: bicubic with antialiasing. By default the student's images
            as they are.
        norm_features: Normalise each patch's features to mean 0 and variance 1.

    Raises:
        TypeError: If ``mean`` or ``std`` is not a list of numbers, or ``input_size``
            not one or two integers.
        ValueError: If ``mean`` and ``std`` differ in length, or are meant for images
            from 0 to 1, or ``input_size`` is not positive.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        dims: int,
        patch_size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int | Sequence[int] | None = None,
        norm_features: bool = False,
    ) -> None:
        super().__init__()
        _check_numbers("mean", mean)
        _check_numbers("std", std)
        if len(mean) != len(std):
            raise ValueError(
                "mean and std need one value per channel of the teacher's images, got "
                f"mean={list(mean)} and std={list(std)}"
            )
        if min(std) < 1:
            raise ValueError(
                f"std={list(std)} is meant for images from 0 to 1: give the teacher's "
                "mean and std in pixel values from 0 to 255, as the data "
                "preprocessor's (times 255)"
            )
        absent = isinstance(network, AbsentTeacher)
        self.teacher = network if absent else FrozenTeacher(network)
        self.dims = dims
        self.patch_size = patch_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.input_size = None if input_size is None else _pair(input_size)
        self.norm_features = norm_features
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """Makes the renormalisation, and checks that the teacher's patches fit.

        Warns if the student's images may be BGR.

        Raises:
            ValueError: If the images have other channels than the teacher's, or
                another patch grid.
        """
        if images.channels != len(self.mean):
            raise ValueError(
                f"{type(self).__name__}: the teacher takes images of {len(self.mean)} "
                f"channels, the student's have {images.channels}: such features need "
                "colour images; for others take PixelTarget or HOGTarget"
            )
        self._check_grid(self.input_size or images.size, images.grid, images)
        if images.channels == 3 and not images.bgr_to_rgb:
            MMLogger.get_current_instance().warning(
                f"{type(self).__name__}: the teacher takes RGB images, and the data "
                "set is expected to deliver them: data_preprocessor.bgr_to_rgb is off. "
                "Image files are decoded as BGR unless the pipeline says otherwise; "
                "for those set data_preprocessor.bgr_to_rgb=True"
            )
        # (x * std_in + mean_in - mean) / std = x * scale + shift.
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        mean_in = 0.0 if images.mean is None else images.mean
        std_in = 1.0 if images.std is None else images.std
        self.scale = std_in / std
        self.shift = (mean_in - mean) / std
        return [LevelSpec(self.dims)]

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Features of the removed patches, (N, L_mask, dims)."""
        if isinstance(self.teacher, AbsentTeacher):
            self.teacher.refuse()
        tokens = self.teacher(self.teacher_input(inputs, mask.grid))
        features = mask.masked(tokens[:, -mask.num_patches :]).float()
        if self.norm_features:
            features = F.layer_norm(features, features.shape[-1:], eps=NORM_EPS)
        return [LevelTarget(features)]

    def teacher_input(self, inputs: Tensor, grid: tuple[int, int]) -> Tensor:
        """The images as the teacher takes them: renormalised, and resized if asked.

        Args:
            inputs: Images as the student receives them, (N, 3, H, W).
            grid: Rows and columns of their patch grid.

        Raises:
            ValueError: If images of another size than those the model was built for
                have another grid for the teacher than for the student.
        """
        images = torch.addcmul(self.shift, inputs, self.scale)
        if self.input_size is None:
            self._check_grid((inputs.shape[2], inputs.shape[3]), grid)
            return images
        size = self._size_for(grid)
        if size == tuple(images.shape[-2:]):
            return images
        return F.interpolate(
            images, size=size, mode="bicubic", align_corners=False, antialias=True
        )

    def _size_for(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the teacher has such a grid."""
        assert self.patch_size is not None
        return grid[0] * self.patch_size[0], grid[1] * self.patch_size[1]

    def _check_grid(
        self,
        size: tuple[int, ...],
        grid: tuple[int, int],
        images: ImageSpec | None = None,
    ) -> None:
        """Checks that images of ``size`` have ``grid`` for the teacher.

        Raises:
            ValueError: Naming both grids and the size that fits.
        """
        if self.patch_size is None or tuple(size) == self._size_for(grid):
            return
        (height, width), (p, q) = size, self.patch_size
        rows, cols = height / p, width / q
        student = (
            "" if images is None else " of {}x{} pixels".format(*images.patch_size)
        )
        raise ValueError(
            f"{type(self).__name__}: the teacher cuts {height}x{width} pixels into a "
            f"{rows:g}x{cols:g} grid of {p}x{q} patches, the student has a "
            f"{grid[0]}x{grid[1]} grid of patches{student}: every patch of the student "
            f"needs one feature. Give input_size={self._size_for(grid)}, which resizes "
            "the teacher's images, or a teacher with the student's patch size"
        )


def _check_numbers(name: str, values: Sequence[float]) -> None:
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not all(isinstance(value, Real) for value in values)
        or not values
    ):
        raise TypeError(
            f"{name}={values!r} is not a list of numbers: give one value per channel "
            "of the teacher's images, such as [123.675, 116.28, 103.53]"
        )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of ``input_size``.

    Raises:
        TypeError: If they are not integers.
        ValueError: If they are not positive.
    """
    pair = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(pair, (list, tuple))
        or len(pair) != 2
        or not all(type(side) is int for side in pair)
    ):
        raise TypeError(
            f"input_size={size!r} is not a size in pixels: give an integer, or height "
            "and width"
        )
    if min(pair) < 1:
        raise ValueError(f"input_size={size!r} must be positive")
    return pair[0], pair[1]
