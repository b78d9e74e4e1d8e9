"""Reconstructions of image files: what ``tools/reconstruct.py`` runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor

from ..checkpoints.files import read
from ..checkpoints.files.writing import write_atomically
from ..checkpoints.layouts.key_rules import listed
from ..checkpoints.loading import Target, state_for
from ..engine.hooks.data_health import check_image
from ..evaluation.embed import usable_device
from ..evaluation.encoder import (
    file_pipeline,
    find_model,
    load_exact_sizes,
    preprocessor_of,
)
from ..evaluation.images import ImageFiles, ImageList, list_images
from ..models.selfsup.base import MaskedImageModel
from ..models.selfsup.image_loading import turns_by_exif
from ..visualization import ReconstructionTable, value_range
from .drawn_mask import DrawnMask, exif_orientation, size_of_image

# Columns of a picture that fit next to each other.
_COLUMNS = 8
# Milliseconds for which an animation shows a level.
_FRAME = 1000

_WITHOUT_STATISTICS = "--no-patch-statistics"


class Reconstruction(NamedTuple):
    """What a model makes of an image.

    Args:
        path: The image file.
        name: Its name without ending, and a number where several have one name.
        picture: The table of original, masked image and every level, (height, width,
            3), uint8, RGB.
        frames: A table for each level, of one size, shallow to deep.
    """

    path: str
    name: str
    picture: np.ndarray
    frames: list[np.ndarray]

    def write(self, folder: str | Path) -> list[Path]:
        """Writes ``NAME_reconstruction.png``, and ``.gif`` if there are frames."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}_reconstruction.png"
        write_atomically(path, Image.fromarray(self.picture).save)
        if not self.frames:
            return [path]
        animation = path.with_suffix(".gif")
        first, *others = map(Image.fromarray, self.frames)
        how: dict[str, Any] = dict(append_images=others, duration=_FRAME, loop=0)
        write_atomically(animation, lambda x: first.save(x, save_all=True, **how))
        return [path, animation]


class Reconstructor:
    """A pre-trained model with its decoders.

    Args:
        config: Config file of the pre-training, or a name of
            ``mmpretrain.list_models()``.
        checkpoint: Its weights, ours or official ones; by default those of the model
            index or of the config's ``load_from``.
        mask_ratio: Share of patches to remove; by default the config's.
        patch_statistics: See :meth:`MaskedImageModel.reconstruct`.
        device: Such as ``cuda:1``; by default a GPU, if there is one.
        cfg_options: Values that replace those of the config, by dotted key.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If it is no config of a pre-training, or the checkpoint does not
            have its decoders.
    """

    def __init__(
        self,
        config: str,
        checkpoint: str | None = None,
        *,
        mask_ratio: float | None = None,
        patch_statistics: bool = True,
        device: str | None = None,
        cfg_options: dict[str, Any] | None = None,
    ) -> None:
        options = dict(cfg_options or {})
        if mask_ratio is not None:
            options["model.mask_sampler.mask_ratio"] = mask_ratio
        cfg, weights = find_model(config, checkpoint, options)
        if not weights:
            raise ValueError(f"no weights are known for {config}: give a checkpoint")
        where = usable_device(device or get_device())
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            kind: Any = (cfg.get("model") or {}).get("type")
            built = MODELS.get(kind) if isinstance(kind, str) else kind
            if not (isinstance(built, type) and issubclass(built, MaskedImageModel)):
                raise ValueError(
                    f"{config} is no config of a pre-training by this package, and its "
                    f"model, a {kind}, reconstructs nothing: give that of the "
                    "pre-training; tools/embed.py and tools/analyze.py work with this"
                )
            model = {**cfg.model, "data_preprocessor": preprocessor_of(cfg, True)}
            self.model: MaskedImageModel = MODELS.build(model)
        if not patch_statistics and not self.model.normalises_patches:
            raise ValueError(
                f"{_WITHOUT_STATISTICS} changes nothing, since no target of this model "
                "has norm_pix=True; leave it out"
            )
        self.patch_statistics = patch_statistics
        self.pipeline = file_pipeline(cfg, self.model.backbone, True)
        _load(self.model, weights)
        self.model.to(where).eval()

    @property
    def level_names(self) -> list[str]:
        """Captions of the levels, shallow to deep."""
        return self.model.level_names

    def __call__(
        self, image: Tensor, mask: Tensor | None = None, seed: int = 0
    ) -> ReconstructionTable:
        """Reconstructs an image.

        Args:
            image: As :attr:`pipeline` loads it, (C, H, W).
            mask: (1, L), 1 = removed; drawn from the seed by default.
            seed: Of the mask, which is the same for all images.
        """
        model = self.model
        data: Any = {"inputs": image[None], "data_samples": None}
        inputs = model.data_preprocessor(data, False)["inputs"]
        seeds = torch.tensor([seed], device=inputs.device)
        samples = {"seed": seeds} if mask is None else {"mask": mask}
        drawn = model.draw_mask(inputs, samples)
        return ReconstructionTable(
            model,
            inputs,
            model.reconstruct(inputs, drawn, self.patch_statistics),
            shown=value_range(image[None]),
            patch_statistics=self.patch_statistics,
            otherwise=_WITHOUT_STATISTICS,
        )


def reconstruct(
    config: str,
    checkpoint: str | None,
    images: str | Path | Sequence[str | Path],
    *,
    mask_ratio: float | None = None,
    seed: int = 0,
    mask: str | Path | None = None,
    gif: bool = False,
    patch_statistics: bool = True,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Iterator[Reconstruction]:
    """Reconstructs images one by one; all but the images is checked at once.

    An image that cannot be read is named in the log and left out.

    Args:
        config: As of :class:`Reconstructor`.
        checkpoint: Likewise.
        images: Files and folders, which are searched recursively.
        mask_ratio: Share of patches to remove; by default the config's.
        seed: Of the mask, which is the same for all images.
        mask: A picture of the mask instead, see :class:`DrawnMask`.
        gif: Whether to draw frames.
        patch_statistics: Whether predictions of targets with ``norm_pix`` get the mean
            and deviation of the true patches.
        device: As of :class:`Reconstructor`.
        cfg_options: Likewise.

    Raises:
        FileNotFoundError: If a file or folder does not exist, or has no images.
        ValueError: If an argument, the checkpoint, the mask or an image does not fit,
            or no image can be read.
    """
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"a seed has 64 bits, got {seed}")
    if mask is not None and mask_ratio is not None:
        raise ValueError(
            "the mask itself says what is removed: leave out either --mask or "
            "--mask-ratio"
        )
    drawn = None if mask is None else DrawnMask(mask)
    given = [images] if isinstance(images, str | Path) else list(images)
    for path in given:
        if not os.path.exists(os.path.expanduser(path)):
            raise FileNotFoundError(f"there is no image or folder {path}")
    network = Reconstructor(
        config,
        checkpoint,
        mask_ratio=mask_ratio,
        patch_statistics=patch_statistics,
        device=device,
        cfg_options=cfg_options,
    )
    if gif and len(network.level_names) == 1:
        raise ValueError(
            "an animation runs over levels, and this model has one: leave out --gif"
        )
    files = ImageFiles(_listed(given, network.pipeline), network.pipeline)
    return _reconstructions(network, files, drawn, seed, gif)


def _reconstructions(
    network: Reconstructor,
    files: ImageFiles,
    drawn: DrawnMask | None,
    seed: int,
    gif: bool,
) -> Iterator[Reconstruction]:
    """The reconstructions of all images that can be read.

    Raises:
        ValueError: If an image or the mask does not fit, or none can be read.
    """
    logger, model = MMLogger.get_current_instance(), network.model
    names = _names(files.images.files)
    unreadable: list[str] = []
    for index, name in enumerate(names):
        path = files.images.path(index)
        _, image, reason = files[index]
        if image is None:
            unreadable.append(f"{path} ({reason})")
            logger.warning(f"left out: {unreadable[-1]}")
            continue
        check_image(image, model, path)
        mask = None
        if drawn is not None:
            height, width = image.shape[1:]
            grid = model.backbone.image_grid(image[None])
            size = size_of_image(path, network.pipeline)
            mask = drawn.on_patches(grid, (height, width), size, network.pipeline)
        table = network(image, mask, seed)
        if exif_orientation(path) != 1 and not turns_by_exif(network.pipeline):
            table.notes.append(
                "The image is not turned as its EXIF orientation says, as in training."
            )
        frames = table.frames() if gif else []
        yield Reconstruction(path, name, table.draw(_COLUMNS), frames)
    if len(unreadable) == len(names):
        raise ValueError(f"no image can be read: {listed(unreadable, 4)}")


def _load(model: MaskedImageModel, checkpoint: str) -> None:
    """Loads encoder and decoders.

    Raises:
        ValueError: If a part of them is missing or has other sizes.
    """
    state = state_for(Target.of(model), read(checkpoint))
    decoders = [key for key in model.state_dict() if key.startswith("neck.")]
    if not any(key in state for key in decoders):
        raise ValueError(
            f"{checkpoint} has no decoders, or none of this config's, so that nothing "
            "can be reconstructed: give the checkpoint of the pre-training itself and "
            "its config. tools/embed.py and tools/analyze.py need the encoder alone"
        )
    if others := [k for k in state if k.startswith("neck.") and k not in decoders]:
        raise ValueError(
            f"{checkpoint} has decoders that the config's model has not: "
            f"{listed(others, 4)}. Use the config it was trained with"
        )
    buffers = dict(model.named_buffers())
    lost = [
        key
        for key in load_exact_sizes(model, state, checkpoint)
        if key.startswith(("backbone.", "neck.")) and key not in buffers
    ]
    if lost:
        raise ValueError(
            f"{checkpoint} lacks {len(lost)} tensors of the model that is to "
            f"reconstruct: {listed(lost, 4)}. Use the config it was trained with"
        )


def _listed(given: Iterable[str | Path], pipeline: Sequence[dict]) -> ImageList:
    """The files, and those of the folders."""
    files: list[str] = []
    for path in map(os.path.expanduser, map(str, given)):
        if os.path.isdir(path):
            found = list_images(path, pipeline=pipeline)
            files += [found.path(index) for index in range(len(found.files))]
        else:
            files.append(path)
    return ImageList("", list(dict.fromkeys(files)))


def _names(files: Sequence[str]) -> list[str]:
    """Names without endings, told apart by numbers."""
    names: dict[str, None] = {}
    for stem in (Path(file).stem for file in files):
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names[name] = None
    return list(names)
