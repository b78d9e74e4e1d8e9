"""Samples that do not depend on rank or worker, and tolerate unreadable files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from torch.utils.data import get_worker_info

from .image_files import MAX_BYTES, MAX_PIXELS, check_image_file, printable
from .seeding import preserve_rng_state, sample_key, seed_rng


@DATASETS.register_module()
class SeededDataset:
    """A wrapper that seeds each sample's draws and replaces unreadable images.

    Every random draw of the wrapped data set's pipeline follows from the run's seed,
    the epoch and the sample's index alone, not from rank, worker or restart.
    Use it with ``EpochSampler``, which sets :attr:`seed` and puts the epoch into the
    index: index ``i`` is sample ``i % len(self)`` of epoch ``i // len(self)``.

    Pipelines find the sample's key as ``results['seed']``, its index as
    ``results['sample_idx']``, and in ``results['replaced']`` whether (1) or not (0)
    it replaces an unreadable image. Items that hold an mmengine data element
    instead of a dict get ``replaced`` as meta information, where it is 1.

    An image is unreadable if an exception ends the pipeline before there is an
    ``img``: missing or empty file, no permission, not an image, truncated; or if it has
    another number of channels than :attr:`channels`, which ``CheckInputHook`` sets. It
    is logged once, and another sample, drawn from the key, takes its place;
    ``CorruptImageHook`` counts them and stops the run when there are too many. A
    later exception is a fault of the pipeline, and is raised. Data sets in test mode
    replace nothing, since that would change what is measured.

    Args:
        dataset: Data set to wrap, built or as a config: an mmengine ``BaseDataset``,
            or such wrappers as ``ConcatDataset`` or ``RepeatDataset`` around some.
        seed: Seed of the run, unless ``EpochSampler`` sets it.
        max_corrupt_ratio: Largest share of unreadable images in an epoch, in [0, 1],
            with which ``CorruptImageHook`` lets a run continue.
        max_tries: Replacements to try for an unreadable sample before giving up.
        max_pixels: Largest height times width of an image; a larger one counts as
            unreadable. See :func:`check_image_file`.
        max_bytes: Largest size of an image file, likewise.

    Raises:
        TypeError: If ``dataset`` is neither a config nor a data set.
        ValueError: If ``max_corrupt_ratio`` is outside [0, 1], or the data set is
            empty.
    """

    def __init__(
        self,
        dataset: BaseDataset | dict,
        seed: int = 0,
        max_corrupt_ratio: float = 0.01,
        max_tries: int = 20,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if not 0 <= max_corrupt_ratio <= 1:
            raise ValueError(
                "max_corrupt_ratio is the tolerated share of unreadable images, "
                f"in [0, 1]; got {max_corrupt_ratio}"
            )
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if not all(
            hasattr(self.dataset, name) for name in ("get_data_info", "full_init")
        ):
            raise TypeError(
                "SeededDataset wraps mmengine data sets, or their configs; got "
                f"{type(dataset).__name__}"
            )
        self.seed = seed
        # In shared memory, as below; 0 accepts any number.
        self._channels = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.max_corrupt_ratio = max_corrupt_ratio
        self.max_tries = max_tries
        self.max_pixels = max_pixels
        self.max_bytes = max_bytes
        self._fully_initialized = False
        self.full_init()

    @property
    def metainfo(self) -> dict:
        """Meta information of the wrapped data set, such as its classes."""
        return self.dataset.metainfo

    @property
    def channels(self) -> int:
        """Number of channels that every image should have; 0 accepts any."""
        return int(self._channels)

    @channels.setter
    def channels(self, count: int) -> None:
        self._channels.fill_(count)

    def full_init(self) -> None:
        """Loads the wrapped data set's annotations."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        self._length = len(self.dataset)
        if self._length == 0:
            raise ValueError(
                f"the wrapped {type(self.dataset).__name__} has no samples: check its "
                "data folder, annotation file and filters"
            )
        # In shared memory: workers see what others have already logged, and the main
        # process what all of them found.
        self._unreadable = torch.zeros(self._length, dtype=torch.bool).share_memory_()
        self._fully_initialized = True

    def get_data_info(self, idx: int) -> dict:
        """Annotation of one sample.

        Args:
            idx: Index, with or without the epoch in it.
        """
        return self.dataset.get_data_info(idx % self._length)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Categories of one sample.

        Args:
            idx: Index, with or without the epoch in it.
        """
        return self.dataset.get_cat_ids(idx % self._length)

    def unreadable_paths(self) -> list[str]:
        """Files that could not be read so far, by this process and its workers."""
        found = self._unreadable.nonzero().flatten().tolist()
        return [_path(self.get_data_info(index)) for index in found]

    def __len__(self) -> int:
        """Number of samples of one epoch."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """Iterates over the first epoch; indices alone would never end."""
        return (self[index] for index in range(self._length))

    def __getitem__(self, idx: int) -> Any:
        """Loads one sample.

        Args:
            idx: ``epoch * len(self) + index``.
        """
        return self.__getitems__([idx])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Loads a batch, as torch's loader asks for it.

        Args:
            indices: Indices as ``__getitem__`` takes them.
        """
        # Keeping the process's random state takes 0.1 ms: once a batch, not a sample.
        in_worker = get_worker_info() is not None
        with nullcontext() if in_worker else preserve_rng_state():
            return [self._load(int(idx)) for idx in indices]

    def _load(self, idx: int) -> Any:
        """Loads one sample, or a replacement.

        Raises:
            RuntimeError: If none of ``max_tries`` replacements can be read either, or
                one file cannot be read in test mode.
        """
        epoch, index = divmod(idx, self._length)
        key = sample_key(self.seed, epoch, index)
        replaced, path = 0, ""
        error: Exception | None = None
        for attempt in range(self.max_tries + 1):
            error = None
            dataset, inner = self._locate(index)
            results = dataset.get_data_info(inner)
            results.update(sample_idx=index, seed=key, replaced=replaced)
            seed_rng(key)
            try:
                if "img_path" in results:
                    check_image_file(
                        results["img_path"], self.max_pixels, self.max_bytes
                    )
                item = dataset.pipeline(results)
            except Exception as caught:
                if "img" in results:
                    _logger().error(f"The data pipeline fails on {_path(results)}")
                    raise
                item, error = None, caught
            unlike = self._unlike(item)
            if item is not None and unlike is None:
                return _flag(item) if replaced else item
            path, error = _path(results), unlike or error
            if dataset.test_mode:
                raise RuntimeError(
                    f"{path} cannot be read, and is not replaced when testing: "
                    f"{reason_of(error, path)}"
                ) from error
            # With an image, the pipeline has rejected the sample; the file is fine.
            if "img" not in results or unlike:
                replaced = 1
                self._report(index, path, error)
            index = sample_key(key, attempt, index) % self._length
        raise RuntimeError(
            f"No usable sample among {self.max_tries + 1} of the data set; the last "
            f"was {path}: {reason_of(error, path)}. Check that the data folder is "
            "still there and that the pipeline's first step can read its files."
        ) from error

    def _unlike(self, item: Any) -> ValueError | None:
        """What is wrong with the channels of an item, if anything."""
        image = item.get("inputs") if isinstance(item, dict) else None
        if not isinstance(image, torch.Tensor) or not self.channels:
            return None
        if image.shape[0] == self.channels:
            return None
        return ValueError(
            f"it has {image.shape[0]} channels instead of {self.channels}"
        )

    def _locate(self, index: int) -> tuple[BaseDataset, int]:
        """Finds the data set behind wrappers, and the index there."""
        dataset = self.dataset
        while not isinstance(dataset, BaseDataset):
            inner = dataset._get_ori_dataset_idx(index)
            if isinstance(inner, tuple):
                which, index = inner
                dataset = dataset.datasets[which]
            else:
                index, dataset = inner, dataset.dataset
        return dataset, index

    def _report(self, index: int, path: str, error: Exception | None) -> None:
        """Logs an unreadable file the first time it is met."""
        if not self._unreadable[index]:
            self._unreadable[index] = True
            _logger().warning(
                f"Unreadable image, replaced by another one: {path} "
                f"({reason_of(error, path)})"
            )


def _flag(item: Any) -> Any:
    """Marks an item as a replacement in its meta information."""
    samples = item.get("data_samples") if isinstance(item, dict) else None
    if isinstance(samples, BaseDataElement):
        samples.set_metainfo({"replaced": 1})
    return item


def _logger() -> MMLogger:
    return MMLogger.get_current_instance()


def _path(results: dict) -> str:
    found = results.get("img_path", f"sample {results.get('sample_idx')}")
    return printable(str(found))


def reason_of(error: Exception | None, path: str) -> str:
    """The error in one printable line, without the path, which the caller names."""
    if error is None:
        return "the pipeline returned nothing"
    message = printable(str(error)).replace(printable(path), "")
    text = " ".join(message.split()).rstrip(": ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
