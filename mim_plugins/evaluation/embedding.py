"""From a folder of images to a file of features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from ..checkpoints.saving import check_destination
from ..engine.environment import check_gpus
from ..engine.settings import PRECISIONS
from .encoder import load_encoder
from .encoding import EncodingJob
from .feature_file import FeatureParts
from .image_files import ImageFiles, ImageList, image_loader, list_images
from .processes import Processes

FEATURES = ("cls", "mean", "patch")
DTYPES = ("float32", "float16")


def embed(
    data: str,
    out: str | Path,
    *,
    model: str | None = None,
    checkpoint: str | None = None,
    features: Sequence[str] | None = None,
    ann_file: str | None = None,
    skip_unreadable: bool = False,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    dtype: str = "float32",
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
    force: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Writes the features of all images of a folder to a file.

    The file is of numpy, and holds no pickles: ``cls`` (N, C), ``mean`` (N, C) and
    ``patch`` (N, L, C, in raster order of ``grid``) as asked for; ``files`` (N,), their
    paths below ``data``; ``labels`` (N,) and ``classes``, where they are known;
    ``unreadable``, the files that were left out, if any. Memory does not grow with the
    number of images. With several processes each image is encoded by one of them, in
    the batches that one process would make, and the order is that of the list.

    Args:
        data: The folder, see :func:`.image_files.list_images`.
        out: The ``.npz`` file. It is there when all is done, and not before.
        model: Name or config file of a pre-training or a classifier. By default the
            only config file beside ``checkpoint``, where training leaves it.
        checkpoint: The weights, ours or official ones; by default those the model's
            entry in the zoo, or ``load_from`` of the config, names.
        features: Some of ``cls``, ``mean`` and ``patch``; by default ``mean``, and
            ``cls`` where the encoder has a class token.
        ann_file: Names the images, and their classes if it has them.
        skip_unreadable: Whether to leave out images that cannot be read; else the
            first one ends it.
        batch_size: Images at a time, in each process.
        workers: Loading processes for each process; by default one for each core, four
            at most.
        device: Such as ``cuda:1``; by default the GPU of this process, or the CPU.
        precision: ``fp32``, ``bf16`` or ``fp16``, of the computation; by default bf16
            on GPUs that have it, else fp32.
        dtype: ``float32`` or ``float16``, of the file.
        cfg_options: Values that replace those of the config, by dotted key.
        launcher: Who started this process: ``none``, ``pytorch``, ``slurm``, ``mpi``.
        force: Whether to replace ``out`` if it is there.

    Returns:
        The shape of each array of features.

    Raises:
        FileExistsError: If ``out`` is there already.
        FileNotFoundError: If a file or folder is not there, or has no images.
        OSError: If the disk cannot hold the features.
        ValueError: If an argument, an image or the checkpoint cannot be used.
    """
    if workers is None:
        workers = min(4, _cores())
    _check_arguments(out, features, batch_size, workers, precision, dtype)
    check_destination(out, force)
    processes = Processes(launcher)
    try:
        images = list_images(data, ann_file)
        encoder = load_encoder(model, checkpoint, cfg_options)
        encoder.to(_device(device, processes)).eval()
        files = ImageFiles(images, encoder.pipeline)
        part = processes.rank, processes.size
        loader = image_loader(files, batch_size, workers, part)
        job = EncodingJob(encoder, images, precision, skip_unreadable)
        return _write(job, loader, Path(out), features, dtype, processes)
    finally:
        processes.leave()


def _check_arguments(
    out: str | Path,
    features: Sequence[str] | None,
    batch_size: int,
    workers: int,
    precision: str | None,
    dtype: str,
) -> None:
    """Refuses arguments before anything is built.

    Raises:
        ValueError: Naming what is accepted.
    """
    if Path(out).suffix != ".npz":
        raise ValueError(f"features are written to a .npz file, not to {out}")
    if features is not None and (not features or not set(features) <= set(FEATURES)):
        raise ValueError(
            f"features are some of {', '.join(FEATURES)}, not {list(features)}"
        )
    if batch_size < 1 or workers < 0:
        raise ValueError(
            "the batch has at least one image, and no fewer than 0 processes load; got "
            f"batch_size={batch_size}, workers={workers}"
        )
    if precision not in (None, *PRECISIONS):
        raise ValueError(
            f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}"
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")


def _cores() -> int:
    """The cores this process may use, or all where the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(given: str | None, processes: Processes) -> torch.device:
    """Where this process computes.

    Raises:
        ValueError: If there is no such device.
    """
    if given is not None:
        try:
            device = torch.device(given)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            problem = str(error).splitlines()[0]
            raise ValueError(f"device {given!r} cannot be used: {problem}") from error
        return device
    if get_device() != "cuda":
        return torch.device(get_device())
    if processes.launched:
        check_gpus(processes.local_rank)
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)


def _write(
    job: EncodingJob,
    loader: DataLoader,
    out: Path,
    features: Sequence[str] | None,
    dtype: str,
    processes: Processes,
) -> dict[str, tuple[int, ...]]:
    """Encodes this process's images, and makes the file if it is the first process.

    Raises:
        ValueError: If this process or another one has failed.
    """
    first = processes.rank == 0
    images = job.images
    probe = job.probe(loader.dataset)
    shapes = {name: probe[name].shape[1:] for name in _wanted(features, probe)}
    tag = processes.gather(os.getpid())[0]
    parts = FeatureParts(out, shapes, len(images.files), dtype, tag)
    parts.check_space()
    try:
        if first:
            MMLogger.get_current_instance().info(f"{out} will hold {parts.describe()}")
            parts.create()
        processes.wait()  # the others need the arrays
        unreadable, failure = _attempt(job, loader, parts)
        results = processes.gather((unreadable, failure and str(failure)))
        if failure is not None:
            raise failure
        if problems := [problem for _, problem in results if problem]:
            raise ValueError(problems[0])
        skipped = np.array(sorted(sum((rows for rows, _ in results), [])), int)
        keep = np.setdiff1d(np.arange(len(images.files)), skipped)
        if first:
            others = _descriptions(images, keep, skipped)
            if "patch" in shapes:
                others["grid"] = probe["grid"]
            parts.finish(keep, others)
        processes.wait()  # the others end when the file is there
    finally:
        if first:
            parts.remove()
    return {name: (len(keep), *shape) for name, shape in shapes.items()}


def _attempt(
    job: EncodingJob, loader: DataLoader, parts: FeatureParts
) -> tuple[list[int], Exception | None]:
    """Encodes, and tells the other processes at once if it fails."""
    try:
        parts.open()
        return job.run(loader, parts), None
    except Exception as error:
        parts.stop()
        return [], error
    finally:
        parts.close()


def _wanted(
    features: Sequence[str] | None, present: Mapping[str, np.ndarray]
) -> list[str]:
    """The features asked for.

    Raises:
        ValueError: If the encoder does not have one.
    """
    if features is None:
        return [name for name in ("cls", "mean") if name in present]
    if "cls" in features and "cls" not in present:
        raise ValueError(
            "this encoder has no class token, so there is no feature 'cls': take "
            "'mean' or 'patch'"
        )
    return [name for name in FEATURES if name in features]


def _descriptions(
    images: ImageList, keep: np.ndarray, skipped: np.ndarray
) -> dict[str, np.ndarray]:
    """What the file holds beside features."""
    files = images.files
    found = {"files": np.array([files[row] for row in keep], np.str_)}
    if images.labels is not None:
        found["labels"] = images.labels[keep].astype(np.int64)
    if images.classes is not None:
        found["classes"] = np.array(images.classes, np.str_)
    if len(skipped):
        found["unreadable"] = np.array([files[row] for row in skipped], np.str_)
    return found
