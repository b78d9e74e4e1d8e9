"""Encodes images batch by batch."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader, Dataset

from ..engine.environment import has_fast_bfloat16
from .encoder import Encoder
from .feature_file import FeatureParts
from .image_files import Batch, ImageList, collate

# Seconds between two lines of progress.
_TELL_EVERY = 20.0


class EncodingJob:
    """An encoder, the images it reads and the precision it computes in.

    Raises:
        ValueError: If the device cannot compute in it.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: ImageList,
        precision: str | None,
        skip_unreadable: bool,
    ) -> None:
        self.encoder = encoder
        self.images = images
        self.skip_unreadable = skip_unreadable
        self.device = next(encoder.parameters()).device
        if precision is None:
            fast = self.device.type == "cuda" and has_fast_bfloat16()
            precision = "bf16" if fast else "fp32"
        if precision == "fp16" and self.device.type == "cpu":
            raise ValueError("precision fp16 needs a GPU; on the CPU take bf16 or fp32")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def run(self, loader: DataLoader, parts: FeatureParts) -> list[int]:
        """Writes the features of a loader's images; returns which could not be read.

        It ends early when another process has failed.
        """
        unreadable: list[int] = []
        progress = _Progress(len(self.images.files))
        for batch in loader:
            if parts.stopped:
                break
            unreadable += self.left_out(batch)
            if batch.rows:
                parts.write(batch.rows, self.features(batch))
            progress.add(len(batch.rows) + len(batch.unreadable))
        return unreadable

    def left_out(self, batch: Batch) -> list[int]:
        """Numbers of the images of a batch that could not be read.

        Raises:
            ValueError: If there are some, and they are not to be left out.
        """
        for index, reason in batch.unreadable:
            path = self.images.path(index)
            if not self.skip_unreadable:
                raise ValueError(
                    f"{path} cannot be read ({reason}); remove it, or leave out such "
                    "images with --skip-unreadable"
                )
            MMLogger.get_current_instance().warning(f"left out: {path} ({reason})")
        return [index for index, _ in batch.unreadable]

    @torch.inference_mode()
    def features(self, batch: Batch) -> dict[str, np.ndarray]:
        """The features of a batch, and their ``grid``.

        Raises:
            ValueError: If the images differ in size.
        """
        if isinstance(batch.inputs, list):
            raise ValueError(_two_sizes(batch, self.images))
        data = {"inputs": batch.inputs, "data_samples": None}
        inputs = self.encoder.data_preprocessor(data, False)["inputs"]
        context: Any = nullcontext()
        if self.dtype is not None:
            context = torch.autocast(self.device.type, self.dtype)
        with context:
            found = self.encoder.image_features(inputs)
        values = {name: x.float().cpu().numpy() for name, x in found.present.items()}
        return {**values, "grid": np.array(found.grid)}

    def probe(self, files: Dataset) -> dict[str, np.ndarray]:
        """The features of the first image that can be read, for their shapes.

        Raises:
            ValueError: If there is none.
        """
        for index in range(len(self.images.files)):
            batch = collate([files[index]])
            if not batch.unreadable:
                return self.features(batch)
            if not self.skip_unreadable:
                self.left_out(batch)
        raise ValueError(f"none of the images in {self.images.root} can be read")


def _two_sizes(batch: Batch, images: ImageList) -> str:
    """Names two images of a batch that differ in size."""
    sizes = [tuple(image.shape) for image in batch.inputs]
    other = next(k for k, size in enumerate(sizes) if size != sizes[0])
    first, second = (
        f"{images.path(batch.rows[k])} has the shape {sizes[k]}" for k in (0, other)
    )
    return (
        f"after the config's test_pipeline images differ in size: {first}, {second}; "
        "resize and crop them there"
    )


class _Progress:
    """Tells now and then how far the first process is, which stands for all."""

    def __init__(self, total: int) -> None:
        self.rank, self.processes = get_dist_info()
        self.total, self.done = total, 0
        self.start = self.told = time.perf_counter()

    def add(self, images: int) -> None:
        """Counts images."""
        self.done += images * self.processes
        now = time.perf_counter()
        if self.rank or now - self.told < _TELL_EVERY:
            return
        self.told = now
        speed = self.done / (now - self.start)
        left = timedelta(seconds=round(max(self.total - self.done, 0) / speed))
        MMLogger.get_current_instance().info(
            f"about {min(self.done, self.total)} of {self.total} images, "
            f"{speed:.1f} images/s, {left} left"
        )
