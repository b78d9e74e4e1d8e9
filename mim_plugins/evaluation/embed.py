"""Features of a folder of images, written to a file: what ``tools/embed.py`` runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import get_dist_info
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader, Dataset

from ..checkpoints.files import check_destination
from ..checkpoints.files.atomic import writer_tag
from ..datasets.image_files import printable
from ..engine.config.settings import PRECISIONS
from ..engine.environment import check_gpus, has_fast_bfloat16
from ..engine.hooks.data_health import check_image
from .encoder import Encoder, load_encoder
from .feature_file import FeatureParts
from .images import Batch, ImageFiles, ImageList, collate, image_loader, list_images
from .processes import Processes

FEATURES = ("cls", "mean", "patch")
DTYPES = ("float32", "float16")

# Seconds between two progress lines in the log.
_LOG_INTERVAL = 20.0


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

    The file is an ``.npz`` without pickles: ``cls`` (N, C), ``mean`` (N, C) and
    ``patch`` (N, L, C, in raster order of ``grid``) as requested; ``files`` (N,), paths
    relative to ``data``; ``labels`` (N,) and ``classes``, where they are known;
    ``unreadable``, the files that were skipped, if any. Memory does not grow with the
    number of images. Several processes share the batches that a single one would make,
    and the result is the same.

    Args:
        data: The folder, see :func:`.images.list_images`.
        out: The ``.npz`` file, written atomically at the end.
        model: Name or config file of a pre-training or a classifier. By default the
            only config file next to ``checkpoint``, where training leaves it.
        checkpoint: The weights, ours or official ones; by default those of the model
            index, or ``load_from`` of the config.
        features: Some of ``cls``, ``mean`` and ``patch``; by default ``mean``, and
            ``cls`` where the encoder has a class token.
        ann_file: Annotation file with the images, and optionally their classes.
        skip_unreadable: Whether to skip images that cannot be read; otherwise the
            first one is an error.
        batch_size: Images at a time, in each process.
        workers: Data loading workers per process; by default one per core, four at
            most.
        device: Such as ``cuda:1``; by default the GPU of this process, or the CPU.
        precision: ``fp32``, ``bf16`` or ``fp16``, of the computation; by default bf16
            on GPUs that have it, else fp32.
        dtype: Data type in the file, ``float32`` or ``float16``.
        cfg_options: Values that replace those of the config, by dotted key.
        launcher: Who started this process: ``none``, ``pytorch``, ``slurm``, ``mpi``.
        force: Whether to replace ``out`` if it is there.

    Returns:
        The shape of each array of features.

    Raises:
        FileExistsError: If ``out`` already exists.
        FileNotFoundError: If a file or folder does not exist, or has no images.
        OSError: If the disk has no space for the features.
        ValueError: If an argument, an image or the checkpoint cannot be used.
    """
    if workers is None:
        workers = min(4, _cores())
    _check_arguments(out, features, batch_size, workers, precision, dtype)
    check_destination(out, force)
    processes = Processes(launcher)
    try:
        encoder = load_encoder(model, checkpoint, cfg_options)
        images = list_images(data, ann_file, encoder.pipeline)
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
    """Validates the arguments before anything is built.

    Raises:
        ValueError: Naming the accepted values.
    """
    if Path(out).suffix != ".npz":
        raise ValueError(f"features are written to a .npz file, not to {out}")
    if features is not None and (not features or not set(features) <= set(FEATURES)):
        raise ValueError(
            f"features are some of {', '.join(FEATURES)}, not {list(features)}"
        )
    if batch_size < 1 or workers < 0:
        raise ValueError(
            "batch_size must be at least 1 and workers at least 0, got "
            f"batch_size={batch_size}, workers={workers}"
        )
    if precision not in (None, *PRECISIONS):
        raise ValueError(
            f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}"
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")


def _cores() -> int:
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(given: str | None, processes: Processes) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: If the given device does not exist.
    """
    if given is not None:
        return usable_device(given)
    if get_device() != "cuda":
        return torch.device(get_device())
    if processes.launched:
        check_gpus(processes.local_rank)
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)


def usable_device(name: str) -> torch.device:
    """A device by its name.

    Raises:
        ValueError: If it does not exist.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {problem}") from error
    return device


def _write(
    job: EncodingJob,
    loader: DataLoader,
    out: Path,
    features: Sequence[str] | None,
    dtype: str,
    processes: Processes,
) -> dict[str, tuple[int, ...]]:
    """Encodes this process's images; the first process also writes the file.

    Raises:
        ValueError: If this or another process has failed.
    """
    first = processes.rank == 0
    images = job.images
    probe = job.probe(loader.dataset)
    shapes = {name: probe[name].shape[1:] for name in _wanted(features, probe)}
    tag = processes.gather(writer_tag())[0]
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
            others = _metadata(images, keep, skipped)
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
    """Encodes, and stops the other processes if it fails."""
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
    """The requested features.

    Raises:
        ValueError: If the encoder does not have one of them.
    """
    if features is None:
        return [name for name in ("cls", "mean") if name in present]
    if "cls" in features and "cls" not in present:
        raise ValueError(
            "this encoder has no class token, so there is no feature 'cls': take "
            "'mean' or 'patch'"
        )
    return [name for name in FEATURES if name in features]


def _metadata(
    images: ImageList, keep: np.ndarray, skipped: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays of the file other than features."""
    files = images.files
    found = {"files": np.array([files[row] for row in keep], np.str_)}
    if images.labels is not None:
        found["labels"] = images.labels[keep].astype(np.int64)
    if images.classes is not None:
        found["classes"] = np.array(images.classes, np.str_)
    if len(skipped):
        found["unreadable"] = np.array([files[row] for row in skipped], np.str_)
    return found


class EncodingJob:
    """Encodes the images of a folder batch by batch.

    Args:
        encoder: The encoder, on its device.
        images: The images.
        precision: ``fp32``, ``bf16`` or ``fp16``; None is bf16 on GPUs that have it,
            else fp32.
        skip_unreadable: Whether to skip images that cannot be read.

    Raises:
        ValueError: If the device does not support the precision.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: ImageList,
        precision: str | None,
        skip_unreadable: bool,
    ) -> None:
        self.encoder = encoder
        self.images = images
        self.skip_unreadable = skip_unreadable
        self.device = next(encoder.parameters()).device
        if precision is None:
            fast = self.device.type == "cuda" and has_fast_bfloat16()
            precision = "bf16" if fast else "fp32"
        if precision == "fp16" and self.device.type == "cpu":
            raise ValueError("precision fp16 needs a GPU; on the CPU take bf16 or fp32")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def run(self, loader: DataLoader, parts: FeatureParts) -> list[int]:
        """Writes the features of a loader's images; returns the unreadable ones.

        Stops early when another process has failed.
        """
        unreadable: list[int] = []
        progress = _Progress(len(self.images.files))
        for batch in loader:
            if parts.stopped:
                break
            unreadable += self.unreadable(batch)
            if batch.rows:
                parts.write(batch.rows, self.features(batch))
            progress.add(len(batch.rows) + len(batch.unreadable))
        return unreadable

    def unreadable(self, batch: Batch) -> list[int]:
        """Indices of the images of a batch that could not be read.

        Raises:
            ValueError: If there are any, and they are not to be skipped.
        """
        for index, reason in batch.unreadable:
            path = printable(self.images.path(index))
            if not self.skip_unreadable:
                raise ValueError(
                    f"{path} cannot be read ({reason}); remove it, or skip such images "
                    "with --skip-unreadable"
                )
            MMLogger.get_current_instance().warning(f"skipped: {path} ({reason})")
        return [index for index, _ in batch.unreadable]

    @torch.inference_mode()
    def features(self, batch: Batch) -> dict[str, np.ndarray]:
        """The features of a batch, and their ``grid``.

        Raises:
            ValueError: If the images differ in size.
        """
        if isinstance(batch.inputs, list):
            raise ValueError(_size_mismatch(batch, self.images))
        data = {"inputs": batch.inputs, "data_samples": None}
        inputs = self.encoder.data_preprocessor(data, False)["inputs"]
        context: Any = nullcontext()
        if self.dtype is not None:
            context = torch.autocast(self.device.type, self.dtype)
        with context:
            found = self.encoder.image_features(inputs)
        values = {name: x.float().cpu().numpy() for name, x in found.present.items()}
        return {**values, "grid": np.array(found.grid)}

    def probe(self, files: Dataset) -> dict[str, np.ndarray]:
        """The features of the first readable image, for their shapes.

        Raises:
            ValueError: If no image is readable, or the encoder has other channels.
        """
        for index in range(len(self.images.files)):
            batch = collate([files[index]])
            if not batch.unreadable:
                check_image(batch.inputs[0], self.encoder, self.images.path(index))
                return self.features(batch)
            if not self.skip_unreadable:
                self.unreadable(batch)
        raise ValueError(f"none of the images in {self.images.root} can be read")


def _size_mismatch(batch: Batch, images: ImageList) -> str:
    """The message for a batch of images of different sizes, naming two of them."""
    sizes = [tuple(image.shape) for image in batch.inputs]
    other = next(k for k, size in enumerate(sizes) if size != sizes[0])
    first, second = (
        f"{images.path(batch.rows[k])} has the shape {sizes[k]}" for k in (0, other)
    )
    return (
        f"the config's test_pipeline gives images of different sizes: {first}, "
        f"{second}; resize and crop them there"
    )


class _Progress:
    """Logs the progress of the first process, extrapolated to all of them."""

    def __init__(self, total: int) -> None:
        self.rank, self.processes = get_dist_info()
        self.total, self.done = total, 0
        self.start = self.logged = time.perf_counter()

    def add(self, images: int) -> None:
        """Counts images."""
        self.done += images * self.processes
        now = time.perf_counter()
        if self.rank or now - self.logged < _LOG_INTERVAL:
            return
        self.logged = now
        speed = self.done / (now - self.start)
        left = timedelta(seconds=round(max(self.total - self.done, 0) / speed))
        MMLogger.get_current_instance().info(
            f"about {min(self.done, self.total)} of {self.total} images, "
            f"{speed:.1f} images/s, {left} left"
        )
