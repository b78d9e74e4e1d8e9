"""Pre-training on a folder of images in one call."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmpretrain.registry import MODELS

from ..datasets import UnlabelledImages
from ..datasets.image_files import readable_endings
from ..engine import load_config, train
from ..engine.errors import explained
from .choices import (
    as_size,
    by,
    check_counts,
    check_patch,
    choose_batch,
    choose_epochs,
    choose_patch,
    choose_size,
    choose_warmup,
    choose_workers,
)
from .config_file import Expression, write_config
from .encoders import newest_checkpoint
from .fitting import Trial, try_batch
from .models import Recipe, config_path, find_recipe
from .recipe_parts import by_size, crop, fit, schedule
from .run_folder import check_call, check_space, describe_call, prepare_folder
from .survey import survey

_KEPT = 3


def pretrain(
    data: str | os.PathLike,
    model: str = "deepmim_vits",
    *,
    img_size: int | Sequence[int] | None = None,
    patch_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    channels: int | None = None,
    teacher: str | os.PathLike | None = None,
    workers: int | None = None,
    seed: int = 0,
    out: str | os.PathLike = "run",
    resume: bool = False,
) -> Path:
    """Pre-trains an encoder on a folder of images.

    What is not given is chosen for the images, and said in five lines. The config that
    is run is written to ``out/config/pretrain.py``, a short one to copy and change for
    ``tools/train.py``.

    Args:
        data: Any folder of images, at any depth; of ImageNet's layout, ``train`` alone.
            Grey, colour, or with up to 64 channels (TIFF, ``.npy``), of 8 or more bits.
        model: A method and an encoder, such as ``deepmim_vits`` or ``mae_vitt``; an
            unknown name is answered with the known ones.
        img_size: Side, or height and width, in pixels of the crops that the model gets.
            By default the images' own size where all have one of up to 224 pixels, else
            their shorter side, 224 at most.
        patch_size: Side of the patches in pixels; by default the largest up to 16 that
            leaves 36 of them.
        epochs: Passes over the images; by default more for fewer images, and fewer
            without a GPU.
        batch_size: Images of a step. What does not fit into memory is accumulated.
        channels: 1 or 3: all images are loaded as grey, or as colour, whatever they
            have. By default all must have the same.
        teacher: The trained model that a method learns from, a checkpoint.
        workers: Loading processes; by default the cores.
        seed: Of all random draws.
        out: Where config, checkpoints, logs and pictures go.
        resume: Whether to go on with the run in ``out``, which is begun if there is
            none.

    Returns:
        The path of the last checkpoint.

    Raises:
        InputError: If something that was given cannot be used, before training.
    """
    options: dict[str, Any] = {}
    with explained():
        find_recipe(model)
        check_counts(epochs=epochs, batch_size=batch_size, patch_size=patch_size)
        given = dict(
            data=os.path.abspath(os.path.expanduser(data)),
            model=model,
            img_size=None if img_size is None else as_size(img_size),
            patch_size=patch_size,
            epochs=epochs,
            batch_size=batch_size,
            channels=channels,
            teacher=None if teacher is None else os.path.abspath(teacher),
            workers=workers,
            seed=seed,
        )
        folder = prepare_folder(out, resume)
        config = folder / "config" / "pretrain.py"
        if resume and config.is_file():
            check_call(config, "pretrain", given)
            if epochs is not None:
                options["train_cfg.max_epochs"] = epochs
        else:
            _Plan(given).write(config)
    train(
        config,
        work_dir=str(folder),
        resume="auto" if resume else None,
        cfg_options=options,
    )
    checkpoint = newest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint


def find_images(data: str, everything: bool = False) -> list[str]:
    """The image files below a folder.

    Args:
        data: The folder.
        everything: Whether those outside of a ``train`` folder count, too.

    Raises:
        FileNotFoundError: If there are none.
    """
    if os.path.isfile(data):
        raise FileNotFoundError(f"data={data!r} is a file: give the folder it is in")
    endings = readable_endings([dict(type="LoadManyChannels")])
    try:
        found = UnlabelledImages(
            data, "" if everything else None, extensions=endings, pipeline=[]
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).split(" Set ")[0].rstrip(".")) from None
    return [found.get_data_info(index)["img_path"] for index in range(len(found))]


class _Plan:
    """What is chosen for a pre-training.

    Args:
        given: The arguments of the call.

    Raises:
        ValueError: If something cannot be used.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.recipe: Recipe = find_recipe(given["model"])
        self.base = config_path(self.recipe.config)
        self.found = survey(find_images(given["data"]), given["channels"])
        if self.found.deep and given["channels"]:
            raise ValueError(
                f"channels={given['channels']} loads images of 8 bits, and some of "
                "these have more: leave it out, or convert the files"
            )
        size = given["img_size"]
        self.size = (
            choose_size(self.found.size, self.found.one_size) if size is None else size
        )
        self.gpu = get_device() == "cuda"
        self.epochs = given["epochs"] or choose_epochs(
            "pretrain", self.found.total, self.gpu
        )
        self.wanted = min(
            given["batch_size"] or choose_batch(self.found.total, self.gpu),
            self.found.total,
        )
        workers = given["workers"]
        self.workers = choose_workers(self.found.total) if workers is None else workers

    def write(self, config: Path) -> None:
        """Writes the config, and says what was chosen."""
        cfg = load_config(self.base)
        model = self._model(cfg)
        cfg.merge_from_dict(dict(model=copy.deepcopy(model)))
        trial = try_batch(MODELS.build(cfg.model), self._images, self.wanted)
        check_space(config.parent.parent, trial.parameters, _KEPT + 1)
        lines = self._said(cfg, trial)
        comment = "\n".join([describe_call("pretrain", self.given), "", *lines])
        values = self._values(cfg, model, trial.batch)
        write_config(config, str(self.base), comment, values)
        print(*lines, f"config: {config}", sep="\n", flush=True)

    def _images(self, count: int) -> dict[str, Any]:
        """A batch as the loader makes it, of random values."""
        shape = (count, self.found.channels, *self.size)
        kind = torch.float32 if self.found.deep else torch.uint8
        inputs = torch.randint(0, 256, shape).to(kind)
        numbers = torch.arange(count)
        return dict(inputs=inputs, data_samples=dict(seed=numbers, sample_idx=numbers))

    def _model(self, cfg: Config) -> dict[str, Any]:
        """What changes in the model of the recipe."""
        kind = cfg.model.backbone.type
        backbone: dict[str, Any] = dict(img_size=by_size(self.size))
        if self.found.channels != 3:
            backbone["in_channels"] = self.found.channels
        model: dict[str, Any] = dict(
            data_preprocessor=dict(
                mean=self.found.mean, std=self.found.std, bgr_to_rgb=self.found.bgr
            ),
            backbone=backbone,
        )
        for part, changes in self.recipe.changes.items():
            model[part] = {**changes, **model.get(part, {})}
        if kind == "MIMVisionTransformer":
            self.patch = self._patch(cfg)
            model["backbone"]["patch_size"] = self.patch
            if cfg.model.type == "LocalMIM":
                patch = self.patch
                cells = (patch // 4, patch // 2, patch, 2 * patch)
                model["target_generator"] = dict(cell_size=cells)
        else:
            self._check_hierarchical()
            self.patch = 32
            if "window_size" in cfg.model.backbone:
                window = self.size[0] // 32
                model["backbone"]["window_size"] = window
                if "window_size" in cfg.model.neck:
                    model["neck"] = dict(window_size=window)
        self._add_teacher(cfg, model)
        return model

    def _patch(self, cfg: Config) -> int:
        given, multi_scale = self.given["patch_size"], cfg.model.type == "LocalMIM"
        if self.recipe.teacher:
            given = given or 16  # the teacher's
        if given is None:
            return choose_patch(self.size, multi_scale)
        check_patch(self.size, given)
        if multi_scale and (given % 4 or any(x % (2 * given) for x in self.size)):
            raise ValueError(
                f"{self.given['model']} predicts cells of a quarter to twice a patch: "
                "patch_size is a multiple of 4, and twice it divides img_size; got "
                f"patch_size={given} and img_size={by(self.size)}"
            )
        return given

    def _check_hierarchical(self) -> None:
        """Checks what encoders in stages need.

        Raises:
            ValueError: If size or patches do not fit.
        """
        name, (height, width) = self.given["model"], self.size
        if self.given["patch_size"] is not None:
            raise ValueError(f"{name} has patches of its own: leave out patch_size")
        # Of fewer cells LocalMIM's mask, which removes one more than its share, leaves
        # none.
        least = 96 if name.startswith("localmim") else 64
        if height != width or height % 32 or height < least:
            side = max(least, round(min(self.size) / 32) * 32)
            raise ValueError(
                f"{name} takes square images whose side is a multiple of 32, from "
                f"{least} on, not img_size={by(self.size)}: take img_size={side}, or "
                "a ViT"
            )

    def _add_teacher(self, cfg: Config, model: dict[str, Any]) -> None:
        """Gives the model its teacher.

        Raises:
            ValueError: If it is missing, not needed, or does not fit.
            FileNotFoundError: If the file does not exist.
        """
        name, teacher = self.given["model"], self.given["teacher"]
        if not self.recipe.teacher:
            if teacher:
                raise ValueError(f"{name} learns from no teacher: leave it out")
            return
        if teacher is None:
            raise ValueError(
                f"{name} learns from {self.recipe.teacher}: give its file as teacher"
            )
        if not Path(teacher).exists():
            raise FileNotFoundError(f"the teacher {teacher} does not exist")
        if self.found.channels != 3 or self.patch != 16:
            raise ValueError(
                f"the teacher of {name} sees colour in patches of 16 pixels; these are "
                f"images of {self.found.channels} channels in patches of {self.patch}"
            )
        size = by_size(self.size)
        if cfg.model.type == "DistilledMIM":
            model.update(teacher=dict(img_size=size), teacher_checkpoint=teacher)
            return
        target: dict[str, Any] = dict(checkpoint=teacher)
        if "teacher" in cfg.model.target_generator:
            target["teacher"] = dict(backbone=dict(img_size=size))
        model["target_generator"] = target

    def _values(self, cfg: Config, model: dict[str, Any], batch: int) -> dict[str, Any]:
        """The variables of the config."""
        old = next(
            step for step in cfg.train_pipeline if step["type"].endswith("ResizedCrop")
        )
        own = crop(self.size, old["crop_ratio_range"][0])
        if "interpolation" in old:
            own["interpolation"] = old["interpolation"]
        load, pack = self.found.loading, dict(type="PackPretrainInputs")
        with_data = dict(data_root=Expression("data_root"))
        test = dict(**with_data, pipeline=Expression("test_pipeline"))
        train_data = dict(**with_data, pipeline=Expression("train_pipeline"))
        sizes: dict[str, Any] = dict(img_size=by_size(self.size))
        if "patch_size" in model["backbone"]:
            sizes["patch_size"] = self.patch
        variables = {name: Expression(name) for name in sizes}
        model["backbone"] |= variables
        every = max(1, self.epochs // 20)
        return dict(
            data_root=self.given["data"],
            **sizes,
            train_pipeline=[load, own, dict(type="DrawFlip", prob=0.5), pack],
            test_pipeline=[load, *fit(self.size, self.found), dict(type="PackInputs")],
            train_dataloader=dict(
                batch_size=batch,
                num_workers=self.workers,
                dataset=dict(dataset=train_data),
            ),
            knn_train_dataloader=dict(dataset=test),
            knn_val_dataloader=dict(dataset=test),
            model=model,
            **schedule(cfg, self.epochs, self.wanted),
            randomness=dict(seed=self.given["seed"]),
            default_hooks=dict(
                logger=dict(interval=min(50, max(1, self.found.total // batch))),
                checkpoint=dict(interval=every, max_keep_ckpts=_KEPT),
            ),
        )

    def _said(self, cfg: Config, trial: Trial) -> list[str]:
        """What was chosen, in lines."""
        found, (rows, cols) = self.found, (x // self.patch for x in self.size)
        images = f"{found.total} images, {found.kind}, about {by(found.size)} pixels"
        held = "" if trial.batch == self.wanted else f", {trial.batch} at a time"
        rate = schedule(cfg, self.epochs, self.wanted)["optim_wrapper"]["optimizer"]
        seen = self.epochs * (found.total // trial.batch) * trial.batch
        device = "GPU" if self.gpu else "CPU"
        return [
            f"data: {images}; mean and deviation of {found.sampled} of them",
            f"model: {self.given['model']}, {trial.parameters / 1e6:.1f} M parameters, "
            f"crops of {by(self.size)} pixels in {rows}x{cols} patches of {self.patch}",
            f"batch: {self.wanted}{held}, learning rate {rate['lr']:g}, "
            f"{self.workers} loading processes",
            f"epochs: {self.epochs}, {choose_warmup(self.epochs)} of them warm-up: "
            f"{seen:,} images seen, about {_duration(seen * trial.seconds)} of "
            f"computing on this {device}",
        ]


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
