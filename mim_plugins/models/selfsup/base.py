"""The machine all methods share: mask, encode, decode each level, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..arguments import as_numbers
from ..data_preprocessor import reverses_channels
from ..masking import PatchMask, as_patch_mask
from ..patches import patchify, unpatchify
from ..targets import ImageSpec, LevelSpec, LevelTargets
from ..targets.cells import with_cells
from .checks import check_blocks, check_parts, check_targets, one_per_level
from .unmasked import UnmaskedFeatures


@MODELS.register_module()
class MaskedImageModel(UnmaskedFeatures, BaseSelfSupervisor):
    """Masked image modelling with any encoder, decoders, targets and loss.

    MAE (https://arxiv.org/abs/2111.06377) and SimMIM (https://arxiv.org/abs/2111.09886)
    are this class with one level.

    Args:
        backbone: Encoder with ``forward(images, mask) -> latents``, one per level.
        neck: Decoders; ``grid``, ``in_dims``, ``out_dims``, and what its class method
            ``follows_from`` names, are taken from the encoder and the targets unless
            given. There is a target for each level of the encoder, unless its class
            method ``count_targets`` says otherwise.
        head: Loss over the levels.
        target_generator: What the removed patches are compared with: one for all
            levels, or a list with one per level.
        mask_sampler: Draws the masks.
        data_preprocessor: Normalises batches on the device; of type
            ``MIMDataPreprocessor`` unless it says otherwise.
        scales: For targets that are made of cells and name no ``cell_size``: cells per
            patch of the mask and axis at each level, shallow to deep. By default what
            the neck's class method ``default_scales`` says; without one, targets keep
            their default, a cell per patch.
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If the parts do not fit each other: number of levels and scales,
            cells that are no squares of whole pixels, width of predictions and
            targets, channels of data and encoder, or a mask ratio that keeps no patch
            of the grid; or if blocks would be trained by nothing.
    """

    # Predictions that are compared with one target together; neck and head say theirs.
    predictions_per_target = 1
    # Whether something trains the blocks behind the encoder's `final_block`.
    trains_all_blocks = False

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        target_generator: dict | nn.Module | list,
        mask_sampler: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        scales: Sequence[float] | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(
                {"type": "MIMDataPreprocessor", **(data_preprocessor or {})}
            )
        encoder: Any = build_part(backbone)
        if scales is None:
            scales = self.default_scales(neck, encoder)
        if scales is not None:
            scales = as_numbers("scales", scales, "a list with one number per level")
            target_generator = with_cells(
                target_generator, scales, encoder.mask_patch_size
            )
        generator = _build_targets(target_generator)
        targets = one_per_level(
            generator.prepare(_image_spec(encoder, data_preprocessor)),
            _count_targets(neck, encoder),
        )
        if not isinstance(neck, nn.Module):
            neck = {
                **self.neck_defaults(encoder, targets),
                **_further_arguments(neck, encoder, targets),
                **neck,
            }
        super().__init__(
            backbone=encoder,
            neck=build_part(neck),
            head=build_part(head),
            target_generator=generator,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.mask_sampler = build_part(mask_sampler)
        check_parts(self)
        check_targets(self, targets)
        check_blocks(self)

    @staticmethod
    def default_scales(neck: dict | nn.Module, backbone: Any) -> Sequence[float] | None:
        """Scales of the targets with such a neck and encoder, if it says any."""
        kind = _type_of(neck)
        if not hasattr(kind, "default_scales"):
            return None
        return kind.default_scales(backbone)

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
            ``{'loss': ...}`` or ``{'loss_0': ..., 'loss_1': ...}``, shallow to deep; of
            a method that adds losses of its own (:meth:`encode`) these too, beside
            ``loss_reconstruction`` if there is one level.
        """
        mask = self.draw_mask(inputs, data_samples)
        latents, added = self.encode(inputs, mask)
        targets = self.target_generator(inputs, mask)
        predictions = self.neck(latents, mask)
        losses = self.head.loss(predictions, targets)
        if added and "loss" in losses:
            # mmengine logs the sum under this name.
            losses["loss_reconstruction"] = losses.pop("loss")
        return losses | added

    def encode(
        self, inputs: Tensor, mask: PatchMask
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Encodes a training batch.

        Returns:
            One latent per level, and the losses that a method adds to those of the
            levels, by name: none, unless it says otherwise.
        """
        return self.backbone(inputs, mask), {}

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

        Raises:
            TypeError: If a given mask is no tensor.
            ValueError: If it does not fit the images, or no patch is removed.
        """
        grid = self.backbone.image_grid(inputs)
        given, seeds = None, None
        if isinstance(data_samples, Mapping):
            given, seeds = data_samples.get("mask"), data_samples.get("seed")
        elif data_samples and getattr(data_samples[0], "mask", None) is not None:
            given = torch.stack([torch.as_tensor(s.mask) for s in data_samples])
        if given is not None:
            mask = as_patch_mask(given, inputs, grid)
        else:
            mask = self.mask_sampler(len(inputs), grid, inputs.device, seeds)
        if mask.num_masked == 0:
            raise ValueError(
                f"the mask removes none of the {mask.num_patches} patches, so that "
                "there is nothing to predict: at least one has to be 1"
            )
        return mask

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
        else:
            mask = as_patch_mask(mask, inputs, self.backbone.image_grid(inputs))
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


def _count_targets(neck: dict | nn.Module, backbone: Any) -> int:
    """Number of targets that a neck of this type has, with such an encoder."""
    kind = _type_of(neck)
    if not hasattr(kind, "count_targets"):
        return backbone.num_levels
    return kind.count_targets(backbone)


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


def _image_spec(backbone: Any, data_preprocessor: Any) -> ImageSpec:
    return ImageSpec(
        grid=backbone.grid,
        patch_size=backbone.mask_patch_size,
        channels=backbone.in_channels,
        mean=getattr(data_preprocessor, "mean", None),
        std=getattr(data_preprocessor, "std", None),
        bgr_to_rgb=reverses_channels(data_preprocessor),
    )
