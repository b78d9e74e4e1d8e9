"""Targets that mix the true pixels with their reconstruction by a frozen MAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ..arguments import as_numbers, is_number
from ..masking import PatchMask
from ..protocols import MaskedModel
from .base import ImageSpec, LevelSpec, LevelTarget, Target
from .teacher import AbsentTeacher, FrozenTeacher, load_teacher


@MODELS.register_module()
class HybridTarget(Target):
    """A mix of the true patch and its reconstruction by a frozen masked autoencoder.

    Level m is compared with ``alpha_m * x + (1 - alpha_m) * x_hat``: shallow levels
    get the teacher's blurred reconstruction ``x_hat``, which is easier to match, deep
    ones the true patch ``x`` (DeepMIM, https://arxiv.org/abs/2303.08817, hybrid
    targets). The teacher sees the same visible patches as the student, and both x and
    x_hat are in the space the teacher predicts in, patches normalised if it was
    trained so. With ``alpha=0`` the target is the teacher's prediction alone.

    Args:
        alpha: Share of the true patch, from 0 to 1: one per level, shallow to deep,
            or one for all. The paper's for four levels is ``(0, 1/3, 2/3, 1)``.
        teacher: Config of the model the teacher was trained as, such as that of
            ``configs/mae/vitb_1600e.py``.
        checkpoint: Its weights with decoder: a checkpoint of this package, or of
            facebookresearch/mae or DeepMIM.

    Raises:
        ValueError: If an ``alpha`` lies outside [0, 1], the teacher predicts something
            else than complete patches, or the checkpoint does not fit it.

    Note:
        If the file ``checkpoint`` does not exist the model can still be built, for
        anything but training.
    """

    def __init__(
        self, alpha: float | Sequence[float], teacher: dict, checkpoint: str | Path
    ) -> None:
        super().__init__()
        self.alphas = as_numbers(
            "alpha",
            [alpha] if is_number(alpha) else alpha,
            "one share of the true patch, from 0 to 1, or a list with one per level",
        )
        for value in self.alphas:
            if not 0 <= value <= 1:
                raise ValueError(
                    "alpha, the share of the true patch, lies between 0 (the "
                    f"teacher's prediction) and 1 (pixels); got {value}"
                )
        network = MODELS.build(teacher)
        if not isinstance(network, MaskedModel) or network.predictions_per_target != 1:
            raise ValueError(
                f"a {type(network).__name__} cannot be the teacher, whose deepest "
                "prediction has to be a complete patch: give the model of a masked "
                "autoencoder, type='DeepMIM' (MAE: without taps)"
            )
        self.teacher = load_teacher(
            network,
            checkpoint,
            option="target_generator.checkpoint",
            otherwise="train on pixels, configs/deepmim/mae_vitb_300e.py",
        )
        # Not in the model's state dict either.
        self.true_patches = FrozenTeacher(network.target_generator)
        self.images = network.backbone.image_spec(network.data_preprocessor)

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """As wide as the teacher's prediction.

        Raises:
            ValueError: If the teacher is built for other patches, or images
                normalised otherwise, or predicts larger cells than patches.
        """
        if not isinstance(self.teacher, AbsentTeacher):
            self._check_images(images)
        spec = self.true_patches.network.prepare(images)[-1]
        if spec.scale < 1:
            raise ValueError(
                "the deepest prediction of the teacher has one cell for "
                f"{round(1 / spec.scale)} patches per axis, which cannot be mixed with "
                "single patches: give a teacher that predicts patches, such as MAE"
            )
        return [spec] * len(self.alphas)

    def _check_images(self, images: ImageSpec) -> None:
        """Checks that teacher and student see the same patches of the same images.

        Raises:
            ValueError: Naming what differs.
        """
        own = self.images
        if own.patch_size != images.patch_size:
            raise ValueError(
                f"the teacher has patches of {own.patch_size} pixels, the student of "
                f"{images.patch_size}: they must see the same patches; give a teacher "
                "of the student's patch_size"
            )
        if own.channels != images.channels:
            raise ValueError(
                f"the teacher takes {own.channels} image channels, the student "
                f"{images.channels}"
            )
        for name, theirs, ours in (
            ("mean", own.mean, images.mean),
            ("std", own.std, images.std),
        ):
            if not _same(theirs, ours):
                raise ValueError(
                    f"the teacher's data_preprocessor has {name}="
                    f"{_values(theirs)}, the student's {_values(ours)}: both get the "
                    "same normalised images, so give them the same data_preprocessor"
                )
        if own.bgr_to_rgb != images.bgr_to_rgb:
            raise ValueError(
                "one of teacher and student reverses the channels of its images "
                f"(the student: bgr_to_rgb={images.bgr_to_rgb}), the other does not: "
                "both get the same images, so give them the same data_preprocessor"
            )

    @torch.no_grad()
    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Mixes the removed patches, (N, L_mask, width) per level."""
        predicted = self.predict(inputs, mask)
        true = self.true_patches.network(inputs, mask)[-1].values
        return [LevelTarget(torch.lerp(predicted, true, a)) for a in self.alphas]

    @torch.no_grad()
    def predict(self, inputs: Tensor, mask: PatchMask) -> Tensor:
        """The teacher's prediction of the removed patches, (N, L_mask, width)."""
        if isinstance(self.teacher, AbsentTeacher):
            self.teacher.refuse()
        network = self.teacher.network
        latents = network.backbone(self.teacher.cast(inputs), mask)
        return network.neck(latents, mask)[-1].float()

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """As the teacher's own targets."""
        return self.true_patches.network.denormalise(predictions, patches)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    # Values cannot be read from a model that is only being laid out.
    return a.is_meta or b.is_meta or (a.numel() == b.numel() and torch.equal(a, b))


def _values(tensor: Tensor | None) -> list | None:
    return None if tensor is None else tensor.flatten().tolist()
