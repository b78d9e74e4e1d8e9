"""The test loop of trackers: sequence by sequence, from where it was interrupted."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast

from ...checkpoints.files import write_atomically
from ...datasets.tracking.box_files import read_boxes, write_boxes
from ...datasets.tracking.test_sequences import SequenceToTrack
from ...models.trackers import OneStreamTracker, Tracker

# Which tracker the results of a folder are of.
_TRACKER = "tracker.sha256"


@LOOPS.register_module()
class SequenceTestLoop(TestLoop):
    """Tracks every sequence and writes its boxes in LaSOT's format.

    ``<results_dir>/<sequence>.txt`` has a line ``x,y,width,height`` per frame; it is
    written when the sequence is finished, and read rather than made where it is there:
    an evaluation that was interrupted goes on. Results of another tracker are refused.
    A sequence that fails is reported by the metric, and the others go on.

    Processes share the sequences as their sampler does.

    Args:
        results_dir: Where boxes go; by default ``tracking_results`` in the work
            directory.
        **kwargs: As mmengine's ``TestLoop``.

    Raises:
        TypeError: If the model is no :class:`OneStreamTracker`.
    """

    def __init__(self, results_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        folder = results_dir or Path(self.runner.work_dir, "tracking_results")
        self.results_dir = Path(folder)
        self._tracker: Tracker | None = None

    def run(self) -> dict:
        """Tracks the sequences and computes the metrics.

        Raises:
            TypeError: If the model is no tracker.
            ValueError: If the folder has results of another tracker.
        """
        model = self.runner.model
        model = model.module if is_model_wrapper(model) else model
        if not isinstance(model, OneStreamTracker):
            raise TypeError(
                f"SequenceTestLoop runs a OneStreamTracker, not a "
                f"{type(model).__name__}"
            )
        self._check_folder(fingerprint(model, self.fp16))
        self._tracker = Tracker(model)
        return super().run()

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Tracks one batch of sequences.

        Args:
            idx: Number of the batch.
            data_batch: ``data_samples``: a list of sequences.
        """
        self.runner.call_hook("before_test_iter", batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            results = [self.track(sequence) for sequence in data_batch["data_samples"]]
        self.evaluator.process(data_samples=results, data_batch=data_batch)
        self.runner.call_hook(
            "after_test_iter", batch_idx=idx, data_batch=data_batch, outputs=results
        )

    def track(self, sequence: SequenceToTrack) -> dict[str, Any]:
        """Tracks one sequence, or reads its results.

        Args:
            sequence: The sequence.

        Returns:
            What ``OnePassMetric`` takes: boxes, or the error.
        """
        path = self.results_dir / f"{sequence.name}.txt"
        try:
            truth, visible = sequence.annotation()
            if path.is_file():
                boxes = read_boxes(path)
                if len(boxes) != len(truth):
                    raise ValueError(
                        f"{path} has {len(boxes)} boxes for {len(truth)} frames: "
                        "remove it to track the sequence again"
                    )
            else:
                assert self._tracker is not None
                images = sequence.images()
                # As they are read back, whether or not they are.
                boxes = np.round(run_through(self._tracker, images, truth[0]), 3)
                write_boxes(path, boxes)
        except Exception as error:  # whatever it is, 279 others are to be tracked
            return {
                "name": sequence.name,
                "error": f"{type(error).__name__}: {error}",
            }
        return {
            "name": sequence.name, "boxes": boxes, "truth": truth, "absent": ~visible
        }  # fmt: skip

    def _check_folder(self, tracker: str) -> None:
        """Makes sure that results in the folder are of this tracker.

        Raises:
            ValueError: If they are of another.
        """
        mark = self.results_dir / _TRACKER
        if is_main_process():
            self.results_dir.mkdir(parents=True, exist_ok=True)
            if not mark.exists() and not any(self.results_dir.glob("*.txt")):
                write_atomically(mark, lambda file: file.write_text(tracker))
        barrier()
        if not mark.exists() or mark.read_text() != tracker:
            raise ValueError(
                f"{self.results_dir} holds results of another tracker: give another "
                "folder with --cfg-options test_cfg.results_dir=..., or remove it"
            )
        done = len(list(self.results_dir.glob("*.txt")))
        if done:
            print_log(
                f"{done} sequences in {self.results_dir} are finished and are not "
                "tracked again",
                "current",
                logging.INFO,
            )


def run_through(
    tracker: Tracker, images: Iterator[np.ndarray], box: np.ndarray
) -> np.ndarray:
    """The boxes of all frames of a sequence, (n, 4).

    Args:
        tracker: The tracker.
        images: The frames.
        box: The true box of the first.
    """
    boxes = [np.asarray(box, dtype=float)]
    tracker.init(next(images), box)
    boxes.extend(tracker.update(image) for image in images)
    return np.stack(boxes)


def fingerprint(model: OneStreamTracker, half_precision: bool = False) -> str:
    """What the boxes of a tracker depend on, as a short text: weights and settings.

    Args:
        model: The tracker.
        half_precision: Whether it computes in half precision.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    settings = (
        half_precision,
        model.template_factor,
        model.search_factor,
        model.backbone.keep_ratios,
        model.data_preprocessor.mean.flatten().tolist(),
        model.data_preprocessor.std.flatten().tolist(),
        model.data_preprocessor.bgr_to_rgb,
    )
    digest.update(repr(settings).encode())
    return digest.hexdigest()
