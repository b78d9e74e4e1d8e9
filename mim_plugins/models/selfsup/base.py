"""The machine all methods share: mask, encode, decode each level, compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..masking import PatchMask, count_visible
from ..patches import patchify, unpatchify


class MaskedImageModel(BaseSelfSupervisor):
    """Masked image modelling with any encoder, decoders, targets and loss.

    Args:
        backbone: Encoder with ``forward(images, mask) -> latents``, one per level.
        neck: Decoders; ``grid``, ``in_dims`` and ``out_dims`` are taken from the
            encoder and the targets unless given.
        head: Loss over the levels.
        target_generator: What the removed patches are compared with.
        mask_sampler: Draws the masks.
        data_preprocessor: Normalises batches on the device; of type
            ``MIMDataPreprocessor`` unless it says otherwise.
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If the parts do not fit each other: number of levels, channels of
            data and encoder, or a mask ratio that keeps no patch of the grid.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        target_generator: dict | nn.Module,
        mask_sampler: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = {
                "type": "MIMDataPreprocessor",
                **(data_preprocessor or {}),
            }
        backbone = _build(backbone)
        target_generator = _build(target_generator)
        if not isinstance(neck, nn.Module):
            neck = {**self.neck_defaults(backbone, target_generator), **neck}
        super().__init__(
            backbone=backbone,
            neck=_build(neck),
            head=_build(head),
            target_generator=target_generator,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.mask_sampler = _build(mask_sampler)
        self._check_parts()

    @staticmethod
    def neck_defaults(backbone: Any, target_generator: Any) -> dict:
        """Arguments of the neck that follow from the encoder and the targets."""
        return {
            "grid": backbone.grid,
            "in_dims": backbone.level_dims,
            "out_dims": target_generator.out_dims(
                backbone.patch_size, backbone.in_channels
            ),
        }

    def loss(
        self, inputs: Tensor, data_samples: Mapping[str, Tensor] | list | None = None
    ) -> dict[str, Tensor]:
        """Masks, encodes, decodes every level and compares it with its target.

        Args:
            inputs: Normalised images, (N, C, H, W).
            data_samples: Batch information of the data pipeline, see
                :meth:`draw_mask`.

        Returns:
            ``{'loss': ...}`` or ``{'loss_0': ..., 'loss_1': ...}``, shallow to deep.
        """
        mask = self.draw_mask(inputs, data_samples)
        latents = self.backbone(inputs, mask)
        targets = self.target_generator(inputs, mask)
        predictions = self.neck(latents, mask)
        return self.head.loss(predictions, targets)

    def draw_mask(
        self, inputs: Tensor, data_samples: Mapping[str, Tensor] | list | None = None
    ) -> PatchMask:
        """Draws the batch's mask, or takes the one given.

        Args:
            inputs: Images, (N, C, H, W).
            data_samples: A mapping of batch tensors, of which ``mask`` (N, L), 1 =
                removed, is taken as it is and ``seed`` (N,) int64 decides each
                image's mask; or mmpretrain's list of ``DataSample``, whose ``mask``
                is taken; without either, the mask is drawn by torch's generator.
        """
        grid = self.backbone.image_grid(inputs)
        given, seeds = None, None
        if isinstance(data_samples, Mapping):
            given, seeds = data_samples.get("mask"), data_samples.get("seed")
        elif data_samples and getattr(data_samples[0], "mask", None) is not None:
            given = torch.stack([torch.as_tensor(s.mask) for s in data_samples])
        if given is not None:
            return PatchMask.from_mask(given, grid, inputs.device)
        return self.mask_sampler(len(inputs), grid, inputs.device, seeds)

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, mask: PatchMask | Tensor | None = None
    ) -> dict[str, Any]:
        """Predicts every patch, in the space of the inputs.

        Args:
            inputs: Normalised images, (N, C, H, W).
            mask: A given mask; drawn when ``None``.

        Returns:
            ``mask``: the ``PatchMask`` used; ``levels``: one image batch (N, C, H, W)
            per level, shallow to deep, in the space of ``inputs``.
        """
        if mask is None:
            mask = self.draw_mask(inputs)
        elif not isinstance(mask, PatchMask):
            grid = self.backbone.image_grid(inputs)
            mask = PatchMask.from_mask(mask, grid, inputs.device)
        predictions = self.neck(self.backbone(inputs, mask), mask, masked_only=False)
        patches = patchify(inputs, mask.grid).float()
        levels = [
            unpatchify(
                self.target_generator.denormalise(prediction.float(), patches),
                mask.grid,
                self.backbone.patch_size,
            )
            for prediction in predictions
        ]
        return {"mask": mask, "levels": levels}

    def patch_mean(self, inputs: Tensor) -> Tensor:
        """Mean of the last block's normed patch tokens, unmasked: (N, C)."""
        rows, cols = self.backbone.image_grid(inputs)
        nothing_removed = inputs.new_zeros(len(inputs), rows * cols)
        tokens = self.backbone(inputs, nothing_removed)[-1]
        return tokens[:, self.backbone.num_extra_tokens :].mean(dim=1)

    def _check_parts(self) -> None:
        """Checks what only shows once all parts are there.

        Raises:
            ValueError: Naming what does not fit and what to change.
        """
        rows, cols = self.backbone.grid
        ratio = getattr(self.mask_sampler, "mask_ratio", None)
        if ratio is not None:
            count_visible(rows * cols, ratio)
        levels = self.backbone.num_levels
        if self.neck.num_levels != levels:
            raise ValueError(
                f"the encoder has {levels} levels, the neck decodes "
                f"{self.neck.num_levels}: leave the neck's in_dims out, or give one "
                "width per level"
            )
        if not self.backbone.with_cls_token:
            raise ValueError(
                f"{type(self.neck).__name__} needs an encoder with a class token: "
                "leave backbone.with_cls_token at True"
            )
        if self.backbone.out_type == "avg_featmap":
            raise ValueError(
                "backbone.out_type='avg_featmap' adds a norm that pre-training never "
                "trains: leave out_type out here and set it for fine-tuning"
            )
        weights = getattr(self.head, "weights", None)
        if weights is not None and len(weights) != levels:
            raise ValueError(
                f"the head has {len(weights)} loss weights for {levels} levels"
            )
        mean = getattr(self.data_preprocessor, "mean", None)
        channels = self.backbone.in_channels
        if mean is not None and mean.numel() not in (1, channels):
            raise ValueError(
                f"data_preprocessor has mean and std for {mean.numel()} channels, the "
                f"encoder takes {channels}: set backbone.in_channels to the channels "
                "of the data, and mean and std likewise"
            )


def _build(part: dict | nn.Module) -> nn.Module:
    return part if isinstance(part, nn.Module) else MODELS.build(part)
