"""A k-NN accuracy while pre-training is under way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..datasets.image_files import printable
from ..datasets.seeding import preserve_rng_state
from ..engine.checks.classes import check_same_classes
from ..engine.checks.data import inner_datasets
from ..engine.hooks.data_health import check_image
from ..engine.hooks.figures import report
from ..engine.hooks.input_values import check_scale, sample_images
from ..engine.hooks.periodic import PeriodicHook, evaluation_mode, unwrapped
from .knn import extract_features, knn_predict

if TYPE_CHECKING:
    from ..models.selfsup.base import MaskedImageModel


@HOOKS.register_module()
class KNNHook(PeriodicHook):
    """Measures how well the encoder's features separate the classes of labelled images.

    Every ``interval`` epochs and at the end, each validation image is classified by
    its nearest training images (see :func:`mim_plugins.evaluation.knn_predict`); the
    feature is the mean of the patch tokens without masking. The result ``knn_top1``, in
    percent, goes to the log, to the visualizer backends and to the message hub, and is
    a name for ``save_best`` of the checkpoint hook.

    Args:
        train_dataloader: Config of a loader of labelled reference images; the hook
            sets its sampler, so that every image is used once.
        val_dataloader: Config of a loader of the images to classify.
        interval: Epochs between two evaluations.
        k: Number of neighbours that vote.
        temperature: Temperature of the vote.
        by_epoch: Whether ``interval`` counts epochs or iterations.
        at_start: Whether to evaluate before the first epoch, too.

    Raises:
        ValueError: If ``interval`` or ``k`` is not positive.
    """

    def __init__(
        self,
        train_dataloader: dict,
        val_dataloader: dict,
        interval: int = 10,
        k: int = 20,
        temperature: float = 0.07,
        by_epoch: bool = True,
        at_start: bool = False,
    ) -> None:
        super().__init__(interval, by_epoch)
        if k < 1:
            raise ValueError(f"KNNHook: k must be at least 1, but got {k}.")
        self.k = k
        self.temperature = temperature
        self.at_start = at_start
        self._configs = dict(train=train_dataloader, val=val_dataloader)
        self._loaders: dict[str, DataLoader] = {}

    def before_train(self, runner: Runner) -> None:
        """Build the loaders and check them, before training starts.

        Args:
            runner: The runner of the training process.

        Raises:
            TypeError: If the model has no ``patch_mean``.
            ValueError: If the loaders number their classes differently, or their
                images do not fit the model.
        """
        model = unwrapped(runner.model)
        if not hasattr(model, "patch_mean"):
            raise TypeError(
                f"KNNHook needs a masked image model with patch_mean(), but "
                f"{type(model).__name__} has none; remove the hook from custom_hooks."
            )
        for name, config in self._configs.items():
            self._loaders[name] = runner.build_dataloader(
                every_image_once(config), seed=runner.seed
            )
        check_loaders(runner, model, self._loaders, "KNNHook")
        if self.at_start and runner.iter == 0:
            with evaluation_mode(model), preserve_rng_state():
                self.evaluate(runner, model, 0)

    def evaluate(self, runner: Runner, model: MaskedImageModel, step: int) -> None:
        """Compute the accuracy and log it.

        Args:
            runner: The runner of the training process.
            model: The model without its distributed wrapper.
            step: The number of epochs (or iterations) that are finished.
        """
        # In the precision of training.
        with runner.optim_wrapper.optim_context(model):
            bank, bank_labels = extract_features(model, self._loaders["train"])
            features, labels = extract_features(model, self._loaders["val"])
        predictions = knn_predict(features, bank, bank_labels, self.k, self.temperature)
        accuracy = 100 * (predictions == labels).double().mean().item()
        unit = "epoch" if self.by_epoch else "iter"
        sizes: list[int] = [
            len(loader.dataset)  # type: ignore[arg-type]  # torch leaves len open
            for loader in self._loaders.values()
        ]
        unread = sum(sizes) - len(bank) - len(labels)
        left_out = f", {unread} unreadable ones left out" if unread else ""
        runner.logger.info(
            f"k-NN after {unit} {step}: knn_top1: {accuracy:.2f} % of {len(labels)} "
            f"images (k={self.k}, {len(bank)} images to compare with{left_out})"
        )
        report(runner, {"knn_top1": accuracy}, step, self.by_epoch)


def check_loaders(
    runner: Runner,
    model: MaskedImageModel,
    loaders: Mapping[str, DataLoader],
    hook: str,
) -> None:
    """Compares the classes of a hook's loaders, and a few of their images.

    Args:
        runner: The runner of the training process.
        model: The model without its distributed wrapper.
        loaders: The loaders, by the part of their option's name before ``_dataloader``.
        hook: Name of the hook, for messages.

    Raises:
        ValueError: If the loaders number their classes differently, or their images do
            not fit the model.
    """
    check_same_classes(
        {f"{name}_dataloader of {hook}": x.dataset for name, x in loaders.items()}
    )
    trained = _loading(runner.train_dataloader.dataset)
    for name, loader in loaders.items():
        with preserve_rng_state():
            images = sample_images(loader.dataset, 4)
        for image, path in images[:1]:
            check_image(image, model, printable(path), f"{name}_dataloader of {hook}")
        check_scale(images, model.data_preprocessor)
        own = _loading(loader.dataset)
        if own and trained and own != trained:
            runner.logger.warning(
                f"{name}_dataloader of {hook} loads images with {own}, training "
                f"with {trained}: set LoadImageFromFile of its pipeline (such as "
                "test_pipeline.0) likewise, unless that is meant"
            )


def _loading(dataset: Any) -> dict[str, Any]:
    """How a data set decodes its files; empty where it does not say."""
    names = ("color_type", "imdecode_backend", "to_float32")
    for part in inner_datasets(dataset, having="pipeline"):
        for step in getattr(part.pipeline, "transforms", ()):
            if hasattr(step, "color_type"):
                return {name: getattr(step, name, None) for name in names}
    return {}


def every_image_once(config: dict) -> dict[str, Any]:
    """Complete the config of a loader: every image once, in order.

    Unreadable images are replaced by others, marked as such and left out.

    Args:
        config: Config of a loader.
    """
    config = copy.deepcopy(dict(config))
    kind = config["dataset"].get("type")
    with DATASETS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(found) and issubclass(found, BaseDataset):
        config["dataset"] = dict(type="SeededDataset", dataset=config["dataset"])
    for name in ("batch_sampler", "shuffle"):  # not allowed with a sampler
        config.pop(name, None)
    config["drop_last"] = False
    config["sampler"] = dict(type="DefaultSampler", shuffle=False, round_up=True)
    config.setdefault("collate_fn", dict(type="default_collate"))
    config.setdefault("batch_size", 64)
    config.setdefault("num_workers", 0)
    return config
