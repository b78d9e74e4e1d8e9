"""Sequences to track from beginning to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from .sequences import Annotation, SequenceSource


@dataclass(frozen=True)
class SequenceToTrack:
    """One sequence of a source, of which nothing is read before it is asked for.

    Args:
        source: The data set.
        index: Of the sequence in it.
    """

    source: SequenceSource
    index: int

    @property
    def name(self) -> str:
        """Name of the sequence, also of the file of results."""
        return self.source.names[self.index].replace("/", "_")

    def annotation(self) -> Annotation:
        """Boxes and visibility.

        Raises:
            ValueError: If there are not as many boxes as frames.
        """
        annotation = self.source.annotation(self.index)
        frames = len(self.source.frames(self.index))
        if frames != len(annotation.boxes):
            raise ValueError(
                f"{self.name} has {frames} frames, but {len(annotation.boxes)} boxes: "
                "frames are missing, or its annotation is of another version"
            )
        return annotation

    def images(self) -> Iterator[np.ndarray]:
        """The frames in order, (H, W, 3) uint8, BGR."""
        return map(self.source.image, self.source.frames(self.index))


@DATASETS.register_module()
class TrackingSequences(BaseDataset):
    """The sequences of a data set, for ``SequenceTestLoop``.

    Args:
        source: Config of the data set, such as ``LaSOTSequences``.
        data_root: Its folder, unless it has one of its own.
        **kwargs: As mmengine's ``BaseDataset``.
    """

    def __init__(self, source: dict, data_root: str = "", **kwargs: Any) -> None:
        self.source: SequenceSource = DATASETS.build(
            {"data_root": data_root} | dict(source)
        )
        super().__init__(serialize_data=False, test_mode=True, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict per sequence."""
        return [
            {"inputs": {}, "data_samples": SequenceToTrack(self.source, index)}
            for index in range(len(self.source))
        ]
