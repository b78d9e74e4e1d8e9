"""Features of complete images from a pre-trained encoder, with nothing masked."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor

from ..patches import unpatchify
from ..protocols import MaskedEncoder
from .image_loading import for_decoded_images, inference_pipeline

STAGES = ("backbone", "cls", "mean", "patch")


class ImageFeatures(NamedTuple):
    """Features of a batch of images.

    Args:
        cls: Class token, (N, C), or None where the encoder has none.
        mean: Mean of the patch tokens, (N, C).
        patch: Patch tokens in raster order, (N, L, C).
        grid: Rows and columns of the patch tokens; ``L = rows * cols``.
    """

    cls: Tensor | None
    mean: Tensor
    patch: Tensor
    grid: tuple[int, int]

    @property
    def present(self) -> dict[str, Tensor]:
        """The features there are, by name."""
        found = {"cls": self.cls, "mean": self.mean, "patch": self.patch}
        return {name: value for name, value in found.items() if value is not None}

    def of(self, stage: str) -> Tensor:
        """One of ``cls``, ``mean`` and ``patch``.

        Raises:
            ValueError: If it is ``cls`` and there is no class token, or none of them.
        """
        if stage == "cls" and self.cls is None:
            raise ValueError(
                "this encoder has no class token, so there is no feature 'cls'; take "
                "'mean' or 'patch'"
            )
        if stage not in ("cls", "mean", "patch"):
            raise ValueError(f"a feature is one of cls, mean and patch; got {stage!r}")
        return self.present[stage]


def extract_features(backbone: MaskedEncoder, inputs: Tensor) -> ImageFeatures:
    """Encodes complete images as masked ones are encoded in pre-training.

    The features are the latent that the last decoder reads, hence normed where that is;
    for a Swin Transformer pre-trained with ``merge_coordinates='official'`` with these
    coordinates. Where the decoder reads a lower block (D2-MAE), they are the output of
    the encoder's last block, from which fine-tuning starts: un-normed, since no norm
    was trained there.

    Args:
        backbone: The encoder.
        inputs: Normalised images, (N, C, H, W).
    """
    grid = rows, cols = backbone.image_grid(inputs)
    tokens = backbone.encode_unmasked(inputs)
    extra = backbone.num_extra_tokens
    patch = tokens[:, extra:]
    side = math.isqrt(patch.shape[1] // (rows * cols))
    if side > 1 and not backbone.keeps_masked_tokens:
        # Visible cells come one after the other, a cell's tokens row by row.
        cells = patch.unflatten(1, (rows * cols, side**2)).flatten(2)
        patch = unpatchify(cells, grid, (side, side)).flatten(2).transpose(1, 2)
    return ImageFeatures(
        cls=tokens[:, 0] if extra else None,
        mean=patch.mean(dim=1),
        patch=patch,
        grid=(rows * side, cols * side),
    )


class FeatureExtraction:
    """Feature extraction for a pre-training model.

    mmpretrain's ``FeatureExtractor``, and that of :mod:`mim_plugins.evaluation`, take
    such a model by its name, config or instance. The latter loads image files as
    training did, see :func:`.image_loading.inference_pipeline`; mmpretrain's decodes
    all to 8-bit colour, and where the model needs more, this is an error.
    """

    backbone: MaskedEncoder
    _given_config: Config | None = None

    def image_features(self, inputs: Tensor) -> ImageFeatures:
        """Features of normalised images, (N, C, H, W); nothing is masked."""
        return extract_features(self.backbone, inputs)

    def patch_mean(self, inputs: Tensor) -> Tensor:
        """Mean of the patch tokens of the last latent with nothing masked, (N, C)."""
        return self.image_features(inputs).mean

    def extract_feat(self, inputs: Tensor, stage: str = "backbone") -> Any:
        """Extracts features of complete images.

        Args:
            inputs: Normalised images, (N, C, H, W).
            stage: ``'backbone'``: the tuple that the encoder returns without a mask,
                see its ``out_type``; ``'cls'`` (N, C), ``'mean'`` (N, C), ``'patch'``
                (N, L, C): see :class:`ImageFeatures`.

        Raises:
            ValueError: If there is no such stage, or no class token.
        """
        if stage not in STAGES:
            raise ValueError(
                f"stage={stage!r}: a {type(self).__name__} gives the features of "
                f"{', '.join(STAGES)}"
            )
        if stage == "backbone":
            return self.backbone(inputs)
        return self.image_features(inputs).of(stage)

    @property
    def file_pipeline(self) -> list[dict]:
        """The pipeline that loads image files as training did."""
        return inference_pipeline(self._given_config or {}, self.backbone)

    @property
    def _config(self) -> Config:
        """Where mmpretrain's inferencers read the pipeline for single images.

        A config of pre-training describes no test, and mmengine requires a complete one
        or none; so what is missing is added here, for the inferencers alone.
        """
        config = copy.deepcopy(self._given_config or Config())
        pipeline = for_decoded_images(self.file_pipeline)
        config.test_dataloader = dict(dataset=dict(pipeline=pipeline))
        return config

    @_config.setter
    def _config(self, config: Config) -> None:
        """Called by mmpretrain's ``get_model``."""
        self._given_config = config
