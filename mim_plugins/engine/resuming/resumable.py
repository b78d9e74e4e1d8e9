"""What a config is given so that its run can go on at any iteration."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS, HOOKS, Registry

from ..config.settings import Note
from ..hooks.checkpoint import AtomicCheckpointHook

# By the names that configs have for mmengine's.
_LOOPS = {
    "EpochBasedTrainLoop": "ResumableEpochLoop",
    "IterBasedTrainLoop": "ResumableIterLoop",
    "ValLoop": "WatchedValLoop",
}
_SAMPLERS = {"DefaultSampler": "EpochSampler", "InfiniteSampler": "EndlessSampler"}

# Steps that look at the data set behind the pipeline, or at what came before.
_OWN_READING = ("__getitem__", "prepare_data")


def make_resumable(cfg: Config) -> None:
    """Have a run draw everything from seed, epoch and index, and its loop use that.

    mmengine's loops and samplers are replaced by those of this package that extend
    them, and a data set that is read in mmengine's way is wrapped in a
    ``SeededDataset``; loops, samplers and data sets of other kinds stay.

    Args:
        cfg: The config; ``train_cfg``, ``train_dataloader`` and ``val_cfg`` are changed
            in place.
    """
    train_cfg, loader = cfg.train_cfg, cfg.train_dataloader
    kind = train_cfg.get("type")
    if kind is None:
        by_epoch = train_cfg.pop("by_epoch", True)
        kind = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    train_cfg["type"] = _LOOPS.get(_name(kind), kind)
    if (val_cfg := cfg.get("val_cfg")) is not None:
        kind = val_cfg.get("type", "ValLoop")
        val_cfg["type"] = _LOOPS.get(_name(kind), kind)
    sampler, dataset = loader.get("sampler"), loader.get("dataset")
    if not isinstance(sampler, MutableMapping) or not isinstance(dataset, Mapping):
        return
    better = _SAMPLERS.get(_name(sampler.get("type")))
    if better and _read_as_usual(_class(DATASETS, dataset.get("type"), cfg)):
        sampler["type"] = better
        loader["dataset"] = dict(type="SeededDataset", dataset=dataset)


def save_safely(cfg: Config) -> list[Note]:
    """Have checkpoints written by this package's hook, where it is mmengine's.

    A subclass of mmengine's stays, since it does something else on purpose. Logged
    values are written by this package's extension of mmengine's backend, too.

    Args:
        cfg: The config; hooks and visualisation backends are changed in place.

    Returns:
        Lines for the log.
    """
    if not cfg.get("default_hooks"):
        cfg.default_hooks = {}
    # mmengine's runner adds it where there is none.
    cfg.default_hooks.setdefault("checkpoint", dict(type="CheckpointHook", interval=1))
    for backend in (cfg.get("visualizer") or {}).get("vis_backends") or []:
        if _name(backend.get("type")) == "LocalVisBackend":
            backend["type"] = "BestEffortVisBackend"
    hooks = [cfg.default_hooks.checkpoint, *(cfg.get("custom_hooks") or [])]
    notes = []
    for hook in hooks:
        if not isinstance(hook, MutableMapping) or not hook.get("type"):
            continue
        kind = _class(HOOKS, hook["type"], cfg)
        name = _name(hook["type"])
        if kind is CheckpointHook:
            hook["type"] = "AtomicCheckpointHook"
            notes.append(
                Note(
                    f"checkpoints: {name} is replaced by AtomicCheckpointHook, with "
                    "the same arguments, whose files are complete or not there"
                )
            )
        elif (
            inspect.isclass(kind)
            and issubclass(kind, CheckpointHook)
            and not issubclass(kind, AtomicCheckpointHook)
        ):
            notes.append(
                Note(
                    f"checkpoints: {name} is a CheckpointHook of its own and stays: a "
                    "run that is killed while it saves may leave a damaged file or "
                    "none, and a full disk ends the run. Derive it from "
                    "mim_plugins.engine.hooks.AtomicCheckpointHook to avoid that",
                    logging.WARNING,
                )
            )
    return notes


def _class(registry: Registry, kind: Any, cfg: Config) -> Any:
    """What a config's ``type`` is the name of, or the class itself."""
    if not isinstance(kind, str):
        return kind
    scope = cfg.get("default_scope", "mmengine")
    with registry.switch_scope_and_registry(scope) as found:
        return found.get(kind)


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", "")


def _read_as_usual(kind: Any) -> bool:
    """Whether data sets of a class read a sample in mmengine's way."""
    return (
        inspect.isclass(kind)
        and issubclass(kind, BaseDataset)
        and all(getattr(kind, x) is getattr(BaseDataset, x) for x in _OWN_READING)
    )
