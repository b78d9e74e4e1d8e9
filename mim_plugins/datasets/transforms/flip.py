"""The draw of a horizontal flip, without the flip."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DrawFlip(BaseTransform):
    """Draws whether an image is to be mirrored, and leaves the mirroring to the device.

    ``MIMDataPreprocessor`` mirrors the whole batch at once, where it costs next to
    nothing. Only ``PackPretrainInputs`` hands the draw on; a pipeline that ends in
    mmpretrain's ``PackInputs`` needs ``RandomFlip``.

    Args:
        prob: Probability of a flip, in [0, 1].

    Raises:
        ValueError: If ``prob`` is outside [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob of DrawFlip must be in [0, 1], got {prob}")
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Sets ``results['flip']``.

        Args:
            results: Dict of a sample.
        """
        results["flip"] = bool(np.random.random() < self.prob)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"
