"""What a folder of images holds: how many, of which size, channels and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..datasets.image_files import check_image_file, printable
from ..datasets.transforms.many_channels import read_channels

# Images that are looked at, evenly spaced; of each, at most so many pixels.
SAMPLE = 200
_PIXELS = 10_000


class Survey(NamedTuple):
    """What a sample of the images of a folder has in common.

    Args:
        total: Number of images in the folder.
        sampled: Number of those that were looked at.
        channels: Channels as they are to be loaded.
        deep: Whether values need more than 8 bits.
        many: Whether ``LoadManyChannels`` is needed.
        size: Median height and width in pixels.
        one_size: Whether all have that size.
        mean: Mean of each channel, colour as RGB.
        std: Standard deviation of each channel, likewise.
    """

    total: int
    sampled: int
    channels: int
    deep: bool
    many: bool
    size: tuple[int, int]
    one_size: bool
    mean: list[float]
    std: list[float]

    @property
    def kind(self) -> str:
        """Channels and depth in words."""
        names = {1: "grey", 3: "colour"}
        channels = names.get(self.channels, f"{self.channels} channels")
        return f"{channels}, {'more than 8' if self.deep else '8'} bits"

    @property
    def loading(self) -> dict:
        """The step of a pipeline that loads these images."""
        if self.many:
            return dict(type="LoadManyChannels", to_float32=self.deep)
        kind = "grayscale" if self.channels == 1 else "color_ignore_orientation"
        return dict(type="LoadImageFromFile", color_type=kind)

    @property
    def bgr(self) -> bool:
        """Whether they are loaded as BGR."""
        return self.channels == 3 and not self.many


def survey(paths: Sequence[str], channels: int | None = None) -> Survey:
    """Looks at a sample of image files.

    Args:
        paths: All files.
        channels: 1 or 3, to load all as grey or colour, whatever they have; None if
            all are to have the same.

    Raises:
        ValueError: If none can be read, or they differ in their channels.
    """
    if channels not in (None, 1, 3):
        raise ValueError(
            f"channels={channels}: 1 loads all images as grey and 3 as colour; other "
            "numbers are those of the files"
        )
    chosen = np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round()
    images, unreadable = {}, []
    for path in (paths[index] for index in sorted(set(chosen.astype(int)))):
        try:
            check_image_file(path)
            image = read_channels(path)
        except Exception as error:  # whatever a damaged file leads to
            unreadable.append(f"{printable(path)}: {error}")
            continue
        shape = image.shape
        step = max(1, int((shape[0] * shape[1] / _PIXELS) ** 0.5))
        images[path] = shape, image.dtype, image[::step, ::step].astype(np.float64)
    if not images:
        raise ValueError(
            f"none of {len(unreadable)} images can be read; the first is "
            f"{unreadable[0]}"
        )
    found = Counter(shape[2] for shape, _, _ in images.values())
    if len(found) > 1 and channels is None:
        raise ValueError(_mixed(images, found))
    number = channels or next(iter(found))
    deep = any(dtype != np.uint8 for _, dtype, _ in images.values())
    sizes = np.array([shape[:2] for shape, _, _ in images.values()])
    pixels = np.concatenate([_as(x, number) for _, _, x in images.values()])
    median = np.median(sizes, axis=0).astype(int)
    return Survey(
        total=len(paths),
        sampled=len(images),
        channels=number,
        deep=deep,
        many=_has_arrays(images)
        or (channels is None and (deep or number not in (1, 3))),
        size=(int(median[0]), int(median[1])),
        one_size=bool((sizes == sizes[0]).all()),
        mean=[float(f"{x:.5g}") for x in pixels.mean(axis=0)],
        # A channel of one value is left as it is.
        std=[float(f"{x:.5g}") or 1.0 for x in pixels.std(axis=0)],
    )


def _has_arrays(images: dict) -> bool:
    return any(path.lower().endswith(".npy") for path in images)


def _as(pixels: np.ndarray, channels: int) -> np.ndarray:
    """The pixels, (M, C), of as many channels; conversions are approximate."""
    pixels = pixels.reshape(-1, pixels.shape[2])
    if pixels.shape[1] == channels:
        return pixels
    if channels == 1:
        return pixels[:, :3].mean(axis=1, keepdims=True)
    return pixels[:, :3] if pixels.shape[1] > 3 else pixels[:, :1].repeat(3, axis=1)


def _mixed(images: dict, found: Counter) -> str:
    """The sentence about images of different channels."""
    examples = {shape[2]: path for path, (shape, _, _) in images.items()}
    listed = ", ".join(
        f"{count} with {channels} (such as {printable(examples[channels])})"
        for channels, count in found.most_common()
    )
    return (
        f"the images differ in their channels: of {len(images)} looked at, {listed}. "
        "Load all as colour with channels=3 or as grey with channels=1 (--channels), "
        "or sort them into folders of one kind"
    )
