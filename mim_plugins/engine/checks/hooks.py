"""When data are checked: before training, and before a validation or test alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...datasets.seeding import preserve_rng_state
from ..hooks.periodic import unwrapped
from . import boxes, label_maps
from .classes import (
    check_num_classes,
    check_same_classes,
    checkpoint_classes,
    class_heads,
    names_of,
)
from .data import Data, inner_datasets, some
from .image_sizes import check_padding, check_test_sizes, check_training_size


class DataCheckHook(Hook):
    """Hands the data of all loops, and what the checkpoint knows, to a check.

    Args:
        num_samples: Number of samples per data set whose files are opened.
    """

    # Before what runs pipelines, whose errors say less.
    priority = "ABOVE_NORMAL"

    def __init__(self, num_samples: int = 16) -> None:
        self.num_samples = num_samples
        self._trained: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers what a checkpoint records about the data it was trained on."""
        self._trained = (checkpoint.get("meta") or {}).get("dataset_meta") or {}

    def before_train(self, runner: Runner) -> None:
        """Checks the training data and, if there are any, the validation data."""
        # What is fine-tuned may have been trained on any classes.
        trained = self._trained if runner.cfg.get("resume") else {}
        kinds = ["train"] + ["val"] * (runner.val_loop is not None)
        self._check(runner, kinds, trained)

    def before_val(self, runner: Runner) -> None:
        """Checks the data of a validation without training, as :meth:`before_train`."""
        if runner.iter == 0:
            self._check(runner, ["val"], self._trained)

    def before_test(self, runner: Runner) -> None:
        """Checks the test data, as :meth:`before_train`."""
        self._check(runner, ["test"], self._trained)

    def _check(self, runner: Runner, kinds: Sequence[str], trained: dict) -> None:
        model = unwrapped(runner.model)
        # Inside a wrapper for test-time augmentation.
        model = getattr(model, "module", model)
        self.check([Data.of(runner, kind) for kind in kinds], model, trained)

    def check(self, sets: Sequence[Data], model: Any, trained: dict[str, Any]) -> None:
        """Compares data, a model without wrappers, and what a checkpoint records."""
        raise NotImplementedError


@HOOKS.register_module()
class CheckDetectionHook(DataCheckHook):
    """Compares classes, objects and images of all sets with a detector.

    It finds categories in another order, heads with another number of classes, objects
    that are not used, images that are missing or of another size, a metric of other
    images, and image sizes that a hierarchical backbone cannot divide.

    Args:
        num_samples: Number of images per data set whose files are opened.
    """

    def check(self, sets: Sequence[Data], model: Any, trained: dict[str, Any]) -> None:
        """Compares data, model and checkpoint."""
        parts = [(d, p) for d in sets for p in inner_datasets(d.dataset, "ann_file")]
        files = {id(part): boxes.read_annotations(part) for _, part in parts}
        known = checkpoint_classes(trained.get("classes"))
        boxes.check_categories(sets, files, known)
        for data, part in parts:
            check_num_classes(data.name, names_of(part), class_heads(model))
            if files[id(part)] and data.needs_truth:
                boxes.check_objects(data, part, files[id(part)])
            boxes.check_images(data, part, self.num_samples)
        for data in sets:
            boxes.check_metrics(data, model)
        check_padding(model)


@HOOKS.register_module()
class CheckSegmentationHook(DataCheckHook):
    """Compares classes, label maps and images of all sets with a segmentor.

    It finds classes that differ, labels that are no class or are ignored, images
    without a label map or of another size, and image sizes that a backbone with
    relative positions does not support. While training, it names the file of a label
    that is no class; after a validation, classes without labels.

    Args:
        num_samples: Number of label maps per data set that are read.
    """

    def check(self, sets: Sequence[Data], model: Any, trained: dict[str, Any]) -> None:
        """Compares data, model and checkpoint."""
        if not hasattr(model, "decode_head"):
            return
        heads = dict(class_heads(model))
        parts = [
            (d, p) for d in sets for p in inner_datasets(d.dataset, "seg_map_suffix")
        ]
        datasets = {f"{d.name}{f' {k}' * bool(k)}": p for k, (d, p) in enumerate(parts)}
        check_same_classes(datasets, trained.get("classes"))
        label_maps.check_conventions(parts, heads, trained)
        for data, part in parts:
            check_num_classes(data.name, names_of(part), heads.items())
            if label_maps.check_files(data, part):
                label_maps.check_labels(data, part, heads, self.num_samples)
            label_maps.check_test_batch(data, part, self.num_samples)
        required = getattr(model.backbone, "required_size", None)
        if required is not None:
            if sets[0].kind == "train":
                with preserve_rng_state():
                    image = sets[0].dataset[0]["inputs"]
                check_training_size(tuple(image.shape[-2:]), model, required)
            check_test_sizes(model, required)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Looks at the labels of a batch, which outside of the sample may be any.

        Raises:
            ValueError: Naming the file of a label that is no class.
        """
        model = unwrapped(runner.model)
        heads = [head for _, head in class_heads(model)]
        ignored = {head.ignore_index for head in heads}
        if not heads or None in ignored:
            return
        classes = range(min(head.num_classes for head in heads))
        samples = [s for s in data_batch["data_samples"] if "gt_sem_seg" in s]
        for sample in samples:
            labels = sample.gt_sem_seg.data
            allowed = labels < len(classes)
            for value in ignored:
                allowed |= labels == value
            if not allowed.all():
                zero = bool(sample.get("reduce_zero_label"))
                values = labels[~allowed].unique().tolist()
                label_maps.check_values(
                    values, classes, ignored, zero, sample.get("seg_map_path", "a map")
                )

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        """Says, next to the score, which classes it leaves out."""
        loader = getattr(runner, f"{mode}_dataloader")
        if mode == "train" or batch_idx + 1 < len(loader):
            return
        for metric in getattr(runner, f"{mode}_evaluator").metrics:
            names = (metric.dataset_meta or {}).get("classes")
            if type(metric).__name__ == "IoUMetric" and names and metric.results:
                # Of an image: intersection, union, prediction, label of each class.
                labels = torch.stack([result[3] for result in metric.results]).sum(0)
                all_reduce(labels)
                unlabelled = zip(names, labels, strict=True)
                if absent := [name for name, pixels in unlabelled if not pixels]:
                    runner.logger.warning(
                        f"of {len(names)} classes, no label of this data is "
                        f"{some(absent)}: the mean over classes (mIoU) leaves them "
                        "out, or counts them as 0 where they are predicted"
                    )
