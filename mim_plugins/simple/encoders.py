"""The encoder that an earlier call has trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ..engine.hooks.saving import numbered_files
from ..evaluation.run_config import config_next_to
from ..models.selfsup.image_loading import trained_steps
from .survey import Survey, survey


class TrainedEncoder(NamedTuple):
    """A checkpoint and the config of its run.

    Args:
        checkpoint: Path of the file.
        path: Path of the config, which training has left next to it.
        config: The config.
    """

    checkpoint: Path
    path: str
    config: Config

    @property
    def backbone(self) -> dict[str, Any]:
        """The config of the encoder."""
        return self.config.model.backbone

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        size = self.backbone.get("img_size", 224)
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return self.backbone.get("in_channels", 3)

    @property
    def loading(self) -> list[dict[str, Any]]:
        """The steps that load images as its training did."""
        return trained_steps(self.config)[0]


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The latest checkpoint of a run's folder, if there is one."""
    found = numbered_files(Path(folder))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def find_encoder(encoder: str | os.PathLike) -> TrainedEncoder:
    """Finds the encoder of a run.

    Args:
        encoder: The folder of a run, of which the latest checkpoint is taken, or a
            checkpoint with the config of its run next to it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the config is missing, or describes something else.
    """
    path = Path(encoder).expanduser()
    checkpoint: Path | None = path
    if path.is_dir():
        checkpoint = newest_checkpoint(path)
        if checkpoint is None:
            raise FileNotFoundError(
                f"encoder={str(encoder)!r} holds no checkpoint (epoch_*.pth): give the "
                "folder that pretrain has written to (its out), or a checkpoint"
            )
    elif not path.is_file():
        raise FileNotFoundError(
            f"encoder={str(encoder)!r} does not exist: give the folder that pretrain "
            "has written to (its out), or a checkpoint"
        )
    assert checkpoint is not None
    try:
        name, config = config_next_to(checkpoint)
    except ValueError as error:
        raise ValueError(
            f"the encoder {checkpoint} cannot be used without the config of its run, "
            f"which training leaves next to it: {str(error).split(': ', 1)[-1]}"
        ) from error
    if "backbone" not in (config.get("model") or {}):
        raise ValueError(f"{name} describes no model with an encoder")
    return TrainedEncoder(checkpoint, name, config)


def survey_for(encoder: TrainedEncoder, paths: Sequence[str]) -> Survey:
    """Looks at a sample of images that an encoder is to get.

    Args:
        encoder: The encoder.
        paths: The image files.

    Raises:
        ValueError: If they cannot be loaded as its training loaded images.
    """
    loads = [step for step in encoder.loading if "Load" in str(step["type"])]
    kind = str(loads[0].get("color_type", "")) if loads else ""
    as_loaded = {"color": 3, "grays": 1}.get(kind[:5])
    found = survey(paths, as_loaded)
    theirs = f"{encoder.channels} channel{'s' * (encoder.channels != 1)}"
    if as_loaded and found.deep:
        raise ValueError(
            f"the images have more than 8 bits, but the encoder is for {theirs} of 8: "
            "pre-train one on images like these"
        )
    if found.channels != encoder.channels:
        raise ValueError(
            f"the images have {found.channels} channels, but the encoder is for "
            f"{theirs}: pre-train one on images like these"
        )
    return found
