"""Images that were decoded elsewhere, in the form a run's own loader gives them."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TakeDecodedImage(BaseTransform):
    """Makes of an image of mmpretrain's inferencers what ``LoadImageFromFile`` gives.

    The inferencers decode every file to 8-bit BGR. Colour becomes grey where training
    loaded grey; what the decoding has removed cannot be restored.

    Args:
        color_type: That of ``LoadImageFromFile`` in training.
        to_float32: Likewise.
    """

    def __init__(self, color_type: str = "color", to_float32: bool = False) -> None:
        self.color_type = color_type
        self.to_float32 = to_float32

    def transform(self, results: dict) -> dict:
        """Converts the image.

        Args:
            results: Dict of a sample with ``img``, (H, W, C) or (H, W).

        Raises:
            ValueError: If the image has 8 bits, and training used what files hold.
        """
        image = results["img"]
        if self.color_type == "unchanged" and self.to_float32:
            if image.dtype == np.uint8:
                raise ValueError(
                    "this model was trained on images with the values of their files "
                    "(color_type='unchanged', to_float32=True), but this one has been "
                    "decoded to 8 bits, as mmpretrain's FeatureExtractor does: use "
                    "mim_plugins.evaluation.FeatureExtractor, or give an array of the "
                    "files' values"
                )
        if self.color_type.startswith("grayscale") and image.ndim == 3:
            if image.shape[2] == 3:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(color_type={self.color_type!r}, "
            f"to_float32={self.to_float32})"
        )
