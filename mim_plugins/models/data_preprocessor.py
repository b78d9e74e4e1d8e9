"""From uint8 batches to normalised ones, on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class MIMDataPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device, mirrors the images drawn for it, and normalises.

    Unlike mmpretrain's ``SelfSupDataPreprocessor`` it takes any number of channels
    and reads the batch by its keys. Images travel as uint8, a quarter of the bytes.

    It accepts the batches of ``PackPretrainInputs`` (``data_samples`` a dict of batch
    tensors, of which ``flip`` (N,) marks the images to mirror) and of mmpretrain's
    ``PackInputs`` (a list of ``DataSample``; what a transform flipped stays as it is),
    with images stacked or in a list, uint8 or floating. Floating images are normalised
    just as well: they are expected in the units of ``mean`` and ``std``.

    Args:
        mean: Mean of each channel, in the order of the channels after
            ``bgr_to_rgb``; one value applies to all channels. ``None``, together with
            ``std=None``, leaves the values as they are.
        std: Standard deviation of each channel, likewise.
        bgr_to_rgb: Reverse the channels; only for three of them.
        non_blocking: Copy pinned batches to the device without waiting.

    Raises:
        ValueError: If ``mean`` and ``std`` differ in length, only one is given, a
            ``std`` is not positive, or ``bgr_to_rgb`` is set for other than three
            channels.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking)
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ValueError(
                "mean and std need one value per channel each, or None both; got "
                f"mean={mean} and std={std}"
            )
        if std is not None and min(std) <= 0:
            raise ValueError(f"std must be positive, got {std}")
        if bgr_to_rgb and mean is not None and len(mean) not in (1, 3):
            raise ValueError(
                f"bgr_to_rgb reverses three channels, but mean has {len(mean)} values: "
                "set bgr_to_rgb=False"
            )
        self.bgr_to_rgb = bgr_to_rgb
        for name, values in (
            ("mean", mean),
            ("std", std),
            # (x - mean) / std = x * scale + shift: one kernel that reads uint8 and
            # writes float.
            ("scale", std and [1 / s for s in std]),
            ("shift", std and [-m / s for m, s in zip(mean or (), std, strict=True)]),
        ):
            self.register_buffer(name, _per_channel(values), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict:
        """Preprocesses one batch.

        Args:
            data: ``inputs``: images, (N, C, H, W), or a list of (C, H, W);
                ``data_samples``: see the class.
            training: Unused: the batch itself marks the images to mirror.

        Returns:
            ``inputs``: float32 images, (N, C, H, W); ``data_samples``: as given, its
            tensors on the device too, but for ``seed``; both new, ``data`` stays as it
            is.

        Raises:
            TypeError: If ``data`` is not a dict with ``inputs``.
            ValueError: If the images of a list differ in size, or the channels are
                not those of ``mean``.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            raise TypeError(
                "a batch is a dict with the key 'inputs'; set "
                "collate_fn=dict(type='default_collate') in the loader. Got "
                f"{type(data).__name__}"
            )
        inputs = data["inputs"]
        images: Tensor = self.cast_data(
            inputs if isinstance(inputs, Tensor) else _stack(inputs)
        )
        samples: Any = data.get("data_samples")
        if isinstance(samples, Mapping):
            # Masks of one network are planned on the host, without waiting for a GPU.
            samples = {
                key: value if key == "seed" else self.cast_data(value)
                for key, value in samples.items()
            }
        else:
            samples = self.cast_data(samples)
        self._check_channels(images)
        if self.bgr_to_rgb:
            images = images.flip(1)
        if isinstance(samples, Mapping) and "flip" in samples:
            flip = samples["flip"].bool().view(-1, 1, 1, 1)
            images = torch.where(flip, images.flip(-1), images)
        if self.scale is None:
            return {"inputs": images.float(), "data_samples": samples}
        images = torch.addcmul(self.shift, images, self.scale)
        return {"inputs": images.float(), "data_samples": samples}

    def _check_channels(self, images: Tensor) -> None:
        """Checks the shape of images, which would otherwise broadcast silently.

        Raises:
            ValueError: Naming both counts.
        """
        if images.ndim != 4:
            raise ValueError(
                "images come as (N, C, H, W), or a list of (C, H, W); got the shape "
                f"{tuple(images.shape)}"
            )
        channels = images.shape[1]
        expected = channels if self.mean is None else self.mean.numel()
        if expected not in (1, channels):
            raise ValueError(
                f"the images have {channels} channels, data_preprocessor has mean and "
                f"std for {expected}: set mean and std (and the backbone's "
                f"in_channels) to the {channels} channels of the data, or load the "
                f"images with {expected}"
            )
        if self.bgr_to_rgb and channels != 3:
            raise ValueError(
                f"bgr_to_rgb reverses three channels, but the images have {channels}: "
                "set bgr_to_rgb=False in data_preprocessor"
            )


def image_statistics(preprocessor: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation of a data preprocessor, ours or another.

    Each (C, 1, 1) or (1, 1, 1); None if it does not normalise.
    """
    mean, std = (getattr(preprocessor, name, None) for name in ("mean", "std"))
    return mean, std


def reverses_channels(preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor, ours or mmpretrain's, turns BGR images into RGB."""
    names = ("bgr_to_rgb", "to_rgb", "_channel_conversion")
    return any(getattr(preprocessor, name, False) for name in names)


def _per_channel(values: Sequence[float] | None) -> Tensor | None:
    """Values as a (C, 1, 1) tensor."""
    if values is None:
        return None
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Stacks a list of images.

    Raises:
        ValueError: If their shapes differ.
    """
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise ValueError(
            "the images of a batch must have one size; got "
            f"{', '.join(map(str, sorted(shapes))) or 'none'}. End the pipeline with a "
            "crop or resize to a fixed size"
        )
    return torch.stack(list(images))
