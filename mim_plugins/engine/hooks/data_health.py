"""Checks that data and model match, before and during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, cast

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...datasets.epoch_sampler import EndlessSampler, EpochSampler, find_seeded_dataset
from ...datasets.image_files import printable
from ...datasets.seeded_dataset import SeededDataset
from ...datasets.seeding import preserve_rng_state
from ...models import RelPosVisionTransformer
from ..checks.classes import check_classifier, check_same_classes
from ..checks.data import Data
from ..checks.hooks import DataCheckHook
from .input_values import (
    check_same_channels,
    check_scale,
    sample_images,
    warn_of_lost_depth,
)
from .periodic import unwrapped
from .throughput import batch_size_of

# How many unreadable images are named when a run ends for them.
_LISTED = 20


@HOOKS.register_module()
class CheckInputHook(DataCheckHook):
    """Compares a few training images with the model before the first step.

    It looks for what would otherwise end in a shape error in the middle of the model,
    or in no error at all: a loader without a single full batch, numbers of channels
    that differ or that the model or its preprocessor does not have, an image size that
    is no multiple of the patch size, a mean and deviation of another scale than the
    images, files of 16 bits that are loaded with 8, a ``SeededDataset`` that never
    learns the epoch; for classifiers, validation or test data whose classes have other
    numbers than in training, and more classes than the head has. Models without a patch
    embedding are not compared with the images.

    Args:
        num_samples: Number of training images, evenly spaced, that are looked at.
    """

    priority = "NORMAL"

    def before_train(self, runner: Runner) -> None:
        """Checks loader, classes, a few samples and model.

        Args:
            runner: The runner of the training process.

        Raises:
            ValueError: Naming the mismatch and what to change.
        """
        loader = runner.train_dataloader
        check_loader(loader)
        super().before_train(runner)
        model = unwrapped(runner.model)
        with preserve_rng_state():
            images = sample_images(loader.dataset, self.num_samples)
        if not images:
            return
        check_same_channels(images)
        check_image(images[0].image, model, printable(images[0].path))
        check_scale(images, model.data_preprocessor)
        if message := warn_of_lost_depth(images, model.data_preprocessor):
            runner.logger.warning(message)
        seeded = find_seeded_dataset(loader.dataset)
        if seeded is not None:
            seeded.channels = images[0].image.shape[0]

    def check(self, sets: Sequence[Data], model: Any, trained: dict[str, Any]) -> None:
        """Compares the classes of a classifier's data, its head and a checkpoint.

        Raises:
            ValueError: Naming the mismatch and what to change.
        """
        if isinstance(model, BaseClassifier):
            datasets = {data.name: data.dataset for data in sets}
            check_same_classes(datasets, trained.get("classes"))
            for name, dataset in datasets.items():
                check_classifier(name, dataset, model)
            for data in sets:
                if data.kind != "train":
                    _check_evaluated_size(data, model)


def _check_evaluated_size(data: Data, model: nn.Module) -> None:
    """Compares the size of images to evaluate on with that of a classifier.

    Raises:
        ValueError: If the classifier cannot take them.
    """
    try:
        with preserve_rng_state():
            samples = sample_images(data.dataset, 1)
    except Exception:  # whatever a decoder raises; named when all images are read
        return
    for image, path in samples:
        check_image(image, model, printable(path), data.name)


def check_loader(loader: DataLoader) -> None:
    """Checks that a training loader yields batches, and that epochs differ.

    Args:
        loader: A loader of training data.

    Raises:
        ValueError: Naming the mismatch and what to change.
    """
    if len(loader) == 0:
        batch_size = getattr(loader.batch_sampler, "batch_size", loader.batch_size)
        images = len(cast(Sized, loader.sampler))
        raise ValueError(
            f"{images} training images per process, on {get_world_size()} process(es), "
            f"do not fill a batch of {batch_size}, and incomplete batches "
            "are dropped: reduce the batch with --cfg-options "
            "train_dataloader.batch_size=..., or keep incomplete batches with "
            "train_dataloader.drop_last=False"
        )
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    seeded = find_seeded_dataset(loader.dataset) is not None
    if seeded and not isinstance(sampler, (EpochSampler, EndlessSampler)):
        raise ValueError(
            f"with the sampler {type(sampler).__name__} a SeededDataset would draw the "
            "same crops in every epoch: set train_dataloader.sampler to "
            "dict(type='EpochSampler'), or in a run by iterations 'EndlessSampler'"
        )


def check_image(
    image: Tensor,
    model: nn.Module,
    path: str = "",
    source: str = "",
) -> None:
    """Checks channels and size of an image against a model.

    A classifier that resizes its positions is warned about where the size is another.

    Args:
        image: A sample as the loader gives it, (C, H, W).
        model: The model, without distributed wrapper.
        path: Of the image's file, for the message.
        source: Of what loader or data set it is, for the message.

    Raises:
        ValueError: Naming the mismatch and what to change.
    """
    channels, height, width = image.shape
    embedding = getattr(getattr(model, "backbone", None), "patch_embed", None)
    projection = getattr(embedding, "projection", None)
    if not isinstance(projection, nn.Conv2d):
        return
    expected = {"backbone.in_channels": projection.in_channels}
    mean = getattr(getattr(model, "data_preprocessor", None), "mean", None)
    if isinstance(mean, Tensor) and mean.numel() > 1:
        expected["data_preprocessor.mean (and std)"] = mean.numel()
    for name, count in expected.items():
        if count != channels:
            raise ValueError(
                f"the images{path and f' (such as {path})'} have {channels} channels, "
                f"but the model's {name} is made for {count}: either set model.{name} "
                f"to {channels} channels, or load images with {count} (color_type of "
                "LoadImageFromFile)"
            )
    # Detectors, segmentors and padding patch embeddings pad images of any size; a mask
    # needs complete patches.
    pads = getattr(embedding, "adaptive_padding", None) is not None
    divisible = isinstance(model, BaseSelfSupervisor) or (
        isinstance(model, BaseClassifier) and not pads
    )
    rows, cols = projection.stride
    if divisible and (height % rows or width % cols):
        raise ValueError(
            f"images of {height}x{width} pixels cannot be cut into patches of "
            f"{rows}x{cols}: set the size of the last crop or resize of the training "
            f"pipeline to a multiple of the patch size, such as "
            f"{max(1, height // rows) * rows}x{max(1, width // cols) * cols}, and "
            "model.backbone.img_size likewise"
        )
    made_for = encoder_size(model.backbone)
    compared = isinstance(model, (BaseSelfSupervisor, BaseClassifier))
    if compared and made_for not in (None, (height, width)):
        rows, cols = cast(tuple, made_for)
        swapped = (
            "; rows and columns are swapped" if made_for == (width, height) else ""
        )
        of = f" of {source}" if source else ""
        message = (
            f"the images{of} are {height}x{width} pixels, but the encoder is made for "
            f"{rows}x{cols} (height x width){swapped}"
        )
        if divisible or isinstance(model.backbone, RelPosVisionTransformer):
            raise ValueError(
                f"{message}: set one size for all with --cfg-options img_size=..., or "
                "model.backbone.img_size to the images' size, or that of the "
                "pipeline's last crop or resize to the encoder's, as in "
                "train_pipeline.1.scale"
            )
        MMLogger.get_current_instance().warning(
            f"{message}; its positions are resized. --cfg-options img_size={rows}"
            f"{f',{cols}' * (rows != cols)} makes images of its size"
        )


def encoder_size(encoder: Any) -> tuple[int, int] | None:
    """The height and width of the images an encoder is built for, in pixels.

    Args:
        encoder: An encoder of this package or of mmpretrain.

    Returns:
        None for an encoder that says nothing of it, as those for any size.
    """
    size = getattr(encoder, "img_size", None)
    if size is not None:
        rows, cols = (size, size) if isinstance(size, int) else size
        return rows, cols
    grid = getattr(encoder, "grid", None)
    patch = getattr(encoder, "mask_patch_size", None)
    if grid is None or patch is None:
        return None
    return grid[0] * patch[0], grid[1] * patch[1]


class UnreadableImagesError(RuntimeError):
    """Too many images of a run cannot be read."""


@HOOKS.register_module()
class CorruptImageHook(Hook):
    """Counts replaced images, logs the count, and stops the run if there are too many.

    A ``SeededDataset`` flags each sample that replaces an unreadable image; the hook
    sums the flags over all processes, and logs the count every epoch. The run
    stops as soon as the count exceeds the data set's ``max_corrupt_ratio`` of the
    samples of an epoch, without waiting for the end of the epoch. One unreadable
    image in an epoch never stops a run, however few images there are.

    Args:
        interval: Iterations between two sums over the processes; an epoch's end is
            always one.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    # Two, for a folder of 50 images of which one is broken.
    MIN_COUNT = 2

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(
                "interval of CorruptImageHook counts iterations and must be at least "
                f"1, got {interval}"
            )
        self.interval = interval
        self._dataset: SeededDataset | None = None
        # Of this epoch and process: iterations, samples, replaced samples.
        self._iterations = self._seen = self._replaced = 0
        # Files the log knows of.
        self._named: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Finds the data set to ask.

        Args:
            runner: The runner of the training process.
        """
        self._iterations = self._seen = self._replaced = 0
        self._dataset = find_seeded_dataset(runner.train_dataloader.dataset)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Counts the batch's flags; sums up when it is time.

        Args:
            runner: The runner of the training process.
            batch_idx: Not used; loops over iterations count it differently.
            data_batch: The batch as the loader gave it, on the CPU.
            outputs: Not used.

        Raises:
            UnreadableImagesError: If too many images are unreadable.
        """
        if self._dataset is None:
            return
        self._iterations += 1
        self._seen += batch_size_of(data_batch)
        self._replaced += count_replaced(data_batch)
        epoch_ends = self.every_n_train_iters(runner, len(runner.train_dataloader))
        if epoch_ends or self.every_n_train_iters(runner, self.interval):
            self._sum_up(runner, self._dataset, epoch_ends)
        if epoch_ends:
            self._iterations = self._seen = self._replaced = 0

    def _sum_up(self, runner: Runner, dataset: SeededDataset, epoch_ends: bool) -> None:
        """Sums and logs the counts of all processes; raises if they are too high."""
        total = torch.tensor([self._seen, self._replaced])
        all_reduce(total)
        seen, replaced = total.tolist()
        if replaced == 0:
            return
        own, *others = all_gather_object(dataset.unreadable_paths())
        self._named.update(own)
        for path in sorted(set().union(*others) - self._named):
            # Only the first process writes the log file, so it never saw these.
            runner.logger.warning(f"Unreadable image, replaced by another one: {path}")
            self._named.add(path)
        ratio = dataset.max_corrupt_ratio
        epoch = seen * len(runner.train_dataloader) / self._iterations
        share = f"{replaced} of {seen} samples ({replaced / seen:.2%})"
        if replaced >= self.MIN_COUNT and replaced > ratio * epoch:
            names = sorted(self._named)
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise UnreadableImagesError(
                f"{share} of this epoch were unreadable images, more than "
                f"max_corrupt_ratio = {ratio:.2%} of an epoch. Repair or remove them, "
                "or accept more with train_dataloader.dataset.max_corrupt_ratio. The "
                f"log says why. So far: {', '.join(names[:_LISTED])}{more}"
            )
        if epoch_ends:
            # The number also makes the line unique: mmengine drops repeated warnings.
            number = (runner.iter + 1) // len(runner.train_dataloader)
            runner.logger.warning(
                f"Unreadable images in epoch {number}: {share} were replaced"
            )


def count_replaced(data_batch: Any) -> int:
    """Counts the samples of a batch that replace unreadable images.

    Args:
        data_batch: A batch as the loader gave it, on the CPU.
    """
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    if isinstance(samples, Mapping):
        flags = samples.get("replaced")
        return 0 if flags is None else int(torch.as_tensor(flags).sum())
    if not isinstance(samples, list | tuple):
        return 0
    return sum(sample.get("replaced", 0) for sample in samples)
