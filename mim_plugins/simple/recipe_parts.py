"""Parts of a config that pre-training and fine-tuning write alike."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from .choices import choose_rate, choose_warmup
from .config_file import Expression
from .survey import Survey


def crop(size: tuple[int, int], least: float) -> dict[str, Any]:
    """The random crop of a training pipeline, of the images' proportions."""
    height, width = size
    step: dict[str, Any] = dict(
        type="TensorRandomResizedCrop",
        scale=height if height == width else size,
        crop_ratio_range=(least, 1.0),
    )
    if height != width:
        middle = width / height
        step["aspect_ratio_range"] = (
            round(middle * 3 / 4, 3),
            round(middle * 4 / 3, 3),
        )
    return step


def fit(size: tuple[int, int], found: Survey) -> list[dict[str, Any]]:
    """The steps of a test pipeline that make images of a size."""
    height, width = size
    if found.channels > 4:
        # Neither Pillow nor OpenCV resizes these. This takes the central part, always.
        ratio = width / height
        return [
            dict(
                type="TensorRandomResizedCrop",
                scale=by_size(size),
                crop_ratio_range=(1.0, 1.0),
                aspect_ratio_range=(ratio, ratio),
            )
        ]
    # Pillow has 8 bits and up to four channels.
    how = dict(backend="pillow", interpolation="bicubic")
    if found.many:
        how = dict(backend="cv2", interpolation="area")
    if height != width or (found.one_size and found.size[0] == found.size[1]):
        return [dict(type="Resize", scale=(width, height), **how)]
    return [
        dict(type="ResizeEdge", scale=round(height * 8 / 7), edge="short", **how),
        dict(type="CenterCrop", crop_size=height),
    ]


def by_size(size: tuple[int, int]) -> int | tuple[int, int]:
    """A size as configs have it: one number for a square."""
    return size[0] if size[0] == size[1] else size


def schedule(cfg: Config, epochs: int, batch: int) -> dict[str, Any]:
    """Length, learning rate and warm-up of a run, for a config with a recipe's."""
    warmup = choose_warmup(epochs)
    rate = choose_rate(
        cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.base_batch_size, batch
    )
    after = Expression(f'{{**_base_.param_scheduler[1], "begin": {warmup}}}')
    first = Expression(f'{{**_base_.param_scheduler[0], "end": {warmup}}}')
    return dict(
        train_cfg=dict(max_epochs=epochs),
        warmup_epochs=warmup,
        param_scheduler=[first, after] if warmup else [after],
        optim_wrapper=dict(optimizer=dict(lr=rate)),
        auto_scale_lr=dict(base_batch_size=batch),
    )
