"""Reads the images of a validation before training, rather than after an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...datasets.image_files import check_image_file
from ...datasets.seeded_dataset import reason_of
from ..checks.data import inner_datasets

_NAMED = 5


@HOOKS.register_module()
class CheckValidationHook(Hook):
    """Decodes every validation image once before the first step.

    A file that cannot be read would end the run at its first validation, after an epoch
    or more. The processes share the images; 50,000 of ImageNet take about half a minute
    with eight threads. Data sets whose pipeline does not start by loading a file are
    not checked.
    """

    def before_train(self, runner: Runner) -> None:
        """Read the images.

        Args:
            runner: The runner of the training process.

        Raises:
            ValueError: Naming the files that cannot be read.
        """
        if runner.val_loop is None:
            return
        loader = runner.val_loop.dataloader
        samples = list(_samples(loader.dataset))[runner.rank :: runner.world_size]
        with ThreadPoolExecutor(max(1, loader.num_workers)) as pool:
            own = [x for x in pool.map(_unreadable, samples) if x is not None]
        bad = [x for part in all_gather_object(own) for x in part]
        if bad:
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise ValueError(
                f"{len(bad)} of the validation images cannot be read: "
                f"{'; '.join(bad[:_NAMED])}{more}. Repair them, or remove them from "
                "the folder or annotation file of val_dataloader"
            )


def _samples(dataset: Any) -> Iterator[tuple[BaseDataset, int]]:
    """Index and data set of every image that is loaded from a file."""
    for part in inner_datasets(dataset, "pipeline"):
        steps = getattr(part.pipeline, "transforms", None)
        if not isinstance(part, BaseDataset) or not steps:
            continue
        if type(steps[0]).__name__.startswith("LoadImage"):
            yield from ((part, index) for index in range(len(part)))


def _unreadable(sample: tuple[BaseDataset, int]) -> str | None:
    """Path and reason, if an image cannot be read."""
    dataset, index = sample
    info = dataset.get_data_info(index)
    path, error = str(info.get("img_path", f"sample {index}")), None
    try:
        if "img_path" in info:
            check_image_file(path)
        if dataset.pipeline.transforms[0](info) is not None:
            return None
    except Exception as caught:  # whatever a decoder raises
        error = caught
    return f"{path} ({reason_of(error, path)})"
