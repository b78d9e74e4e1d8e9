"""The end of a pre-training pipeline."""

from __future__ import annotations

import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets import PackInputs
from torch import Tensor


@TRANSFORMS.register_module()
class PackPretrainInputs(BaseTransform):
    """Packs an image and the few numbers pre-training needs in addition.

    Where mmpretrain's ``PackInputs`` makes one ``DataSample`` per image,
    ``default_collate`` turns these numbers into one tensor per batch, so nothing in
    the training step loops over samples.

    The item is ``dict(inputs=..., data_samples=...)``: ``inputs`` is the image,
    (C, H, W), uint8 as decoded; ``data_samples`` holds, as far as earlier steps set
    them,

    - ``sample_idx``: index in the data set;
    - ``seed``: key of the sample's random draws (``SeededDataset``), from which its
      mask is drawn;
    - ``flip``: whether the device is to mirror it (``DrawFlip``);
    - ``replaced``: 1 where the sample replaces an unreadable image
      (``SeededDataset``);

    and what ``keys`` names.

    Args:
        keys: Further entries of the results dict to hand on: numbers, arrays of equal
            shape in all samples, or tensors. A ``mask`` (L,) or (rows, cols) refers
            to the image as the model sees it, after the flip.
    """

    KEYS = ("sample_idx", "seed", "flip", "replaced")

    def __init__(self, keys: tuple[str, ...] | list[str] = ()) -> None:
        self.keys = (*self.KEYS, *keys)

    def transform(self, results: dict) -> dict[str, Tensor | dict]:
        """Packs one sample.

        Args:
            results: Dict of a sample with ``img``, (H, W, C) or (H, W).
        """
        image = results["img"]
        if image.ndim == 3 and min(image.strides) > 0:
            # A view: collating writes each image once, whatever its layout.
            inputs = torch.from_numpy(image).permute(2, 0, 1)
        else:
            inputs = PackInputs.format_input(image)
        samples = {key: results[key] for key in self.keys if key in results}
        return {"inputs": inputs, "data_samples": samples}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(keys={self.keys[len(self.KEYS) :]})"
