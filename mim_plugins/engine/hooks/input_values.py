"""Checks of the values of images: channels, scale of the normalisation, bit depth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from ...datasets.epoch_sampler import find_seeded_dataset
from ...datasets.image_files import printable
from ...models.data_preprocessor import image_statistics, reverses_channels

# What normalised inputs of a data set may at most have as mean and deviation in a
# channel, and at least as deviation. ImageNet's have 0 and 1; values of the wrong scale
# are off by a factor of 255 or more. Between the first and the second there is a
# warning.
_LARGEST = 4.0, 10.0
_SMALLEST = 0.1, 0.01


class SampledImage(NamedTuple):
    """An image of a data set, as its pipeline gives it.

    Args:
        image: (C, H, W).
        path: Of its file; ``""`` where it is not known.
    """

    image: Tensor
    path: str


def sample_images(dataset: Any, count: int) -> list[SampledImage]:
    """Loads a few evenly spaced images of a data set.

    Args:
        dataset: A data set whose items are dicts; others yield nothing.
        count: How many at most.
    """
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round()
    found = []
    for index in places.astype(int).tolist():
        item = dataset[index]
        image = item.get("inputs") if isinstance(item, dict) else None
        if isinstance(image, Tensor) and image.ndim == 3:
            samples = item.get("data_samples")
            found.append(SampledImage(image, _path_of(dataset, samples, index)))
    return found


def _path_of(dataset: Any, samples: Any, index: int) -> str:
    """The file of a sample, which may replace the one at this index."""
    if hasattr(samples, "get"):
        if path := samples.get("img_path"):
            return str(path)
        index = int(samples.get("sample_idx", index))
    infos: Any = find_seeded_dataset(dataset) or dataset
    if not hasattr(infos, "get_data_info"):
        return ""
    return str(infos.get_data_info(index).get("img_path", ""))


def check_same_channels(images: Sequence[SampledImage]) -> None:
    """Checks that all images have as many channels.

    Raises:
        ValueError: Naming a file of each kind.
    """
    counts = Counter(image.shape[0] for image, _ in images)
    if len(counts) < 2:
        return
    example = {image.shape[0]: printable(path) for image, path in images}
    kinds = [
        f"{number} with {channels} (such as {example[channels]})"
        for channels, number in counts.most_common()
    ]
    raise ValueError(
        f"images have different numbers of channels; of {len(images)}, "
        f"{', '.join(kinds)}: load all alike, with color_type='color' or 'grayscale' "
        "of LoadImageFromFile, or convert or remove these files"
    )


def check_scale(images: Sequence[SampledImage], preprocessor: nn.Module) -> None:
    """Checks that mean and deviation of a data preprocessor are of the images' scale.

    Args:
        images: Images of one number of channels.
        preprocessor: The data preprocessor; one that does not normalise is warned about
            where the images need it.

    Raises:
        ValueError: If normalised images are far from mean 0 and deviation 1 in a
            channel; it names values that fit.
    """
    values = [image.flatten(1).double() for image, _ in images]
    if not values:
        return
    pixels = torch.cat(values, dim=1)  # (C, all pixels)
    pixels = pixels[:, pixels.isfinite().all(dim=0)]
    if not pixels.shape[1]:
        return
    if reverses_channels(preprocessor):
        pixels = pixels.flip(0)
    mean, std = image_statistics(preprocessor)
    normalises = mean is not None and std is not None
    own_mean, own_std = pixels.mean(dim=1), pixels.std(dim=1, correction=0)
    level, spread = own_mean, own_std
    if mean is not None and std is not None:
        level = (
            own_mean - mean.double().cpu().flatten()
        ) / std.double().cpu().flatten()
        spread = own_std / std.double().cpu().flatten()
    size = torch.maximum(level.abs(), spread)
    # Images of one colour have no deviation on any scale.
    small = spread.masked_fill(own_std == 0, 1.0)
    hint = "" if mean is None else _scale_hint(float(pixels.max()), float(mean.max()))
    if size.max() > _LARGEST[0]:
        worst = int(size.argmax())
    elif small.min() < _SMALLEST[0]:
        worst = int(small.argmin())
    elif hint and level.abs().max() > 1:
        # With the right deviation, the mean alone is about two deviations off.
        worst = int(level.abs().argmax())
    else:
        return
    low, high = pixels[worst].aminmax()
    message = (
        f"mean and std of data_preprocessor do not fit the images: in channel {worst} "
        f"of {len(images)} images, values from {_short(low)} to {_short(high)} have "
        f"the mean {_short(own_mean[worst])} and deviation {_short(own_std[worst])}, "
        f"which normalisation makes {_short(level[worst])} and "
        f"{_short(spread[worst])}, where about 0 and 1 are right."
    )
    message += hint
    message += (
        " Set them to those of your images, in this sample model.data_preprocessor."
        f"mean={_listed(own_mean)} and std={_listed(own_std)}"
    )
    if normalises and (size.max() > _LARGEST[1] or small.min() < _SMALLEST[1]):
        raise ValueError(message)
    MMLogger.get_current_instance().warning(message)


def _scale_hint(highest: float, mean: float) -> str:
    """Says what scale the mean is of, where that is plain."""
    if mean <= 1 and highest > 2:
        return " They are those of values from 0 to 1."
    if mean > 2 and highest <= 1:
        return " The images' values are from 0 to 1, mean and std those of 0 to 255."
    return ""


def warn_of_lost_depth(
    images: Sequence[SampledImage], preprocessor: nn.Module
) -> str | None:
    """Warns of files with more than 8 bits that are loaded with 8.

    Args:
        images: Images as the pipeline gives them.
        preprocessor: The data preprocessor, for the order of the channels.

    Returns:
        The warning, or None.
    """
    deep: list[tuple[str, np.ndarray]] = []
    loaded = 0
    for image, path in images:
        raw = _raw(path) if image.dtype == torch.uint8 else None
        if raw is not None and raw.dtype == np.uint16:
            loaded = image.shape[0]
            deep.append((path, np.atleast_3d(raw)))
    if not deep:
        return None
    path, highest = deep[0][0], max(int(raw.max()) for _, raw in deep)
    options = ""
    channels = {raw.shape[2] for _, raw in deep}
    if len(channels) == 1:
        pixels = np.concatenate([raw.reshape(-1, raw.shape[2]) for _, raw in deep])
        if reverses_channels(preprocessor) and pixels.shape[1] == 3:
            pixels = pixels[:, ::-1]
        options = (
            f", here model.data_preprocessor.mean={_listed(pixels.mean(axis=0))} and "
            f"std={_listed(pixels.std(axis=0))}"
        )
        if pixels.shape[1] != loaded:
            options += (
                f", and model.backbone.in_channels={pixels.shape[1]} (bgr_to_rgb=False)"
            )
    return (
        f"{len(deep)} of {len(images)} images are files of 16 bits, such as "
        f"{printable(path)}, but are loaded with 8: of their values up to {highest} "
        f"({highest.bit_length()} bits) {(highest >> 8) + 1} grey levels remain. To "
        "keep all, load them with LoadImageFromFile(color_type='unchanged', "
        "to_float32=True) in every pipeline, and set mean and std to those of your "
        f"images{options}"
    )


def _raw(path: str) -> np.ndarray | None:
    """The pixels of a local file as they are stored, if OpenCV can read it."""
    if not os.path.isfile(path):
        return None
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def _short(value: Any) -> str:
    return f"{float(value):.4g}"


def _listed(values: Any) -> str:
    """Values as an option of the command line."""
    return "[" + ",".join(map(_short, values)) + "]"
