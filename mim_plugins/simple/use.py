"""What a trained encoder is used for: features, their quality, reconstructions."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..analysis.probes import knn_accuracy, linear_accuracy
from ..analysis.reconstruction import reconstruct as reconstruct_images
from ..engine.errors import explained
from ..evaluation.embed import embed as write_features
from .class_data import LabelledFiles, find_classes
from .encoders import find_encoder, survey_for
from .pretraining import find_images


class Accuracies(NamedTuple):
    """How well features separate classes.

    Args:
        knn: Top-1 of the vote of the 20 nearest neighbours, in percent.
        linear: Top-1 of a linear classifier, in percent.
    """

    knn: float
    linear: float


def probe(
    data: str | os.PathLike,
    encoder: str | os.PathLike,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Accuracies:
    """Judges the features of an encoder by one's own classes, without training it.

    Args:
        data: A folder of images per class, ``train/CLASS`` and ``val/CLASS``, or
            ``CLASS`` alone, of which a fifth is held out to judge by.
        encoder: The folder that :func:`pretrain` has written to, or a checkpoint.
        batch_size: Images at a time.
        workers: Loading processes; by default the cores, four at most.
        seed: Of what is held out.
        device: Such as ``cuda:1``; by default a GPU, if there is one.

    Returns:
        Accuracies on the images that were held out: k-NN, and a linear classifier on
        the standardised mean of the patch tokens.

    Raises:
        InputError: If something that was given cannot be used.
    """
    with explained():
        found = find_encoder(encoder)
        classes = find_classes(data, seed)
        print(f"data: {classes}", flush=True)
        paths = [os.path.join(classes.train.root, x) for x in classes.train.files]
        survey_for(found, paths)
        how: dict[str, Any] = dict(
            batch_size=batch_size, workers=workers, device=device
        )
        checkpoint = str(found.checkpoint)
        train, train_labels = _features(classes.train, checkpoint, **how)
        val, val_labels = _features(classes.val, checkpoint, **how)
    parts = train, train_labels, val, val_labels
    result = Accuracies(knn_accuracy(*parts), linear_accuracy(*parts))
    print(
        f"accuracy on {len(val)} images: k-NN {result.knn:.1f} %, linear "
        f"{result.linear:.1f} %",
        flush=True,
    )
    return result


def _features(
    images: LabelledFiles, checkpoint: str, **how: Any
) -> tuple[Tensor, Tensor]:
    """Mean of the patch tokens of each image, (N, C), and its class, (N,)."""
    with tempfile.TemporaryDirectory() as folder:
        ann_file, out = Path(folder, "list.txt"), Path(folder, "features.npz")
        images.write(ann_file)
        write_features(
            images.root,
            out,
            checkpoint=checkpoint,
            features=["mean"],
            ann_file=str(ann_file),
            **how,
        )
        with np.load(out) as file:
            features = torch.from_numpy(file["mean"])
            labels = torch.from_numpy(file["labels"].astype(np.int64))
    return features, labels


def embed(
    data: str | os.PathLike,
    encoder: str | os.PathLike,
    *,
    features: Sequence[str] | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str | None = None,
    out: str | os.PathLike = "features.npz",
    force: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Writes the features of all images of a folder to an ``.npz`` file.

    Args:
        data: The folder.
        encoder: The folder that :func:`pretrain` has written to, or a checkpoint.
        features: Some of ``cls``, ``mean`` and ``patch``; by default ``mean``, and
            ``cls`` where the encoder has a class token.
        batch_size: Images at a time.
        workers: Loading processes; by default the cores, four at most.
        device: Such as ``cuda:1``; by default a GPU, if there is one.
        out: The file.
        force: Whether to replace it if it is there.

    Returns:
        The shape of each array of features.

    Raises:
        InputError: If something that was given cannot be used.
    """
    with explained():
        found = find_encoder(encoder)
        survey_for(found, find_images(os.fspath(data), everything=True))
        return write_features(
            os.fspath(data),
            Path(out),
            checkpoint=str(found.checkpoint),
            features=features,
            batch_size=batch_size,
            workers=workers,
            device=device,
            force=force,
        )


def reconstruct(
    data: str | os.PathLike,
    encoder: str | os.PathLike,
    *,
    mask_ratio: float | None = None,
    seed: int = 0,
    device: str | None = None,
    out: str | os.PathLike = "reconstructions",
) -> list[Path]:
    """Draws what a pre-trained model predicts of masked images.

    Args:
        data: An image, or a folder of images.
        encoder: The folder that :func:`pretrain` has written to, or a checkpoint of it.
        mask_ratio: Share of patches to remove; by default that of pre-training.
        seed: Of the mask, one for all images.
        device: Such as ``cuda:1``; by default a GPU, if there is one.
        out: The folder of the pictures.

    Returns:
        The paths of the pictures.

    Raises:
        InputError: If something that was given cannot be used.
    """
    written: list[Path] = []
    with explained():
        found = find_encoder(encoder)
        pictures = reconstruct_images(
            found.path,
            str(found.checkpoint),
            [os.fspath(data)],
            mask_ratio=mask_ratio,
            seed=seed,
            device=device,
        )
        for picture in pictures:
            written += picture.write(Path(out))
    return written
