"""Pairs of a template and a later frame, for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ..seeding import sample_key, seed_rng
from .sequences import SequenceSource


@DATASETS.register_module()
class TrackingPairs(BaseDataset):
    """Pairs of frames of one object, drawn from several data sets.

    Of a video, the template is any frame in which the object is visible, and the search
    region is of a later one ("causal"); of a still both are of the same image.

    To be wrapped by ``SeededDataset``: a pair follows from the run's seed, the epoch
    and the index alone. Pipelines find lists of two, template first: ``img``,
    ``gt_bboxes`` ((1, 4), corners) and ``img_shape``.

    Args:
        sources: Configs of the data sets, such as ``LaSOTSequences``; one without a
            ``data_root`` of its own gets that of the pairs.
        num_pairs: Pairs of an epoch.
        weights: How often a pair is of each data set, relative to the others; by
            default equally often.
        max_gap: Frames between template and search region, at most; 5 more at a time
            where the object is not visible in any of them.
        pipeline: Transforms of a pair.
        data_root: Folder of the data sets.
        **kwargs: As mmengine's ``BaseDataset``.

    Raises:
        ValueError: If there is no data set, not one weight for each, a negative one, or
            a number that is not positive.
    """

    def __init__(
        self,
        sources: Sequence[dict],
        num_pairs: int,
        weights: Sequence[float] | None = None,
        max_gap: int = 200,
        pipeline: Sequence[Any] = (),
        data_root: str = "",
        **kwargs: Any,
    ) -> None:
        weights = [1.0] * len(sources) if weights is None else list(weights)
        if not sources or len(weights) != len(sources) or min(weights) < 0:
            raise ValueError(
                "TrackingPairs needs sources, and one weight for each that is not "
                f"negative; got {len(sources)} sources and weights={weights}"
            )
        if num_pairs < 1 or max_gap < 1 or not sum(weights):
            raise ValueError(
                f"num_pairs, max_gap and the sum of weights must be positive, got "
                f"{num_pairs}, {max_gap} and {sum(weights)}"
            )
        self.sources: list[SequenceSource] = [
            DATASETS.build({"data_root": data_root} | dict(source))
            for source in sources
        ]
        self.shares = np.array(weights, dtype=float) / sum(weights)
        self.num_pairs = num_pairs
        self.max_gap = max_gap
        super().__init__(
            pipeline=[self.load_pair, *pipeline], serialize_data=False, **kwargs
        )

    def full_init(self) -> None:
        """Looks for the sequences of every data set.

        Raises:
            FileNotFoundError: If there are none.
        """
        for source in self.sources:
            len(source)
        self._fully_initialized = True

    def __len__(self) -> int:
        """Pairs of an epoch."""
        return self.num_pairs

    def get_data_info(self, idx: int) -> dict:
        """The index of a pair, of which nothing is drawn yet."""
        return {"sample_idx": idx}

    def load_pair(self, results: dict) -> dict | None:
        """Draws a pair and loads its frames, the first step of the pipeline.

        Args:
            results: Dict of a sample.

        Returns:
            The dict; None if the object of the drawn sequence is not visible twice.
        """
        if "seed" in results:
            # Of the index, too: another index replaces what cannot be read.
            seed_rng(sample_key(results["seed"], 0, results["sample_idx"]))
        source = self.sources[np.random.choice(len(self.sources), p=self.shares)]
        index = np.random.randint(len(source))
        results["img_path"] = f"{source.data_root}: {source.names[index]}"
        annotation = source.annotation(index)
        frames = draw_frames(annotation.usable, self.max_gap, source.is_video)
        if frames is None:
            results["img"] = []  # readable, but of no use
            return None
        images = []
        for frame in frames:
            results["img_path"] = source.frame_path(index, frame)
            images.append(source.image(results["img_path"]))
        boxes = annotation.boxes[list(frames)]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        results["img"] = images
        results["img_shape"] = [image.shape[:2] for image in images]
        results["gt_bboxes"] = [x[None].astype(np.float32) for x in corners]
        return results


def draw_frames(
    usable: np.ndarray, max_gap: int, is_video: bool = True
) -> tuple[int, int] | None:
    """Draws the frames of template and search region from numpy's global generator.

    Args:
        usable: Indices of the frames in which the object is visible, in order.
        max_gap: See :class:`TrackingPairs`.
        is_video: Whether the frames have to be different.

    Returns:
        Two indices of frames; None if there are not enough frames.
    """
    if not is_video:
        return (int(usable[0]),) * 2 if len(usable) else None
    if len(usable) < 2:
        return None
    place = np.random.randint(len(usable) - 1)
    first, later = usable[place], usable[place + 1 :]
    gap = max_gap
    while later[0] > first + gap:
        gap += 5
    within = later[: np.searchsorted(later, first + gap, side="right")]
    return int(first), int(within[np.random.randint(len(within))])
