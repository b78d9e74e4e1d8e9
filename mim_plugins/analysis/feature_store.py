"""Features of every layer of an encoder, kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


class FeatureStore:
    """Image features of all layers, one row per image, in a temporary file.

    What is computed of all images together, such as the exact CKA or a probe of each
    layer, reads them in chunks: memory does not depend on the number of images.

    Args:
        folder: Where the file goes; the system's folder for temporary files by default.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        self._sum: Tensor | None = None
        self.widths: list[int] = []
        self.images = 0

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.widths)

    def append(self, layers: Sequence[Tensor]) -> None:
        """Adds the images of a batch.

        Args:
            layers: One (n, C) per layer; C is that of the first batch.
        """
        rows = torch.cat([layer.float() for layer in layers], dim=1).cpu()
        if self._sum is None:
            self.widths = [layer.shape[1] for layer in layers]
            self._sum = torch.zeros(rows.shape[1], dtype=torch.float64)
        self._sum += rows.double().sum(dim=0)
        self._file.write(rows.numpy().tobytes())
        self.images += len(rows)

    def layer(self, index: int) -> Tensor:
        """The features of one layer, (images, C)."""
        start = sum(self.widths[:index])
        end = start + self.widths[index]
        return torch.cat([rows[:, start:end].clone() for rows in self.chunks()])

    def chunks(self, size: int = 1024, centred: bool = False) -> Iterator[Tensor]:
        """All layers of some images after others.

        Args:
            size: Images per chunk.
            centred: Whether the mean over all images is subtracted.

        Yields:
            (n, sum of widths), the layers one after the other.
        """
        width = sum(self.widths)
        mean = 0 if self._sum is None else (self._sum / self.images).float()
        self._file.flush()
        for start in range(0, self.images, size):
            count = min(size, self.images - start)
            self._file.seek(4 * width * start)
            data = self._file.read(4 * width * count)
            rows = torch.from_numpy(np.frombuffer(bytearray(data), np.float32))
            rows = rows.view(count, width)
            yield rows - mean if centred else rows
        self._file.seek(0, 2)

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
