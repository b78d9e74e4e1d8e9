"""The algorithm all methods share: mask, encode, decode each level, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...checkpoints.loading import convert_when_loaded
from ..arguments import as_numbers
from ..heads import ReconstructionHead
from ..masking import PatchMask, as_patch_mask
from ..patches import patchify, unpatchify
from ..protocols import LevelNeck, MaskedEncoder, MaskedModel, NeckPlan
from ..specs import LevelSpec
from ..targets import LevelTargets, Target
from ..targets.cells import with_cells
from ..targets.teacher import require_teachers
from .checks import (
    check_parts,
    check_targets,
    check_tokens,
    freeze_untrained_blocks,
    one_per_level,
)
from .feature_extraction import FeatureExtraction

# Makes a picture (N, C, H, W) of the prediction that each target is compared with, or
# None where it cannot.
Draw = Callable[[Sequence[Tensor]], Sequence[Tensor | None]]


@MODELS.register_module()
class MaskedImageModel(FeatureExtraction, BaseSelfSupervisor, MaskedModel):
    """Masked image modelling with any encoder, decoders, targets and loss.

    MAE (https://arxiv.org/abs/2111.06377) and SimMIM (https://arxiv.org/abs/2111.09886)
    are this class with one level.

    Args:
        backbone: A :class:`MaskedEncoder`.
        neck: A :class:`LevelNeck`. Arguments that follow from the encoder and the
            targets are filled in where the config does not set them, see
            :meth:`LevelNeck.plan`.
        head: Loss over the levels.
        target_generator: What the removed patches are compared with: one for all
            levels, or a list with one per level.
        mask_sampler: Draws the masks.
        data_preprocessor: Normalises batches on the device; a
            ``MIMDataPreprocessor`` unless it has another type.
        scales: For targets that are made of cells and name no ``cell_size``: cells per
            patch of the mask and axis at each level, shallow to deep. By default the
            ``target_scales`` of the neck's plan; without them targets keep their
            default, a cell per patch.
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If the parts do not fit each other: number of levels and scales,
            cells that are not squares of whole pixels, width of predictions and
            targets, channels of data and encoder, or a mask ratio that keeps no patch
            of the grid.
    """

    head: ReconstructionHead
    target_generator: Target
    # Shape of what each prediction, or sum of them, is compared with.
    target_specs: list[LevelSpec]

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
            data_preprocessor = {
                "type": "MIMDataPreprocessor",
                **(data_preprocessor or {}),
            }
        preprocessor = build_part(data_preprocessor)
        encoder = _build_encoder(backbone)
        neck_type = _neck_type(neck)
        check_tokens(encoder, neck_type)
        plan = neck_type.plan(encoder)
        if scales is None:
            scales = self.default_scales(plan, encoder)
        if scales is not None:
            scales = as_numbers("scales", scales, "a list with one number per level")
            target_generator = with_cells(
                target_generator, scales, encoder.mask_patch_size
            )
        generator = _build_targets(target_generator)
        targets = one_per_level(
            generator.prepare(encoder.image_spec(preprocessor)), plan.num_targets
        )
        if not isinstance(neck, nn.Module):
            neck = {**plan.arguments_for(targets), **neck}
        super().__init__(
            backbone=encoder,
            neck=build_part(neck),
            head=build_part(head),
            target_generator=generator,
            pretrained=pretrained,
            data_preprocessor=preprocessor,
            init_cfg=init_cfg,
        )
        self.mask_sampler = build_part(mask_sampler)
        self.target_specs = targets
        convert_when_loaded(self)
        check_parts(self)
        check_targets(self, targets)
        freeze_untrained_blocks(self)

    def init_weights(self) -> None:
        """Initialises every part; a runner calls it before training starts.

        Raises:
            FileNotFoundError: If the file of a teacher does not exist.
        """
        require_teachers(self)
        super().init_weights()

    @staticmethod
    def default_scales(
        plan: NeckPlan, encoder: MaskedEncoder
    ) -> Sequence[float] | None:
        """Scales of the targets where the config does not set them, if any."""
        return plan.target_scales

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
            a method that adds losses of its own (:meth:`encode`) these too, in addition
            to ``loss_reconstruction`` if there is one level.
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
            levels, by name: none by default.
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
            TypeError: If a given mask is not a tensor.
            ValueError: If it does not fit the images, or no patch is removed.
        """
        grid = self.backbone.image_grid(inputs)
        given, seeds = None, None
        if isinstance(data_samples, Mapping):
            given, seeds = data_samples.get("mask"), data_samples.get("seed")
        elif data_samples and data_samples[0].get("mask") is not None:
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
        self,
        inputs: Tensor,
        mask: PatchMask | Tensor | None = None,
        patch_statistics: bool = True,
    ) -> dict[str, Any]:
        """Predicts every patch, in the space of the inputs.

        Args:
            inputs: Normalised images, (N, C, H, W).
            mask: A given mask; drawn when ``None``.
            patch_statistics: Whether targets that are normalised per patch
                (``norm_pix``) get the mean and deviation of the true patch back. With
                them even a prediction of zero resembles the image; without, images are
                as the loss compares them.

        Returns:
            ``mask``: the ``PatchMask`` used; ``levels``: one image batch (N, C, H, W)
            per name in :attr:`level_names`, in the space of ``inputs``; None where
            something other than pixels is predicted; ``images``: what the last of them
            should be, ``inputs`` with patch statistics; ``predictions``: what the
            neck predicts, from which :meth:`arrange` makes other pictures.
        """
        if mask is None:
            mask = self.draw_mask(inputs)
        else:
            mask = as_patch_mask(mask, inputs, self.backbone.image_grid(inputs))
        predictions = self.neck(self.backbone(inputs, mask), mask, masked_only=False)
        levels = self.pictures(predictions, inputs, mask, patch_statistics)
        images = inputs
        if not patch_statistics:
            patches = patchify(inputs, mask.grid).float()
            count = len(predictions) // self.predictions_per_target
            known = [x for x in self._statistics(predictions[:count], patches) if x]
            if known:
                mean, std = known[-1]
                patch_size = self.backbone.mask_patch_size
                images = unpatchify((patches - mean) / std, mask.grid, patch_size)
        return {
            "mask": mask,
            "levels": levels,
            "images": images,
            "predictions": predictions,
        }

    @property
    def normalises_patches(self) -> bool:
        """Whether a target is pixels that are normalised per patch."""
        # A frozen teacher's network is no registered part of it.
        return any(
            getattr(inner, "norm_pix", False)
            for part in self.target_generator.modules()
            for inner in getattr(part, "network", part).modules()
        )

    def pictures(
        self,
        predictions: Sequence[Tensor],
        inputs: Tensor,
        mask: PatchMask,
        patch_statistics: bool = True,
    ) -> list[Tensor | None]:
        """Turns predictions of every patch into images, as :attr:`level_names` says.

        Args:
            predictions: One (N, L, D) per level, raster order.
            inputs: The images they were made of, (N, C, H, W).
            mask: The mask.
            patch_statistics: See :meth:`reconstruct`.

        Returns:
            One (N, C, H, W) per level; None where no pixels are predicted.
        """
        patches = patchify(inputs, mask.grid).float()
        patch_size = self.backbone.mask_patch_size

        def draw(predictions: Sequence[Tensor]) -> list[Tensor | None]:
            levels = self.target_generator.denormalise(predictions, patches)
            if not patch_statistics:
                levels = [
                    None
                    if level is None or known is None
                    else (level - known[0]) / known[1]
                    for level, known in zip(
                        levels, self._statistics(predictions, patches), strict=True
                    )
                ]
            return [
                level if level is None else unpatchify(level, mask.grid, patch_size)
                for level in levels
            ]

        return self.arrange([prediction.float() for prediction in predictions], draw)

    def arrange(self, predictions: Sequence[Tensor], draw: Draw) -> list[Tensor | None]:
        """Draws predictions in the order of :attr:`level_names`.

        Args:
            predictions: One per decoder, shallow to deep.
            draw: Makes the pictures.
        """
        return list(draw(predictions))

    def _statistics(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[tuple[Tensor, Tensor] | None]:
        """What the target adds to predictions as pixels, and multiplies them by.

        Returns:
            Mean and deviation of the true patches, (N, L, p*q*C) each, per level; 0 and
            1 where the target does not normalise, None where it is not pixels.
        """
        zeros = [torch.zeros_like(prediction).float() for prediction in predictions]
        ones = [torch.ones_like(prediction).float() for prediction in predictions]
        ends = zip(
            self.target_generator.denormalise(zeros, patches),
            self.target_generator.denormalise(ones, patches),
            strict=True,
        )
        return [None if a is None or b is None else (a, b - a) for a, b in ends]

    @property
    def level_names(self) -> list[str]:
        """Captions of the pictures of :meth:`reconstruct`."""
        count = len(self.neck.out_dims)
        if count == 1:
            return ["prediction"]
        if count == self.backbone.num_levels:
            return self.backbone.level_names
        return [f"level {level}" for level in range(count)]


def build_part(part: dict | nn.Module) -> Any:
    """Builds a part of a model from its config, unless it is built already."""
    return part if isinstance(part, nn.Module) else MODELS.build(part)


def _build_encoder(backbone: dict | nn.Module) -> MaskedEncoder:
    """Builds the encoder.

    Raises:
        TypeError: If it cannot encode masked images.
    """
    encoder = build_part(backbone)
    if not isinstance(encoder, MaskedEncoder):
        raise TypeError(
            f"a {type(encoder).__name__} cannot encode masked images: take an encoder "
            "of this package for backbone, such as MIMVisionTransformer, or subclass "
            "mim_plugins.models.protocols.MaskedEncoder"
        )
    return encoder


def _neck_type(neck: dict | nn.Module) -> type[LevelNeck]:
    """The class of a neck, built or not.

    Raises:
        TypeError: If it is not a neck of pre-training.
    """
    kind: Any = type(neck) if isinstance(neck, nn.Module) else neck["type"]
    if isinstance(kind, str):
        # For an unknown name, let the registry raise its own error.
        kind = MODELS.get(kind) or type(MODELS.build(neck))
    if not issubclass(kind, LevelNeck):
        raise TypeError(
            f"a {kind.__name__} does not decode the levels of a masked encoder: take a "
            "decoder of this package for neck, such as MIMDecoder, or subclass "
            "mim_plugins.models.protocols.LevelNeck"
        )
    return kind


def _build_targets(targets: dict | nn.Module | Sequence) -> Target:
    """Builds a target, or a list of them; equal configs share one target."""
    if not isinstance(targets, Sequence):
        return build_part(targets)
    built: list[Target] = []
    for index, target in enumerate(targets):
        first = list(targets).index(target)
        built.append(built[first] if first < index else build_part(target))
    return LevelTargets(built)
