"""Batches with a non-finite loss or gradient, and files of them to run again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from ...checkpoints.files import read_content, save_state, write_atomically
from ...datasets.epoch_sampler import find_seeded_dataset
from ...datasets.seeding import preserve_rng_state, sample_key

FOLDER = "non_finite"

# Images that a message names; a file lists all of the batch.
_NAMED = 64

# Batches of one step that a file holds, where gradients are accumulated.
_MOST = 4

# Epochs among which that of a sample is looked for.
_EPOCHS = 10_000

# Marks a data element of OpenMMLab in a file of plain values.
_ELEMENT = "__element__"
_PACKAGES = ("mmengine.", "mmpretrain.", "mmdet.", "mmseg.")


@dataclass
class Batch:
    """A batch of one process, as it is kept."""

    iteration: int  # from 1, as in the log
    epoch: int  # from 0
    samples: list[Any]  # index in the data set or path of every image
    paths: list[str]
    broken: list[str]  # paths of images with non-finite values
    data: Any  # as the loader gave it; None if it is not known any more
    exact: bool  # whether its random crops are those of the training
    rng: dict[str, Tensor]  # torch's generators before the forward pass


@dataclass
class Iteration:
    """What is remembered of an iteration until its numbers were looked at."""

    number: int
    epoch: int
    samples: list[Any]
    keys: list[int]  # of each sample's random draws, where the batch has them
    data: Any  # the batch, on a CPU
    rng: dict[str, Tensor]
    values: list[tuple[str, Tensor]] = field(default_factory=list)

    def non_finite(self) -> list[tuple[str, float]]:
        """Losses that are NaN or infinite, by name."""
        numbers = [(name, value.item()) for name, value in self.values]
        return [(name, x) for name, x in numbers if not math.isfinite(x)]

    def batch_of(self, runner: Runner) -> Batch:
        """The batch; loaded once more where it was not remembered.

        Args:
            runner: The runner of the training process.
        """
        dataset = runner.train_dataloader.dataset
        data, exact = self.data, True
        if data is None:
            data, exact = self._loaded_again(runner.train_dataloader)
        paths = [_path(dataset, sample) for sample in self.samples]
        return Batch(
            self.number,
            self.epoch,
            self.samples,
            paths,
            [path for path, bad in zip(paths, _broken(data), strict=False) if bad],
            data,
            exact,
            self.rng,
        )

    def _loaded_again(self, loader: Any) -> tuple[Any, bool]:
        """The batch from its files, and whether its crops are the same."""
        seeded = find_seeded_dataset(loader.dataset)
        indices = self.samples
        exact = seeded is not None and len(self.keys) == len(indices)
        if seeded is not None:
            epochs = [self.epoch] * len(indices)
            if exact:
                epochs = [
                    next((e for e in range(_EPOCHS) if _key(seeded, e, i) == key), -1)
                    for i, key in zip(indices, self.keys, strict=True)
                ]
                # Of a sample that replaces an unreadable one, the key is the other's.
                exact = -1 not in epochs
                epochs = [self.epoch if e < 0 else e for e in epochs]
            indices = [
                i + e * len(seeded) for i, e in zip(indices, epochs, strict=True)
            ]
        try:
            with preserve_rng_state():
                items = [loader.dataset[index] for index in indices]
                return (loader.collate_fn(items) if items else None), exact
        except Exception:  # it could be read before; this is no place to fail
            return None, False


def remember(runner: Runner, data_batch: Any, keep: bool) -> Iteration:
    """Remember an iteration before its forward pass.

    Args:
        runner: The runner of the training process.
        data_batch: The batch as the loader gave it.
        keep: Whether to keep the batch itself, rather than what leads to it.
    """
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        rng["cuda"] = torch.cuda.get_rng_state()
    samples, keys = _samples(data_batch)
    data = data_batch if keep else None
    return Iteration(runner.iter + 1, runner.epoch, samples, keys, data, rng)


def write_batches(
    runner: Runner, number: int, batches: Sequence[Batch], values: Mapping[str, float]
) -> str:
    """Write a step's batches of this process to a file.

    A disk that is full does not end the run.

    Args:
        runner: The runner of the training process.
        number: The iteration of the step.
        batches: The batches, of which a few are kept.
        values: What was not finite, by name.

    Returns:
        A sentence for the log.
    """
    path = Path(runner.work_dir, FOLDER, f"iter_{number}_rank{runner.rank}.pth")
    try:
        content = dict(
            config=runner.cfg.pretty_text,
            values=dict(values),
            seed=runner.seed,
            rank=runner.rank,
            processes=runner.world_size,
            weights=_weights(path.parent, number).name,
            batches=[_plain({**vars(batch)}) for batch in batches[:_MOST]],
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, TypeError, RuntimeError) as error:
        return f" The batch could not be kept in {path}: {error}."
    return f" To run the batch again: python tools/replay.py {path}."


def describe_paths(runner: Runner, paths: Sequence[str]) -> str:
    """Name the images of a step, and list them in a file where they are many.

    A disk that is full does not end the run.

    Args:
        runner: The runner of the training process.
        paths: The images.

    Returns:
        A sentence for the log; nothing without images.
    """
    if not paths:
        return ""
    message = f" The images of the batch: {', '.join(paths[:_NAMED])}"
    if len(paths) > _NAMED:
        file = Path(runner.work_dir, f"non_finite_batch_rank{runner.rank}.txt")
        message += f" and {len(paths) - _NAMED} more, "
        try:
            file.write_text("\n".join(paths) + "\n", errors="surrogateescape")
            message += f"listed in {file}"
        except OSError as error:
            message += f"which {file} cannot list: {error.strerror}"
    return message


def write_weights(runner: Runner, number: int, keep: int) -> None:
    """Write the weights that a step's files name, and remove files of earlier runs.

    Args:
        runner: The runner; only that of the first process writes. Sharded parameters
            are left out, since all processes would have to take part.
        number: The iteration of the files.
        keep: Iterations of which files stay.
    """
    if runner.rank != 0 or isinstance(runner.model, FullyShardedDataParallel):
        return
    path = _weights(Path(runner.work_dir, FOLDER), number)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_state(model.state_dict(), path)
        kept = sorted(
            path.parent.glob(_weights(path, "*").name), key=_age, reverse=True
        )
        for old in kept[keep:]:
            for file in path.parent.glob(old.name.replace("weights", "*")):
                file.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        runner.logger.warning(
            f"The weights could not be kept in {path}: {error}. tools/replay.py takes "
            "those of a checkpoint, with --checkpoint"
        )


def read_batches(path: str | Path) -> dict[str, Any]:
    """Read a file of batches, without running code.

    Args:
        path: A file that :func:`write_batches` wrote.

    Returns:
        ``config``: the text of the config; ``values``, ``seed``, ``rank``,
        ``processes``;
        ``weights``: the path of the weights' file; ``batches``: a list of
        :class:`Batch`.

    Raises:
        ValueError: If it is another file.
    """
    content = read_content(path)
    if not {"config", "weights", "batches"} <= content.keys():
        raise ValueError(
            f"{path} is no file of skipped batches, as {FOLDER}/iter_N_rankR.pth of a "
            "work dir"
        )
    content["weights"] = Path(path).with_name(content["weights"])
    content["batches"] = [Batch(**_objects(batch)) for batch in content["batches"]]
    return content


def _weights(folder: Path, number: int | str) -> Path:
    return folder / f"iter_{number}_weights.pth"


def _age(path: Path) -> float:
    return path.stat().st_mtime


def _plain(value: Any) -> Any:
    """A value without objects that only a pickle could hold.

    Raises:
        TypeError: If there are any but data elements of OpenMMLab.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, BaseDataElement):
        kind = type(value)
        return {
            _ELEMENT: f"{kind.__module__}.{kind.__qualname__}",
            "meta": _plain(dict(value.metainfo_items())),
            "data": _plain(dict(value.items())),
        }
    raise TypeError(f"it holds a {type(value).__name__}")


def _objects(value: Any) -> Any:
    """The value that :func:`_plain` was given.

    Raises:
        ValueError: If a file names a class that is no data element.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(_objects(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if _ELEMENT not in value:
        return {key: _objects(item) for key, item in value.items()}
    module, _, name = value[_ELEMENT].rpartition(".")
    kind = None
    if module.startswith(_PACKAGES):
        kind = getattr(import_module(module), name, None)
    if not isinstance(kind, type) or not issubclass(kind, BaseDataElement):
        raise ValueError(f"the file names {value[_ELEMENT]}, which is no data element")
    element = kind(metainfo=_objects(value["meta"]))
    element.set_data(_objects(value["data"]))
    return element


def _key(seeded: Any, epoch: int, index: int) -> int:
    return sample_key(seeded.seed, epoch, index)


def _samples(data_batch: Any) -> tuple[list[Any], list[int]]:
    """The index, or else the path, of every sample of a batch; keys of their draws."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    if isinstance(samples, Mapping):
        indices, keys = (
            torch.as_tensor(samples.get(name, [])).tolist()
            for name in ("sample_idx", "seed")
        )
        return list(indices), list(keys)
    found = [
        sample.get("sample_idx", sample.get("img_path"))
        for sample in (samples if isinstance(samples, (list, tuple)) else [])
        if hasattr(sample, "get")
    ]
    return [x for x in found if x is not None], []


def _path(dataset: Any, sample: Any) -> str:
    """The path of a sample of a data set."""
    if isinstance(sample, str) or not hasattr(dataset, "get_data_info"):
        return str(sample)
    return str(dataset.get_data_info(sample).get("img_path", f"sample {sample}"))


def _broken(data: Any) -> list[bool]:
    """Which images of a batch have values that are not finite."""
    images = data.get("inputs") if isinstance(data, dict) else None
    return [
        isinstance(image, Tensor) and not bool(image.isfinite().all())
        for image in (() if images is None else images)
    ]
