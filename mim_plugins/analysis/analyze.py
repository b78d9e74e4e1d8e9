"""All quantities of one or several encoders: what ``tools/analyze.py`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import MMLogger
from rich.progress import track
from torch import Tensor

from ..engine.hooks.data_health import check_image
from ..evaluation.encoder import Encoder, load_encoder, plain_features
from ..evaluation.images import ImageFiles, ImageList, image_loader, list_images
from .cka import MIN_BATCH, MinibatchCKA, linear_cka
from .encoder_pass import BlockStatistics, EncoderPass
from .feature_store import FeatureStore
from .probes import knn_accuracy, linear_accuracy


class Model(NamedTuple):
    """A model to look into.

    Args:
        name: What to call it in tables and plots.
        encoder: The encoder, with its weights.
    """

    name: str
    encoder: Encoder


class ModelAnalysis(NamedTuple):
    """What was found of a model.

    Args:
        name: Of the model.
        blocks: Statistics of its blocks, shallow to deep.
        knn: k-NN accuracy of each block in percent, or None without labels.
        linear: Accuracy of a linear probe of each block in percent, likewise.
    """

    name: str
    blocks: list[BlockStatistics]
    knn: list[float] | None = None
    linear: list[float] | None = None


class Analysis(NamedTuple):
    """What was found of one or several models.

    Args:
        models: Of each model.
        cka: For each pair of models, also of one with itself: the CKA of all pairs of
            their layers, (layers, layers).
        images: How many images it was computed of.
        paper_figures: Whether the official code was followed, see :class:`EncoderPass`.
    """

    models: list[ModelAnalysis]
    cka: dict[tuple[str, str], Tensor]
    images: int
    paper_figures: bool


def load_models(given: Sequence[str]) -> list[Model]:
    """Loads the models of a command line.

    Args:
        given: Config files and names of the model index, each followed by any number of
            checkpoints; without one, it has the weights of its entry.

    Raises:
        ValueError: If the first is neither a config nor a name, or a model is there
            twice.
    """
    pairs: list[tuple[str, str | None]] = []
    config = None
    for position, item in enumerate(given):
        if Path(item).suffix == ".py" or not _is_file(item):
            config = item
            following = given[position + 1 : position + 2]
            if not following or Path(following[0]).suffix == ".py":
                pairs.append((item, None))
        elif config is None:
            raise ValueError(
                f"{item} comes first, but is no config: give CONFIG CHECKPOINT …, or a "
                "name of mmpretrain.list_models()"
            )
        else:
            pairs.append((config, item))
    names = _names(pairs)
    return [
        Model(name, load_encoder(config, checkpoint))
        for name, (config, checkpoint) in zip(names, pairs, strict=True)
    ]


def _is_file(item: str) -> bool:
    return "://" in item or Path(item).suffix != ""


def _names(pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """Short names that tell the models apart.

    Raises:
        ValueError: If a model is there twice.
    """
    for names in (
        [Path(checkpoint or config).stem for config, checkpoint in pairs],
        [Path(config).stem for config, _ in pairs],
        ["/".join(Path(ckpt or config).parts[-2:]) for config, ckpt in pairs],
        [f"{config} {checkpoint}" for config, checkpoint in pairs],
    ):
        if len(set(names)) == len(names):
            return names
    raise ValueError("a model is given twice")


def analyze(
    models: Sequence[Model],
    data: str,
    *,
    train_data: str | None = None,
    num_images: int = 2000,
    batch_size: int = 64,
    workers: int = 2,
    exact_cka: bool = False,
    paper_figures: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Analysis:
    """Looks into encoders in one pass over images.

    Images are loaded by the pipeline of the first model, and normalised by each model
    for itself.

    Args:
        models: One or several models for images of the same size.
        data: A folder of images.
        train_data: Labelled images, in a folder per class as those of ``data``: each
            block is probed by k-NN and a linear classifier of these.
        num_images: How many images of each folder are used, chosen by ``seed``.
        batch_size: Images at a time.
        workers: Data loading workers.
        exact_cka: Compute CKA over all images together, rather than the mean of
            unbiased estimates of batches.
        paper_figures: Follow the official code where it differs, see
            :class:`EncoderPass`.
        seed: Of the choice of images.
        device: Where to compute.

    Raises:
        FileNotFoundError: If a folder does not exist or has no images.
        ValueError: If the models take images of other sizes, or there are too few.
    """
    if paper_figures and exact_cka:
        raise ValueError("the paper's figures have the CKA of batches, not the exact")
    if batch_size < MIN_BATCH:
        raise ValueError(f"batch_size is at least {MIN_BATCH}, got {batch_size}")
    for model in models:
        model.encoder.to(device).eval()
    pipeline = models[0].encoder.pipeline
    images = _sample(list_images(data, pipeline=pipeline), num_images, seed)
    if len(images.files) < MIN_BATCH:
        raise ValueError(
            f"{data} has {len(images.files)} images, at least 4 are needed"
        )
    _check_fit(models, images)
    passes = [_pass(model, paper_figures) for model in models]
    cka = {
        (i, j): MinibatchCKA(passes[i].layers, passes[j].layers)
        for i in range(len(models))
        for j in range(i, len(models))
    }
    rows = _run(models, passes, images, batch_size, workers, {} if exact_cka else cka)
    found = [
        ModelAnalysis(model.name, each.compute())
        for model, each in zip(models, passes, strict=True)
    ]
    if train_data is not None:
        known = _sample(list_images(train_data, pipeline=pipeline), num_images, seed)
        _check_labels(known, images)
        known_passes = [_pass(model) for model in models]
        known_rows = _run(models, known_passes, known, batch_size, workers, {})
        labels = _labels(known, known_rows), _labels(images, rows)
        found = [
            _probe(each, known_passes[index].store, passes[index].store, *labels)
            for index, each in enumerate(found)
        ]
    matrices = {
        (models[i].name, models[j].name): linear_cka(passes[i].store, passes[j].store)
        if exact_cka
        else one.compute()
        for (i, j), one in cka.items()
    }
    return Analysis(
        models=found,
        cka=matrices,
        images=passes[0].images,
        paper_figures=paper_figures,
    )


def _pass(model: Model, paper_figures: bool = False) -> EncoderPass:
    """A pass without a mask, to the normed tokens of the last block."""
    backbone = model.encoder.backbone
    return EncoderPass(
        backbone, lambda x: plain_features(backbone, x).patch, paper_figures
    )


def _sample(images: ImageList, count: int, seed: int) -> ImageList:
    """Some images of a list, in its order."""
    total = len(images.files)
    chosen = np.random.default_rng(seed).permutation(total)[:count]
    # Shuffled: batches of one class alone would bias the CKA of batches.
    labels = None if images.labels is None else images.labels[chosen]
    files = [images.files[index] for index in chosen]
    return images._replace(files=files, labels=labels)


def _check_fit(models: Sequence[Model], images: ImageList) -> None:
    """Checks the first image against every model.

    Raises:
        ValueError: If it cannot be read or does not fit.
    """
    files = ImageFiles(images, models[0].encoder.pipeline)
    _, image, reason = files[0]
    if image is None:
        raise ValueError(f"{images.path(0)} cannot be read: {reason}")
    for model in models:
        check_image(image, model.encoder, images.path(0))


def _check_labels(known: ImageList, images: ImageList) -> None:
    """Checks that both have labels of the same classes.

    Raises:
        ValueError: If not.
    """
    for part in (known, images):
        if part.labels is None:
            raise ValueError(
                f"a probe needs labels: {part.root} has images outside of class folders"
            )
    if known.classes != images.classes:
        ours, theirs = set(known.classes or ()), set(images.classes or ())
        raise ValueError(
            f"{known.root} and {images.root} have other class folders: "
            f"{', '.join(sorted(ours ^ theirs))} in one of them only"
        )


def _run(
    models: Sequence[Model],
    passes: Sequence[EncoderPass],
    images: ImageList,
    batch_size: int,
    workers: int,
    cka: dict[tuple[int, int], MinibatchCKA],
) -> list[int]:
    """Passes all images through all models.

    Returns:
        The indices of those that could be read.
    """
    files = ImageFiles(images, models[0].encoder.pipeline)
    loader = image_loader(files, batch_size, workers)
    rows: list[int] = []
    logger = MMLogger.get_current_instance()
    for batch in track(loader, description=images.root):
        for index, reason in batch.unreadable:
            logger.warning(f"left out: {images.path(index)} ({reason})")
        if len(batch.rows) < MIN_BATCH:
            continue  # the last one
        layers = []
        for model, each in zip(models, passes, strict=True):
            data: Any = {"inputs": batch.inputs, "data_samples": None}
            inputs = model.encoder.data_preprocessor(data, False)["inputs"]
            layers.append(each.update(inputs))
        for (first, second), one in cka.items():
            one.update(layers[first], layers[second])
        rows += batch.rows
    return rows


def _labels(images: ImageList, rows: Sequence[int]) -> Tensor:
    assert images.labels is not None
    return torch.from_numpy(images.labels[list(rows)]).long()


def _probe(
    found: ModelAnalysis,
    known: FeatureStore,
    store: FeatureStore,
    known_labels: Tensor,
    labels: Tensor,
) -> ModelAnalysis:
    """Probes every block."""
    knn, linear = [], []
    for index in track(range(len(store)), description=f"probes of {found.name}"):
        pair = known.layer(index), known_labels, store.layer(index), labels
        knn.append(knn_accuracy(*pair))
        linear.append(linear_accuracy(*pair))
    return found._replace(knn=knn, linear=linear)
