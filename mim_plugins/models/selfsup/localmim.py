"""LocalMIM: each depth of the encoder reconstructs at a scale of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mmpretrain.registry import MODELS
from torch import nn

from ..arguments import as_numbers
from ..targets.cells import cell_size_of
from .base import MaskedImageModel, build_part

# Cells per patch and axis, shallow to deep, of an encoder with one patch size.
COLUMNAR_SCALES = (4, 2, 1, 0.5)


@MODELS.register_module()
class LocalMIM(MaskedImageModel):
    """Masked image modelling with local reconstruction at several scales.

    Shallow levels of the encoder reconstruct a fine grid of cells, deep ones a coarse
    grid. What the paper adds to the shared machine is said by the config:
    ``backbone.taps`` names the supervised blocks or stages, the neck is a
    ``MultiScaleDecoder``, and targets without a ``cell_size`` get one per level: the
    patch of the mask over the level's scale.

    References:
        - Masked Image Modeling with Local Multi-Scale Reconstruction, 2023,
          https://arxiv.org/abs/2303.05251, section 3

    Args:
        backbone: Encoder, see :class:`MaskedImageModel`.
        target_generator: One target for all levels, or a list with one per level.
        scales: Cells per patch of the mask and axis at each level, shallow to deep. By
            default those of the encoder's own maps (Swin: ``level_scales``), and
            (4, 2, 1, 0.5) for encoders with one.
        **kwargs: As :class:`MaskedImageModel`.

    Raises:
        ValueError: If the levels of scales, targets and encoder differ in number, or
            cells would not be squares of whole pixels that fit the images.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        target_generator: dict | nn.Module | list,
        scales: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        encoder: Any = build_part(backbone)
        if scales is None:
            scales = getattr(encoder, "level_scales", COLUMNAR_SCALES)
        scales = as_numbers("scales", scales, "a list with one number per level")
        super().__init__(
            backbone=encoder,
            target_generator=with_cells(
                target_generator, scales, encoder.mask_patch_size
            ),
            **kwargs,
        )


def with_cells(
    targets: dict | nn.Module | list,
    scales: Sequence[float],
    patch_size: tuple[int, int],
) -> dict | nn.Module | list:
    """Gives configs of targets the cell sizes that follow from the scales.

    Args:
        targets: A config for all levels, or a list with one per level. Built targets,
            and targets that have no cells or say their size, stay as they are.
        scales: Cells per patch and axis at each level.
        patch_size: Height and width of the mask's patches in pixels.

    Raises:
        ValueError: If a list of targets has another length than ``scales``, or a cell
            would not be a square of whole pixels.
    """
    if not isinstance(targets, list):
        return _with_cell(targets, list(scales), patch_size)
    if len(targets) != len(scales):
        raise ValueError(
            f"target_generator lists {len(targets)} targets for {len(scales)} scales "
            f"({list(scales)}): give one of each per level, shallow to deep"
        )
    return [
        _with_cell(target, scale, patch_size)
        for target, scale in zip(targets, scales, strict=True)
    ]


def _with_cell(
    target: Any, scale: float | list[float], patch_size: tuple[int, int]
) -> Any:
    if not isinstance(target, dict) or "cell_size" in target:
        return target
    kind = target["type"]
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if kind is None or "cell_size" not in inspect.signature(kind).parameters:
        return target
    if isinstance(scale, list):
        sizes: Any = [cell_size_of(each, patch_size) for each in scale]
    else:
        sizes = cell_size_of(scale, patch_size)
    return {**target, "cell_size": sizes}
