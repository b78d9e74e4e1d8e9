"""What a pre-trained encoder makes of whole images, with nothing masked."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor

from ..patches import unpatchify

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


def unmasked_features(backbone: Any, inputs: Tensor) -> ImageFeatures:
    """Encodes whole images the way masked ones are encoded in pre-training.

    It is the latent that the last decoder reads, hence normed where that is; for a Swin
    Transformer pre-trained with ``merge_coordinates='official'`` what these
    coordinates give. Where the decoder reads a lower block (D2-MAE), it is what leaves
    the encoder's last one, as fine-tuning starts from it: un-normed, since no norm was
    trained there.

    Args:
        backbone: An encoder of this package that can mask.
        inputs: Normalised images, (N, C, H, W).
    """
    grid = rows, cols = backbone.image_grid(inputs)
    nothing_removed = inputs.new_zeros(len(inputs), rows * cols)
    final = getattr(backbone, "final_block", None)
    if final is None or final == len(backbone.blocks) - 1:
        tokens = backbone(inputs, nothing_removed)[-1]
    else:
        tokens = backbone.whole(backbone.stream(inputs, nothing_removed))
    extra = backbone.num_extra_tokens
    patch = tokens[:, extra:]
    side = math.isqrt(patch.shape[1] // (rows * cols))
    if side > 1 and not getattr(backbone, "keeps_masked_tokens", False):
        # Visible cells come one after the other, a cell's tokens row by row.
        cells = patch.unflatten(1, (rows * cols, side**2)).flatten(2)
        patch = unpatchify(cells, grid, (side, side)).flatten(2).transpose(1, 2)
    return ImageFeatures(
        cls=tokens[:, 0] if extra else None,
        mean=patch.mean(dim=1),
        patch=patch,
        grid=(rows * side, cols * side),
    )


class UnmaskedFeatures:
    """Features of whole images for a pre-training model.

    With it mmpretrain's ``FeatureExtractor`` takes the model by its name, config or
    instance. Which images it makes of files is said by the config's ``test_pipeline``,
    or follows from the encoder's image size, see :func:`inference_pipeline`.
    """

    backbone: Any
    _given_config: Config | None = None

    def image_features(self, inputs: Tensor) -> ImageFeatures:
        """Features of normalised images, (N, C, H, W); nothing is masked."""
        return unmasked_features(self.backbone, inputs)

    def patch_mean(self, inputs: Tensor) -> Tensor:
        """Mean of the patch tokens of the last latent, unmasked: (N, C)."""
        return self.image_features(inputs).mean

    def extract_feat(self, inputs: Tensor, stage: str = "backbone") -> Any:
        """Extracts features of whole images.

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
    def _config(self) -> Config:
        """Where mmpretrain's inferencers read the pipeline for single images.

        A config of pre-training describes no test, and mmengine wants a whole one or
        none; so what is missing is added here, for them alone.
        """
        config = copy.deepcopy(self._given_config or Config())
        if config.get("test_dataloader") is None:
            pipeline = inference_pipeline(config, self.backbone)
            config.test_dataloader = dict(dataset=dict(pipeline=pipeline))
        return config

    @_config.setter
    def _config(self, config: Config) -> None:
        """Called by mmpretrain's ``get_model``."""
        self._given_config = config


def inference_pipeline(config: Mapping[str, Any], backbone: Any) -> list[dict]:
    """The steps that make an image of a file for an encoder.

    Args:
        config: A config, of which the pipeline of ``test_dataloader`` is taken, or
            ``test_pipeline``; without them, the short edge is resized to the size of
            the encoder's images and the centre cropped, so that images of that size
            stay as they are; where it is not square, images are stretched to it.
        backbone: The encoder.

    Raises:
        ValueError: If neither says the size.
    """
    dataset = (config.get("test_dataloader") or {}).get("dataset")
    while isinstance(dataset, Mapping):
        if dataset.get("pipeline"):
            return list(dataset["pipeline"])
        dataset = dataset.get("dataset")
    if config.get("test_pipeline"):
        return list(config["test_pipeline"])
    height, width = _image_size(backbone)
    how: dict[str, Any] = dict(backend="pillow", interpolation="bicubic")
    fit = [dict(type="Resize", scale=(width, height), **how)]
    if height == width:
        fit = [
            dict(type="ResizeEdge", scale=height, edge="short", **how),
            dict(type="CenterCrop", crop_size=height),
        ]
    return [
        # EXIF orientation is ignored, as in training.
        dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
        *fit,
        dict(type="PackInputs"),
    ]


def _image_size(backbone: Any) -> tuple[int, int]:
    """Height and width in pixels of the images an encoder was built for.

    Raises:
        ValueError: If it does not say.
    """
    if hasattr(backbone, "mask_patch_size"):
        sides = zip(backbone.grid, backbone.mask_patch_size, strict=True)
        height, width = (count * side for count, side in sides)
        return height, width
    patches = getattr(backbone, "patch_embed", None)
    size = getattr(backbone, "img_size", getattr(patches, "init_input_size", None))
    if size is None:
        raise ValueError(
            f"a {type(backbone).__name__} does not say the size of its images: give "
            "the config a test_pipeline that resizes them"
        )
    return (size, size) if isinstance(size, int) else (size[0], size[1])
