"""mmpretrain's feature extractor, with files loaded as in training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from mmpretrain.apis import FeatureExtractor as MMFeatureExtractor
from mmpretrain.registry import TRANSFORMS

from ..models.selfsup.feature_extraction import FeatureExtraction


class FeatureExtractor(MMFeatureExtractor):
    """mmpretrain's ``FeatureExtractor``, which loads files by the model's own pipeline.

    mmpretrain's decodes every file to 8-bit BGR and turns it as EXIF says, whatever the
    model was trained on. Arrays are taken as the first step of the pipeline gives them:
    8-bit images as BGR. Arguments and results are those of the base class.
    """

    def _init_pipeline(self, cfg: Config) -> Compose:
        """Builds the pipeline for arrays, and the one for files."""
        if isinstance(self.model, FeatureExtraction):
            steps = self.model.file_pipeline
        else:
            steps = cfg.test_dataloader.dataset.pipeline
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            built = [TRANSFORMS.build(step) for step in steps]
        self._for_files = Compose(built)
        self._to_float32 = any(getattr(step, "to_float32", False) for step in built)
        return Compose([step for step in built if "Load" not in type(step).__name__])

    def preprocess(self, inputs: Sequence[Any], batch_size: int = 1) -> Iterator[Any]:
        """Loads images in batches.

        Args:
            inputs: Paths or arrays.
            batch_size: Images at a time.
        """
        chunks = self._get_chunk_data(map(self._load, inputs), batch_size)
        yield from map(default_collate, chunks)

    def _load(self, image: str | os.PathLike | np.ndarray) -> dict:
        if not isinstance(image, np.ndarray):
            return self._for_files({"img_path": str(image)})
        if self._to_float32:
            image = image.astype(np.float32)
        size = image.shape[:2]
        return self.pipeline({"img": image, "img_shape": size, "ori_shape": size})
