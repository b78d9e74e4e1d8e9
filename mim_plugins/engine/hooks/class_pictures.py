"""Pictures of a classifier's predictions, none of which replaces another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.engine import VisualizationHook


@HOOKS.register_module()
class ClassPicturesHook(VisualizationHook):
    """mmpretrain's ``VisualizationHook`` with the folders of the test images.

    There, pictures have the names of their images alone, so that of ``ant/0.jpg`` and
    ``bee/0.jpg`` one would be left.
    """

    out_dir: str | None

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[Any]
    ) -> None:
        """Draws the images of a batch.

        Args:
            runner: The runner of the test.
            batch_idx: Index of the batch.
            data_batch: Its images.
            outputs: Their predictions.
        """
        folder = self.out_dir
        first = batch_idx * (runner.test_dataloader.batch_size or 1)
        root = getattr(runner.test_dataloader.dataset, "img_prefix", "")
        try:
            for index, sample in enumerate(outputs):
                if folder and root and (path := sample.get("img_path")):
                    below = os.path.relpath(os.path.dirname(path), root)
                    self.out_dir = os.path.join(folder, below)
                image = dict(inputs=data_batch["inputs"][index : index + 1])
                # One at a time, whose place among all takes that of the batch.
                self._draw_samples(first + index, image, [sample])
        finally:
            self.out_dir = folder
