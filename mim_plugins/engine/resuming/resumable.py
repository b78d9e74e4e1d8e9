"""What a config is given so that its run can go on at any iteration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, MutableMapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

# By the names that configs have for mmengine's.
_LOOPS = {
    "EpochBasedTrainLoop": "ResumableEpochLoop",
    "IterBasedTrainLoop": "ResumableIterLoop",
}
_SAMPLERS = {"DefaultSampler": "EpochSampler", "InfiniteSampler": "EndlessSampler"}

# Steps that look at the data set behind the pipeline, or at what came before.
_OWN_READING = ("__getitem__", "prepare_data")


def make_resumable(cfg: Config) -> None:
    """Have a run draw everything from seed, epoch and index, and its loop use that.

    mmengine's training loops and samplers are replaced by those of this package that
    extend them, and a data set that is read in mmengine's way is wrapped in a
    ``SeededDataset``; loops, samplers and data sets of other kinds stay.

    Args:
        cfg: The config; ``train_cfg`` and ``train_dataloader`` are changed in place.
    """
    train_cfg, loader = cfg.train_cfg, cfg.train_dataloader
    kind = train_cfg.get("type")
    if kind is None:
        by_epoch = train_cfg.pop("by_epoch", True)
        kind = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    train_cfg["type"] = _LOOPS.get(_name(kind), kind)
    sampler, dataset = loader.get("sampler"), loader.get("dataset")
    if not isinstance(sampler, MutableMapping) or not isinstance(dataset, Mapping):
        return
    better = _SAMPLERS.get(_name(sampler.get("type")))
    if better and _read_as_usual(dataset, cfg.get("default_scope", "mmengine")):
        sampler["type"] = better
        loader["dataset"] = dict(type="SeededDataset", dataset=dataset)


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", "")


def _read_as_usual(dataset: Mapping[str, Any], scope: str) -> bool:
    """Whether a data set, by its config, reads a sample in mmengine's way."""
    kind = dataset.get("type")
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return (
        inspect.isclass(kind)
        and issubclass(kind, BaseDataset)
        and all(getattr(kind, x) is getattr(BaseDataset, x) for x in _OWN_READING)
    )
