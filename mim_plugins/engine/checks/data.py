"""What a run's data offer: data sets, samples as they are loaded, and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from ...datasets.seeded_dataset import reason_of


@dataclass(frozen=True)
class Data:
    """The data of one loop.

    Args:
        kind: ``train``, ``val`` or ``test``.
        dataset: What the loader reads, perhaps in wrappers.
        batch_size: Images of a batch.
        metrics: What the evaluator computes; of training, nothing.
    """

    kind: str
    dataset: Any
    batch_size: int | None = 1
    metrics: Sequence[Any] = ()

    @classmethod
    def of(cls, runner: Runner, kind: str) -> Data:
        """The data of one of a runner's loops."""
        loader = getattr(runner, f"{kind}_dataloader")
        metrics = (
            () if kind == "train" else getattr(runner, f"{kind}_evaluator").metrics
        )
        return cls(kind, loader.dataset, getattr(loader, "batch_size", 1), metrics)

    @property
    def name(self) -> str:
        """Name of the loader in the config."""
        return f"{self.kind}_dataloader"

    @property
    def needs_truth(self) -> bool:
        """Whether it is trained on or scored, rather than predicted only."""
        return self.kind == "train" or any(
            not getattr(metric, "format_only", isinstance(metric, DumpResults))
            for metric in self.metrics
        )


def inner_datasets(dataset: Any, having: str) -> Iterator[Any]:
    """Yields the data sets inside wrappers that concatenate, repeat or mix them.

    Args:
        dataset: A data set, or a wrapper: mmengine's ``ConcatDataset`` with a list
            ``datasets``, or ``RepeatDataset`` and mmdet's ``MultiImageMixDataset``
            with one ``dataset``.
        having: Name of an attribute that identifies the data sets to yield.
    """
    for part in getattr(dataset, "datasets", [getattr(dataset, "dataset", None)]):
        if part is not None:
            yield from inner_datasets(part, having)
    if hasattr(dataset, having):
        yield dataset


def loading_steps(dataset: Any, kind: str) -> list[Any]:
    """The steps of a pipeline that load files: those named ``Load...``."""
    steps = _steps(getattr(dataset, "pipeline", None))
    return [step for step in steps if type(step).__name__.startswith(kind)]


def _steps(pipeline: Any) -> Iterator[Any]:
    """The steps of a pipeline, and those inside of them."""
    for step in getattr(pipeline, "transforms", ()):
        yield step
        # Of test-time augmentation, whose branches all load alike; else of a Compose.
        branches = getattr(step, "subroutines", [step])
        yield from _steps(branches[0])


def load(dataset: Any, index: int, kind: str = "Load") -> dict[str, Any]:
    """Loads the files of a sample as the run does, before any other step.

    Raises:
        ValueError: Naming a file that cannot be read.
    """
    info = dataset.get_data_info(index)
    for step in loading_steps(dataset, kind):
        of_image = type(step).__name__.startswith("LoadImage")
        path = str(info.get("img_path" if of_image else "seg_map_path"))
        try:
            info = step(info)
        except Exception as error:  # whatever a decoder raises
            reason = reason_of(error, path)
            raise ValueError(f"{path} cannot be read ({reason})") from error
    return info


def spread(dataset: Any, count: int) -> list[int]:
    """A few evenly spaced indices."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round()
    return sorted(set(places.astype(int).tolist()))


def some(names: Sequence[Any], most: int = 3) -> str:
    """The first names of a list, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
