"""The machine all methods share: mask, encode, decode each level, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..masking import PatchMask
from ..patches import patchify, unpatchify
from ..targets import ImageSpec, LevelSpec, LevelTargets


class MaskedImageModel(BaseSelfSupervisor):
    """Masked image modelling with any encoder, decoders, targets and loss.

    Args:
        backbone: Encoder with ``forward(images, mask) -> latents``, one per level.
        neck: Decoders; ``grid``, ``in_dims``, ``out_dims``, and what its class method
            ``follows_from`` names, are taken from the encoder and the targets unless
            given.
        head: Loss over the levels.
        target_generator: What the removed patches are compared with: one for all
            levels, or a list with one per level.
        mask_sampler: Draws the masks.
        data_preprocessor: Normalises batches on the device; of type
            ``MIMDataPreprocessor`` unless it says otherwise.
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If the parts do not fit each other: number of levels, width of
            predictions and targets, channels of data and encoder, or a mask ratio
            that keeps no patch of the grid.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        target_generator: dict | nn.Module | list,
        mask_sampler: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(
                {"type": "MIMDataPreprocessor", **(data_preprocessor or {})}
            )
        backbone = build_part(backbone)
        generator = _build_targets(target_generator)
        fuses_levels = getattr(_type_of(neck), "fuses_levels", False)
        targets = _one_per_level(
            generator.prepare(_image_spec(backbone, data_preprocessor)),
            1 if fuses_levels else self.num_predictions(backbone),
        )
        if not isinstance(neck, nn.Module):
            neck = {
                **self.neck_defaults(backbone, targets),
                **_further_arguments(neck, backbone, targets),
                **neck,
            }
        super().__init__(
            backbone=backbone,
            neck=build_part(neck),
            head=build_part(head),
            target_generator=generator,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.mask_sampler = build_part(mask_sampler)
        self._check_parts()
        self._check_targets(targets)

    @staticmethod
    def num_predictions(backbone: Any) -> int:
        """Number of predictions that are compared with a target: one per level.

        A neck that says ``fuses_levels`` makes one of them all.
        """
        return backbone.num_levels

    @staticmethod
    def neck_defaults(backbone: Any, targets: Sequence[LevelSpec]) -> dict:
        """Arguments of the neck that follow from the encoder and the targets."""
        return {
            "grid": backbone.grid,
            "in_dims": backbone.level_dims,
            "out_dims": [target.width for target in targets],
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
        return self.level_losses(latents, inputs, mask)

    def level_losses(
        self, latents: Sequence[Tensor], inputs: Tensor, mask: PatchMask
    ) -> dict[str, Tensor]:
        """Decodes every level and compares it with its target."""
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
            per name in :attr:`level_names`, in the space of ``inputs``; None where
            something other than pixels is predicted.
        """
        if mask is None:
            mask = self.draw_mask(inputs)
        elif not isinstance(mask, PatchMask):
            grid = self.backbone.image_grid(inputs)
            mask = PatchMask.from_mask(mask, grid, inputs.device)
        predictions = self.neck(self.backbone(inputs, mask), mask, masked_only=False)
        return {"mask": mask, "levels": self.pictures(predictions, inputs, mask)}

    def pictures(
        self, predictions: Sequence[Tensor], inputs: Tensor, mask: PatchMask
    ) -> list[Tensor | None]:
        """Turns predictions of every patch into images, as :attr:`level_names` says.

        Args:
            predictions: One (N, L, D) per level, raster order.
            inputs: The images they were made of, (N, C, H, W).
            mask: The mask.

        Returns:
            One (N, C, H, W) per level; None where no pixels are predicted.
        """
        levels = self.target_generator.denormalise(
            [prediction.float() for prediction in predictions],
            patchify(inputs, mask.grid).float(),
        )
        patch_size = self.backbone.mask_patch_size
        return [
            level if level is None else unpatchify(level, mask.grid, patch_size)
            for level in levels
        ]

    @property
    def level_names(self) -> list[str]:
        """Captions of the pictures of :meth:`reconstruct`: encoder blocks, from 1."""
        count = len(self.neck.out_dims)
        if count == 1:
            return ["prediction"]
        taps = getattr(self.backbone, "taps", ())
        if len(taps) == count - 1:
            last = self.backbone.num_layers - 1
            blocks = [*taps, getattr(self.backbone, "final_block", last)]
            return [f"block {block + 1}" for block in blocks]
        return [f"level {level}" for level in range(count)]

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
        count_visible: Any = getattr(self.mask_sampler, "count_visible", None)
        if count_visible is not None:
            count_visible(rows * cols)
        levels = self.backbone.num_levels
        if self.neck.num_levels != levels:
            raise ValueError(
                f"the encoder has {levels} levels, the neck decodes "
                f"{self.neck.num_levels}: leave the neck's in_dims out, or give one "
                "width per level"
            )
        whole = getattr(self.backbone, "keeps_masked_tokens", False)
        if whole != getattr(self.neck, "decodes_maps", False):
            raise ValueError(
                f"{type(self.backbone).__name__} gives "
                f"{'whole maps' if whole else 'visible tokens alone'}, which "
                f"{type(self.neck).__name__} does not decode: SimMIMDecoder goes with "
                "SimMIMSwin, all other decoders with all other encoders"
            )
        if self.neck.needs_cls_token and not self.backbone.with_cls_token:
            raise ValueError(
                f"{type(self.neck).__name__} needs an encoder with a class token: "
                "leave backbone.with_cls_token at True"
            )
        if self.backbone.out_type == "avg_featmap":
            raise ValueError(
                "backbone.out_type='avg_featmap' adds a norm that pre-training never "
                "trains: leave out_type out here and set it for fine-tuning"
            )
        self.head.check_levels(len(self.neck.out_dims))
        mean = getattr(self.data_preprocessor, "mean", None)
        channels = self.backbone.in_channels
        if mean is not None and mean.numel() not in (1, channels):
            raise ValueError(
                f"data_preprocessor has mean and std for {mean.numel()} channels, the "
                f"encoder takes {channels}: set backbone.in_channels to the channels "
                "of the data, and mean and std likewise"
            )

    def _check_targets(self, targets: Sequence[LevelSpec]) -> None:
        """Checks every level's prediction against its target.

        Raises:
            ValueError: Naming the level, and what to change.
        """
        for level, (target, width) in enumerate(
            zip(targets, self.neck.out_dims, strict=True)
        ):
            self.neck.check_target(level, target)
            if width != target.width:
                raise ValueError(
                    f"level {level} predicts {width} values per patch, its target has "
                    f"{target.width}: leave the neck's out_dims out, it follows from "
                    "the target"
                )


def build_part(part: dict | nn.Module) -> nn.Module:
    """Builds a part of a model from its config, unless it is built already."""
    return part if isinstance(part, nn.Module) else MODELS.build(part)


def _build_targets(targets: dict | nn.Module | Sequence) -> Any:
    """Builds a target, or a list of them, of which equal configs are one target."""
    if not isinstance(targets, Sequence):
        return build_part(targets)
    built: list[Any] = []
    for index, target in enumerate(targets):
        first = list(targets).index(target)
        built.append(built[first] if first < index else build_part(target))
    return LevelTargets(built)


def _further_arguments(
    neck: dict, backbone: Any, targets: Sequence[LevelSpec]
) -> dict[str, Any]:
    """What a neck of this type alone takes from the encoder and the targets."""
    kind = _type_of(neck)
    if not hasattr(kind, "follows_from"):
        return {}
    return kind.follows_from(backbone, targets)


def _type_of(part: dict | nn.Module) -> Any:
    """The class of a part, built or not."""
    if isinstance(part, nn.Module):
        return type(part)
    kind = part["type"]
    return MODELS.get(kind) if isinstance(kind, str) else kind


def _one_per_level(targets: list[LevelSpec], num_levels: int) -> list[LevelSpec]:
    """One shape for each prediction.

    Raises:
        ValueError: If the targets are for another number of levels.
    """
    if len(targets) == 1:
        return targets * num_levels
    if len(targets) != num_levels:
        raise ValueError(
            f"target_generator makes targets for {len(targets)} levels, the model has "
            f"{num_levels}: give one value (target, alpha, cell_size) for all levels, "
            "or one per level, shallow to deep"
        )
    return targets


def _image_spec(backbone: Any, data_preprocessor: Any) -> ImageSpec:
    return ImageSpec(
        grid=backbone.grid,
        patch_size=backbone.mask_patch_size,
        channels=backbone.in_channels,
        mean=getattr(data_preprocessor, "mean", None),
        std=getattr(data_preprocessor, "std", None),
    )
