"""From pairs of uint8 crops to normalised ones, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.registry import MODELS

from ..data_preprocessor import MIMDataPreprocessor


@MODELS.register_module()
class TrackingDataPreprocessor(MIMDataPreprocessor):
    """``MIMDataPreprocessor`` for batches of pairs.

    Args:
        **kwargs: As ``MIMDataPreprocessor``: ``mean``, ``std``, ``bgr_to_rgb``.
    """

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict:
        """Normalises every image of a pair.

        Args:
            data: ``inputs``: a dict of images (N, C, H, W), ``template`` and
                ``search``; ``data_samples``: tensors of the batch.
            training: Unused.

        Raises:
            TypeError: If ``inputs`` is no dict.
        """
        inputs = data["inputs"]
        if not isinstance(inputs, Mapping):
            raise TypeError(
                "inputs of a tracker are a dict with 'template' and 'search', got "
                f"{type(inputs).__name__}: end the pipeline with PackPair, and set "
                "collate_fn=dict(type='default_collate') in the loader"
            )
        normalised = {
            name: super(TrackingDataPreprocessor, self).forward({"inputs": images})
            for name, images in inputs.items()
        }
        return {
            "inputs": {name: x["inputs"] for name, x in normalised.items()},
            "data_samples": self.cast_data(data.get("data_samples")),
        }
