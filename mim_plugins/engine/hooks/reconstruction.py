"""Pictures of reconstructions during pre-training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner

from ...datasets.seeding import preserve_rng_state
from ...visualization import ReconstructionTable, value_range
from .periodic import PeriodicHook, unwrapped

if TYPE_CHECKING:
    from ...models.selfsup.base import MaskedImageModel


@HOOKS.register_module()
class ReconstructionHook(PeriodicHook):
    """Draws the reconstructions of a few fixed images.

    Every ``interval`` epochs and at the end a table (original, masked image, the
    model's picture per level, the last one with the visible patches pasted in) is
    written to ``work_dir/reconstructions/epoch_005.png`` and to the visualizer
    backends. Images and masks stay the same throughout a run and after a restart, so
    the pictures can be compared. HOG is drawn as strokes, features by their first three
    principal components, both next to their targets.

    Images of other values than 0 to 255 are shown from their darkest to their brightest
    value; a note below the picture says which. Another says what ``norm_pix`` does to
    it: predictions are shown with the mean and deviation of the true patch, which the
    model has not predicted.

    Args:
        interval: Epochs between two pictures.
        num_images: How many images, evenly spread over the data set.
        dataset: Config of a data set with samples like those of training; None is the
            training data set.
        seed: Seed of the masks, and of crops the data set does not seed itself.
        by_epoch: Whether ``interval`` counts epochs or iterations.
        patch_statistics: Whether predictions of targets with ``norm_pix`` get the mean
            and deviation of the true patches back; False shows them, and their target,
            as the loss compares them.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive.
    """

    def __init__(
        self,
        interval: int = 10,
        num_images: int = 8,
        dataset: dict | None = None,
        seed: int = 0,
        by_epoch: bool = True,
        patch_statistics: bool = True,
    ) -> None:
        super().__init__(interval, by_epoch)
        if num_images < 1:
            raise ValueError(
                f"ReconstructionHook: num_images must be at least 1, but got "
                f"{num_images}."
            )
        self.num_images = num_images
        self.dataset = dataset
        self.seed = seed
        self.patch_statistics = patch_statistics
        self._batch: Any = None
        self._mask: Any = None

    def before_train(self, runner: Runner) -> None:
        """Load the images.

        Args:
            runner: The runner of the training process.

        Raises:
            TypeError: If the model cannot reconstruct.
            ValueError: If the patches' statistics are to be left out, and no target
                has any.
        """
        if runner.rank != 0:
            return
        model = unwrapped(runner.model)
        if not hasattr(model, "reconstruct"):
            raise TypeError(
                f"ReconstructionHook needs a masked image model with reconstruct(), "
                f"but {type(model).__name__} has none; remove the hook from "
                "custom_hooks."
            )
        if not self.patch_statistics and not model.normalises_patches:
            raise ValueError(
                "ReconstructionHook: patch_statistics=False changes nothing, since no "
                "target of this model has norm_pix=True; remove it."
            )
        if self.dataset is None:
            dataset = runner.train_dataloader.dataset
        else:
            dataset = DATASETS.build(self.dataset)
            if hasattr(dataset, "full_init"):
                dataset.full_init()
        with preserve_rng_state(self.seed):
            count = min(self.num_images, len(dataset))
            # Spread over the data set: the first files may all be of one class.
            items = [dataset[i * len(dataset) // count] for i in range(count)]
        self._batch = default_collate(items)

    def evaluate(self, runner: Runner, model: MaskedImageModel, step: int) -> None:
        """Draw the table and save it.

        Args:
            runner: The runner of the training process.
            model: The model without its distributed wrapper.
            step: The number of epochs (or iterations) that are finished.
        """
        if runner.rank != 0:
            return
        inputs = model.data_preprocessor(self._batch, False)["inputs"]
        # The masks are drawn by the model the first time, and reused from then on.
        with preserve_rng_state(self.seed), runner.optim_wrapper.optim_context(model):
            result = model.reconstruct(inputs, self._mask, self.patch_statistics)
        self._mask = result["mask"]
        picture = ReconstructionTable(
            model,
            inputs,
            result,
            shown=value_range(self._batch["inputs"]),
            patch_statistics=self.patch_statistics,
            otherwise="ReconstructionHook(patch_statistics=False)",
        ).draw()
        unit = "epoch" if self.by_epoch else "iter"
        path = Path(runner.work_dir) / "reconstructions" / f"{unit}_{step:03d}.png"
        try:
            _write_png(path, picture)
        except OSError as error:  # of a full disk, for which no run should end
            runner.logger.warning(f"{error} Training goes on.")
            return
        runner.visualizer.add_image("reconstruction", picture, step=step)
        runner.logger.info(f"Reconstructions after {unit} {step}: {path}")


def _write_png(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"The picture {path} could not be written.")
