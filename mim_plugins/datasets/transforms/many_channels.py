"""Images of any number of channels: arrays, and TIFF files of many bands."""

from __future__ import annotations

import os

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image

# An axis of at most so many entries may be that of the channels.
_MOST_CHANNELS = 64


@TRANSFORMS.register_module()
class LoadManyChannels(BaseTransform):
    """Loads images that OpenCV's ``imread`` does not: ``.npy``, TIFF of many bands.

    An ``.npy`` file holds (H, W), (H, W, C) or (C, H, W), without pickles; the axis of
    the channels is the shorter one. A TIFF file has its bands as pages of one size, or
    as samples of each pixel, for which ``tifffile`` is needed from five bands on.

    Args:
        to_float32: Whether to convert values to float32; needed for all but uint8.
    """

    def __init__(self, to_float32: bool = True) -> None:
        self.to_float32 = to_float32

    def transform(self, results: dict) -> dict:
        """Sets ``img``, (H, W, C), ``img_shape`` and ``ori_shape``.

        Args:
            results: Dict of a sample with ``img_path``.

        Raises:
            ValueError: If the file is no such image.
        """
        image = read_channels(results["img_path"])
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(to_float32={self.to_float32})"


def read_channels(path: str) -> np.ndarray:
    """Reads an image as it is stored.

    Args:
        path: An ``.npy`` file or an image file.

    Returns:
        The image, (H, W, C), in the type and order of the file: colour is RGB.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no image, or one that needs a package that is missing.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".npy":
        return _channels_last(np.load(path, allow_pickle=False), path)
    if ending in (".tif", ".tiff"):
        return _channels_last(_read_tiff(path), path)
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path} is no image that OpenCV can read")
    return _channels_last(_as_rgb(image), path)


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """OpenCV's BGR or BGRA in the order of files."""
    if image.ndim == 2 or image.shape[2] < 3:
        return image
    return image[:, :, [2, 1, 0, 3][: image.shape[2]]]


def _read_tiff(path: str) -> np.ndarray:
    """Reads a TIFF file, without tifffile one of up to four bands.

    Raises:
        ValueError: If that package is needed.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        pass
    else:
        with TiffFile(path) as file:
            if file.pages.first.samplesperpixel not in (1, 3, 4):
                return np.asarray(file.asarray())
    if cv2.imcount(path, cv2.IMREAD_UNCHANGED) > 1:
        _, pages = cv2.imreadmulti(path, flags=cv2.IMREAD_UNCHANGED)
        return np.dstack(pages)
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    # OpenCV reads one band of two.
    if image is None or (image.ndim == 2 and _bands(path) != 1):
        raise ValueError(
            f"{path} is a TIFF file that OpenCV cannot read, such as one of more than "
            "four bands: pip install tifffile, or save such images as .npy"
        )
    return _as_rgb(image)


def _bands(path: str) -> int | None:
    """Samples per pixel of a TIFF file, if Pillow can read it."""
    try:
        with Image.open(path) as image:
            return len(image.getbands())
    except OSError:
        return None


def _channels_last(image: np.ndarray, path: str) -> np.ndarray:
    """(H, W, C) of an image whose channels come last, first, or not at all.

    Raises:
        ValueError: If it has no such shape, or holds no numbers.
    """
    if image.dtype.kind not in "uif":
        raise ValueError(f"{path} holds values of type {image.dtype}, not numbers")
    if image.ndim == 2:
        return image[:, :, None]
    if image.ndim != 3 or min(image.shape[0], image.shape[2]) > _MOST_CHANNELS:
        raise ValueError(
            f"{path} has the shape {image.shape}; images are (H, W), (H, W, C) or "
            f"(C, H, W) with at most {_MOST_CHANNELS} channels"
        )
    if image.shape[0] < image.shape[2] and image.shape[0] < image.shape[1]:
        image = image.transpose(1, 2, 0)
    return np.ascontiguousarray(image)
