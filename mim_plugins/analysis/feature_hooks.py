"""How good the features are while pre-training is under way, with and without labels.

Both hooks measure as :class:`~mim_plugins.evaluation.KNNHook` does: every few epochs,
features of complete images, in evaluation mode and without autograd. Nothing of the
model, of its optimiser or of the random state is changed, and they keep no state, so
that a resumed run measures the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from ..datasets.seeding import preserve_rng_state
from ..engine.hooks.figures import report
from ..engine.hooks.periodic import PeriodicHook, evaluation_mode, unwrapped
from ..evaluation.knn import in_order, labels_of
from ..evaluation.knn_hook import check_loaders, every_image_once
from .blocks import BlockReader
from .probes import linear_accuracy
from .rank import alpha_req, feature_std, lidar, rankme

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel

# Of the images that are trained between two measurements, the share that is encoded at
# most, unless num_images is given; and the least that a figure needs.
MAX_SHARE = 0.01
MIN_IMAGES = 64


class FeatureHook(PeriodicHook):
    """Base class of hooks that measure features of complete images.

    Args:
        loaders: Configs of data loaders, by the part of the option's name before
            ``_dataloader``.
        interval: Epochs (or iterations) between two measurements.
        num_images: How many images of each loader are used, evenly spread; None for
            ``most``, or fewer where that is over 1 % of the images that are trained
            meanwhile.
        blocks: Zero-based blocks whose features are measured as well: the mean of the
            patch tokens that leave each.
        by_epoch: Whether ``interval`` counts epochs.
        at_start: Whether to measure before the first epoch, too.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive.
    """

    most = 2000
    encodings = 1  # of each image

    def __init__(
        self,
        loaders: Mapping[str, dict],
        interval: int,
        num_images: int | None,
        blocks: Sequence[int],
        by_epoch: bool,
        at_start: bool,
    ) -> None:
        super().__init__(interval, by_epoch)
        if num_images is not None and num_images < 2:
            raise ValueError(
                f"{type(self).__name__}: num_images must be at least 2, but got "
                f"{num_images}."
            )
        self.num_images = num_images
        self.blocks = tuple(blocks)
        self.at_start = at_start
        self._configs = dict(loaders)
        self._loaders: dict[str, DataLoader] = {}
        self._since = 0.0

    def before_train(self, runner: Runner) -> None:
        """Build the loaders and check them, before training starts.

        Args:
            runner: The runner of the training process.

        Raises:
            TypeError: If the model has no ``patch_mean``.
            ValueError: If it has no such block, or images do not fit it.
        """
        name = type(self).__name__
        model = unwrapped(runner.model)
        if not hasattr(model, "patch_mean"):
            raise TypeError(
                f"{name} needs a masked image model with patch_mean(), but "
                f"{type(model).__name__} has none; remove the hook from custom_hooks."
            )
        if self.blocks:
            count = len(BlockReader(model.backbone))
            wrong = [block for block in self.blocks if not 0 <= block < count]
            if wrong:
                raise ValueError(
                    f"{name}: blocks are numbered from 0 to {count - 1}, got {wrong}"
                )
        for part, config in self._configs.items():
            self._loaders[part] = self._loader(runner, config)
        check_loaders(runner, model, self._loaders, name)
        if self.at_start and runner.iter == 0:
            with evaluation_mode(model), preserve_rng_state():
                self.evaluate(runner, model, 0)
        self._since = time.perf_counter()

    def _loader(self, runner: Runner, config: dict) -> DataLoader:
        """A loader of some images of a data set, evenly spread."""
        config = every_image_once(config)
        dataset = config["dataset"]
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        if hasattr(dataset, "full_init"):
            dataset.full_init()
        total = len(dataset)
        count = min(total, self.num_images or self._affordable(runner))
        if count < total:
            chosen = [index * total // count for index in range(count)]
            dataset = Subset(dataset, chosen)
        return runner.build_dataloader({**config, "dataset": dataset}, runner.seed)

    def _affordable(self, runner: Runner) -> int:
        """Images whose encoding is a small part of the training meanwhile."""
        loader = runner.train_dataloader
        trained = self.interval * (loader.batch_size or 1) * runner.world_size
        if self.by_epoch:
            trained *= len(loader)
        encoded = len(self._configs) * self.encodings
        return min(self.most, max(MIN_IMAGES, int(MAX_SHARE * trained / encoded)))

    def evaluate(self, runner: Runner, model: MaskedImageModel, step: int) -> None:
        """Measure the features and log what was found.

        Args:
            runner: The runner of the training process.
            model: The model without its distributed wrapper.
            step: The number of epochs (or iterations) that are finished.
        """
        start = time.perf_counter()
        figures, images = self.measure(runner, model)
        end = time.perf_counter()
        share = ""
        if self._since:
            share = f", {100 * (end - start) / (end - self._since):.1f} % of the time"
        self._since = end
        values = ", ".join(f"{name}: {value:.4g}" for name, value in figures.items())
        unit = "epoch" if self.by_epoch else "iter"
        runner.logger.info(
            f"{type(self).__name__} after {unit} {step}: {values} ({images} images, "
            f"{end - start:.1f} s{share})"
        )
        report(runner, figures, step, self.by_epoch)

    def measure(
        self, runner: Runner, model: MaskedImageModel
    ) -> tuple[dict[str, float], int]:
        """Measure the features.

        Args:
            runner: The runner of the training process.
            model: The model, in evaluation mode and without autograd.

        Returns:
            Figures by name, and the number of images they were computed of.
        """
        raise NotImplementedError

    def features(self, model: MaskedImageModel, inputs: Tensor) -> dict[str, Tensor]:
        """Features of normalised images: of the last latent, and of each block.

        Args:
            model: The model.
            inputs: Normalised images, (N, C, H, W).

        Returns:
            (N, C) by what is appended to the names of figures.
        """
        if not self.blocks:
            return {"": model.patch_mean(inputs).float()}
        with BlockReader(model.backbone).means(self.blocks) as means:
            last = model.patch_mean(inputs)
        found = {f"_block_{block}": means[block].float() for block in self.blocks}
        return {"": last.float(), **found}


@HOOKS.register_module()
class LinearProbeHook(FeatureHook):
    """Fits a linear classifier on the features of labelled images.

    The result ``probe_top1``, in percent, and ``probe_top1_block_3`` of a block, is
    that of a classifier which is fitted anew each time, by an optimiser of its own, to
    features that are detached, see
    :func:`~mim_plugins.analysis.probes.linear_accuracy`: there is no state to be saved
    or resumed.

    Args:
        train_dataloader: Config of a loader of labelled images; the hook sets its
            sampler.
        val_dataloader: Config of a loader of the images to classify.
        interval: Epochs between two measurements.
        num_images: How many images of each loader are used, evenly spread; None for
            5,000, or fewer where that costs over 1 % of the images trained meanwhile.
        blocks: Zero-based blocks that are probed as well.
        by_epoch: Whether ``interval`` counts epochs or iterations.
        at_start: Whether to measure before the first epoch, too.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive.
    """

    most = 5000

    def __init__(
        self,
        train_dataloader: dict,
        val_dataloader: dict,
        interval: int = 10,
        num_images: int | None = None,
        blocks: Sequence[int] = (),
        by_epoch: bool = True,
        at_start: bool = False,
    ) -> None:
        loaders = dict(train=train_dataloader, val=val_dataloader)
        super().__init__(loaders, interval, num_images, blocks, by_epoch, at_start)

    def measure(
        self, runner: Runner, model: MaskedImageModel
    ) -> tuple[dict[str, float], int]:
        """Fit the classifiers; arguments as of the base class."""
        with runner.optim_wrapper.optim_context(model):
            known, known_labels = self._labelled(model, "train")
            features, labels = self._labelled(model, "val")
        figures = {
            f"probe_top1{name}": linear_accuracy(
                known[name], known_labels, features[name], labels
            )
            for name in features
        }
        return figures, len(known_labels) + len(labels)

    def _labelled(
        self, model: MaskedImageModel, part: str
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Features and labels of one loader, without unreadable images."""
        loader = self._loaders[part]
        batches, labels = [], []
        for batch in loader:
            labels.append(labels_of(batch["data_samples"], type(self).__name__))
            inputs = model.data_preprocessor(batch, False)["inputs"]
            batches.append(self.features(model, inputs))
        total = len(loader.dataset)  # type: ignore[arg-type]  # torch leaves len open
        device = batches[0][""].device
        classes = in_order(torch.cat(labels).to(device), total)
        features = {
            name: in_order(torch.cat([x[name] for x in batches]), total)[classes >= 0]
            for name in batches[0]
        }
        return features, classes[classes >= 0]


@HOOKS.register_module()
class FeatureRankHook(FeatureHook):
    """Measures without labels how many directions the features use.

    Results are ``rankme``, ``alpha_req`` and ``feature_std`` of the last latent and of
    ``blocks`` (``rankme_block_3``), and ``lidar`` of the last latent; see
    :mod:`mim_plugins.analysis.rank`. The views LiDAR compares are random crops (20 to
    100 % of the area) and flips of each image, the same each time.

    Args:
        dataloader: Config of a loader of images that are not trained on, with or
            without labels; the hook sets its sampler.
        interval: Epochs between two measurements.
        num_images: How many images are used, evenly spread; None for 2,000, or fewer
            where they, and their views, are over 1 % of the images trained meanwhile.
            The rank cannot exceed it.
        blocks: Zero-based blocks that are measured as well.
        lidar_views: Views of each image; 0 leaves LiDAR out.
        by_epoch: Whether ``interval`` counts epochs or iterations.
        at_start: Whether to measure before the first epoch, too.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive, or there is a
            single view.
    """

    def __init__(
        self,
        dataloader: dict,
        interval: int = 10,
        num_images: int | None = None,
        blocks: Sequence[int] = (),
        lidar_views: int = 4,
        by_epoch: bool = True,
        at_start: bool = False,
    ) -> None:
        loaders = {"images": dataloader}
        super().__init__(loaders, interval, num_images, blocks, by_epoch, at_start)
        if lidar_views < 0 or lidar_views == 1:
            raise ValueError(
                "FeatureRankHook: lidar_views is 0 or at least 2, but got "
                f"{lidar_views}."
            )
        self.lidar_views = lidar_views
        self.encodings = 1 + lidar_views

    def measure(
        self, runner: Runner, model: MaskedImageModel
    ) -> tuple[dict[str, float], int]:
        """Compute the ranks; arguments as of the base class."""
        loader = self._loaders["images"]
        generator = torch.Generator().manual_seed(runner.rank)
        batches, views, read = [], [], []
        with runner.optim_wrapper.optim_context(model):
            for batch in loader:
                inputs = model.data_preprocessor(batch, False)["inputs"]
                batches.append(self.features(model, inputs))
                read.append(_read(batch.get("data_samples"), len(inputs)))
                of_views = [
                    model.patch_mean(random_view(inputs, generator)).float()
                    for _ in range(self.lidar_views)
                ]
                views += [torch.stack(of_views, dim=1)] if of_views else []
        total = len(loader.dataset)  # type: ignore[arg-type]  # torch leaves len open
        kept = in_order(torch.cat(read).to(batches[0][""].device), total)
        figures: dict[str, float] = {}
        for name in batches[0]:
            features = in_order(torch.cat([x[name] for x in batches]), total)[kept]
            figures[f"rankme{name}"] = rankme(features)
            figures[f"alpha_req{name}"] = alpha_req(features)
            figures[f"feature_std{name}"] = feature_std(features)
        if views:
            figures["lidar"] = lidar(in_order(torch.cat(views), total)[kept])
        return figures, int(kept.sum())


def random_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of each image, of 20 to 100 % of its area, half of them flipped.

    Args:
        images: (N, C, H, W).
        generator: Of the draws, on the CPU.

    Returns:
        Crops of the size of the images.
    """
    draws = torch.rand(4, len(images), generator=generator)
    side = (0.2 + 0.8 * draws[0]).sqrt()
    flip = torch.where(draws[1] < 0.5, -1.0, 1.0)
    shift = (1 - side) * (2 * draws[2:] - 1)
    zero = torch.zeros_like(side)
    theta = torch.stack([side * flip, zero, shift[0], zero, side, shift[1]], dim=1)
    theta = theta.view(-1, 2, 3).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _read(data_samples: Any, count: int) -> Tensor:
    """Which images of a batch do not replace unreadable ones, (N,), bool."""
    if isinstance(data_samples, Mapping):
        replaced = torch.as_tensor(data_samples.get("replaced", [0] * count))
    elif isinstance(data_samples, Sequence):
        replaced = torch.tensor([bool(x.get("replaced", 0)) for x in data_samples])
    else:
        replaced = torch.zeros(count)
    return ~replaced.bool().cpu()
