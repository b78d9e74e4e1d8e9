"""The benchmark of data pipelines: ``tools/benchmark.py data``."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, FUNCTIONS, TRANSFORMS, init_default_scope
from torch.utils.data import DataLoader, Dataset, Subset

from mim_plugins.engine import load_config

from .step import provenance
from .timing import Stopwatch, Summary, interleave, paired_ratio

# What mmpretrain's MAE configs read their images with.
MMPRETRAIN_PIPELINE = (
    dict(type="LoadImageFromFile"),
    dict(
        type="RandomResizedCrop",
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
)
SYNTHETIC_IMAGES = 64


class FilePipeline(Dataset):
    """A pipeline over a list of image files.

    Args:
        paths: The files.
        pipeline: Configs of its transforms.
    """

    def __init__(self, paths: Sequence[str], pipeline: Sequence[dict]) -> None:
        self.paths = list(paths)
        self.pipeline = Compose([TRANSFORMS.build(dict(step)) for step in pipeline])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        return self.pipeline({"img_path": self.paths[index]})


def run_data(
    config: str,
    data_root: str | None = None,
    baselines: Sequence[str] = ("mmpretrain-mae",),
    workers: int = 0,
    images: int = 300,
    batch_size: int = 32,
    rounds: int = 5,
    cfg_options: dict | None = None,
) -> dict[str, Any]:
    """Time the training pipeline of a config and its baselines on the same files.

    From the file to the collated batch, interleaved in one process. The first round,
    which is discarded, leaves the files in the page cache.

    Args:
        config: Path of a training config; its pipeline is called ``ours``.
        data_root: Folder of images instead of the config's. Without one, and where
            the config's does not exist, synthetic JPEG images are written to a
            temporary folder.
        baselines: ``mmpretrain-mae``, or paths of other configs, whose pipelines get
            the same files.
        workers: Loading processes; 0 measures the CPU time of this process.
        images: Images in a round.
        batch_size: Images in a batch.
        rounds: Rounds to keep; one more is run first and discarded.
        cfg_options: Overrides of the config's entries.

    Returns:
        A report that can be written as JSON.

    Raises:
        ValueError: If the config has no training data, a count is out of range, or
            two implementations have one name.
        FileNotFoundError: If the folder or the config of a baseline does not exist.
    """
    if min(images, batch_size) < 1 or workers < 0:
        raise ValueError(
            "images and batch_size must be at least 1 and workers at least 0, got "
            f"{images}, {batch_size} and {workers}"
        )
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    cfg = load_config(config, cfg_options)
    if "train_dataloader" not in cfg:
        raise ValueError(f"{config} has no train_dataloader: give a training config")
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    source = _source(cfg)
    if data_root is not None and not Path(data_root).is_dir():
        raise FileNotFoundError(f"--data-root {data_root} is not a folder")
    pipelines = {_name(baseline): _pipeline(baseline) for baseline in baselines}
    if "ours" in pipelines or len(pipelines) < len(baselines):
        raise ValueError(
            f"two implementations have one name: ours, {', '.join(pipelines)}"
        )
    folders = image_folder(data_root or source.get("data_root"), images)
    with folders as (folder, synthetic):
        source["data_root"] = folder
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        paths = [dataset.get_data_info(i)["img_path"] for i in range(len(dataset))]
        order = [i % len(dataset) for i in range(images)]
        files = [paths[i] for i in order]
        sets: dict[str, tuple[Dataset, Callable]] = {
            "ours": (Subset(dataset, order), _collate(cfg))
        }
        for name, pipeline in pipelines.items():
            sets[name] = (FilePipeline(files, pipeline), default_collate)
        loaders = {
            name: DataLoader(
                samples,
                batch_size=batch_size,
                num_workers=workers,
                collate_fn=collate,
                persistent_workers=workers > 0,
            )
            for name, (samples, collate) in sets.items()
        }
        mean_kib = float(np.mean([Path(file).stat().st_size for file in files])) / 1024
        laps = interleave(
            {name: partial(time_epoch, loader) for name, loader in loaders.items()},
            rounds,
        )
    seconds = {
        name: [lap["wall" if workers else "cpu"] for lap in rows]
        for name, rows in laps.items()
    }
    # With workers the main process mostly waits: the cores in use are theirs.
    cores = max(workers, 1)
    entries = {}
    for name, values in seconds.items():
        summary = Summary.of(values)
        entries[name] = {
            "images_per_s": images / summary.median,
            "images_per_s_per_core": images / summary.median / cores,
            "ms_per_image": {
                key: value / images * 1e3 for key, value in summary.as_dict().items()
            },
            "wall_s": Summary.of(lap["wall"] for lap in laps[name]).median,
            "spread": summary.spread,
        }
    return {
        "benchmark": "data",
        "config": str(config),
        "data": "synthetic 500x375 JPEG, quality 90" if synthetic else folder,
        "files": len(set(files)),
        "mean_file_kib": mean_kib,
        "images": images,
        "batch_size": batch_size,
        "workers": workers,
        "clock": "wall time" if workers else "process CPU time",
        "page_cache": "warm",
        "rounds": rounds,
        "implementations": entries,
        "times_as_fast_as": {
            name: paired_ratio(seconds["ours"], values).as_dict()
            for name, values in seconds.items()
            if name != "ours"
        },
        **provenance(),
    }


def time_epoch(loader: DataLoader) -> dict[str, float]:
    """Draw every batch of a loader once.

    Args:
        loader: What to time.

    Returns:
        Seconds of CPU time of this process (``cpu``) and of ``wall`` time.
    """
    watch = Stopwatch(torch.device("cpu"))
    watch.mark()
    for _ in loader:
        pass
    watch.mark()
    return {"cpu": sum(watch.laps()), "wall": watch.wall_seconds()}


@contextmanager
def image_folder(root: str | None, images: int) -> Iterator[tuple[str, bool]]:
    """Provide a folder of images, synthetic ones where there are none.

    Args:
        root: The wanted folder.
        images: Images in a round, of which synthetic ones are a few, read repeatedly.

    Yields:
        The folder, and whether its images are synthetic.
    """
    if root is not None and Path(root).is_dir():
        yield str(root), False
        return
    with tempfile.TemporaryDirectory() as folder:
        # In ImageNet's layout, so that any data set of a config finds them.
        count = min(images, SYNTHETIC_IMAGES)
        write_synthetic(Path(folder) / "train" / "n00000000", count)
        yield folder, True


def write_synthetic(folder: Path, count: int) -> None:
    """Write JPEG images of ImageNet's usual size with the spectrum of photographs.

    Amplitudes fall with the frequency, as in natural images, so that files are about
    as large, and as slow to decode, as real ones (500 x 375 pixels, quality 90).

    Args:
        folder: Where to put them; created.
        count: How many.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    height, width = 375, 500
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    for index in range(count):
        noise = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
        image = np.fft.irfft2(
            noise / frequency[..., None], (height, width), axes=(0, 1)
        )
        # Channels of photographs are mostly alike.
        image = 0.3 * image + image.mean(axis=2, keepdims=True)
        image = 128 + 50 * (image - image.mean()) / image.std()
        mmcv.imwrite(
            image.clip(0, 255).astype(np.uint8),
            str(folder / f"{index:05d}.jpg"),
            [cv2.IMWRITE_JPEG_QUALITY, 90],
        )


def _source(cfg: Config) -> Any:
    """Find the innermost data set of a config, below any wrappers."""
    dataset = cfg.train_dataloader.dataset
    while isinstance(dataset.get("dataset"), Mapping):
        dataset = dataset.dataset
    return dataset


def _collate(cfg: Config) -> Callable:
    """Get the function with which a config's loader makes batches."""
    collate = cfg.train_dataloader.get("collate_fn") or dict(type="default_collate")
    return FUNCTIONS.get(collate["type"])


def _name(baseline: str) -> str:
    """How the report calls the implementation that ``--vs NAME`` asks for."""
    return baseline if baseline == "mmpretrain-mae" else Path(baseline).stem


def _pipeline(baseline: str) -> Sequence[dict]:
    """Get the pipeline that ``--vs NAME`` asks for."""
    if baseline == "mmpretrain-mae":
        return MMPRETRAIN_PIPELINE
    if not Path(baseline).is_file():
        raise FileNotFoundError(
            f"--vs {baseline}: neither a config file nor mmpretrain-mae"
        )
    return _source(load_config(baseline)).pipeline
