"""Transforms of pairs of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ...models.trackers.crops import Region


@TRANSFORMS.register_module()
class CropPair(BaseTransform):
    """Crops template and search region around the object.

    The crop is around the box, jittered: its sides times ``exp(scale * N(0, 1))``
    each, its centre moved by up to half of ``centre`` times the square root of its
    area, along both axes. A pair of which a crop has no pixel of its image is drawn
    again.

    Args:
        sizes: Sides of template and search region in pixels.
        factors: Their sides, relative to the square root of the area of the box.
        scale_jitter: Deviation of the logarithm of a side, of both.
        centre_jitter: Width of the range of the centre, of both.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (128, 256),
        factors: Sequence[float] = (2.0, 4.0),
        scale_jitter: Sequence[float] = (0.0, 0.25),
        centre_jitter: Sequence[float] = (0.0, 3.0),
    ) -> None:
        self.sizes = sizes
        self.factors = factors
        self.scale_jitter = scale_jitter
        self.centre_jitter = centre_jitter

    def transform(self, results: dict) -> dict | None:
        """Crops both frames; boxes are then in pixels of the crops.

        Args:
            results: Dict of a pair, see ``TrackingPairs``.
        """
        crops, boxes = [], []
        for k, (image, corners) in enumerate(
            zip(results["img"], results["gt_bboxes"], strict=True)
        ):
            x1, y1, x2, y2 = (float(value) for value in corners[0])
            box = np.array([x1, y1, x2 - x1, y2 - y1])
            region = Region.around(self._jittered(box, k), self.factors[k])
            if not region.meets(image):
                return None
            crops.append(region.crop(image, self.sizes[k]))
            x, y, width, height = region.relative(box) * self.sizes[k]
            boxes.append(np.array([[x, y, x + width, y + height]], np.float32))
        results["img"], results["gt_bboxes"] = crops, boxes
        results["img_shape"] = [crop.shape[:2] for crop in crops]
        return results

    def _jittered(self, box: np.ndarray, k: int) -> np.ndarray:
        size = box[2:] * np.exp(np.random.randn(2) * self.scale_jitter[k])
        reach = np.sqrt(size.prod()) * self.centre_jitter[k]
        centre = box[:2] + box[2:] / 2 + reach * (np.random.rand(2) - 0.5)
        return np.concatenate([centre - size / 2, size])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(sizes={self.sizes}, factors={self.factors}, "
            f"scale_jitter={self.scale_jitter}, centre_jitter={self.centre_jitter})"
        )


@TRANSFORMS.register_module()
class PackPair(BaseTransform):
    """The end of a pipeline of pairs.

    The item is ``dict(inputs=dict(template=..., search=...), data_samples=...)``: the
    images (3, H, W) uint8; ``data_samples`` holds ``box``: x, y, width and height in
    the search region, relative to its side, and ``sample_idx``, ``seed`` and
    ``replaced`` of ``SeededDataset``.
    """

    KEYS = ("sample_idx", "seed", "replaced")

    def transform(self, results: dict) -> dict:
        """Packs one pair.

        Args:
            results: Dict of a pair, see ``TrackingPairs``.
        """
        template, search = (
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            for image in results["img"]
        )
        x1, y1, x2, y2 = results["gt_bboxes"][1][0] / results["img"][1].shape[0]
        samples = {key: results[key] for key in self.KEYS if key in results}
        samples["box"] = torch.tensor([x1, y1, x2 - x1, y2 - y1], dtype=torch.float32)
        return {
            "inputs": {"template": template, "search": search},
            "data_samples": samples,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
