"""Fine-tuning an encoder on one's own classes in one call."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ..engine import train
from ..engine.errors import explained
from .choices import (
    as_size,
    by,
    check_counts,
    check_patch,
    choose_batch,
    choose_epochs,
    choose_warmup,
    choose_workers,
)
from .class_data import ClassData, find_classes
from .config_file import Expression, write_config
from .encoders import TrainedEncoder, find_encoder, newest_checkpoint, survey_for
from .fitting import Trial, try_batch
from .models import config_path
from .recipe_parts import by_size, crop, fit, schedule
from .run_folder import check_call, check_space, describe_call, prepare_folder
from .survey import Survey

# From so many images on, the recipe's strong augmentation is kept.
_MANY = 10_000
_KEPT = 1

# The classifier that each encoder becomes, and what of its encoder stays as there.
_CLASSIFIERS = {
    "MIMVisionTransformer": "classifier_vitb.py",
    "VisionTransformer": "classifier_vitb.py",
    "MIMSwinTransformer": "classifier_swinb.py",
    "SimMIMSwin": "classifier_swint.py",
    "SwinTransformer": "classifier_swint.py",
    "MIMHiera": "classifier_hierat.py",
    "Hiera": "classifier_hierat.py",
}
_PASSED_ON = ("arch", "patch_size", "in_channels", "window_size", "merge_coordinates")


class FineTuned(NamedTuple):
    """A classifier.

    Args:
        checkpoint: Its last checkpoint.
        accuracy: Top-1 on the images that it has not seen, in percent.
    """

    checkpoint: Path
    accuracy: float


def finetune(
    data: str | os.PathLike,
    encoder: str | os.PathLike,
    *,
    img_size: int | Sequence[int] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    out: str | os.PathLike = "finetuned",
    resume: bool = False,
) -> FineTuned:
    """Fine-tunes an encoder to one's own classes.

    The config that is run is written to ``out/config/finetune.py``.

    Args:
        data: A folder of images per class, ``train/CLASS`` and ``val/CLASS``, or
            ``CLASS`` alone, of which a fifth is held out to judge by.
        encoder: The folder that :func:`pretrain` has written to, or a checkpoint.
        img_size: Side, or height and width, in pixels of the images; by default those
            of pre-training. For others, a ViT's position embeddings are resized.
        epochs: Passes over the images; by default more for fewer images.
        batch_size: Images of a step. What does not fit into memory is accumulated.
        workers: Loading processes; by default the cores.
        seed: Of all random draws, and of what is held out.
        out: Where config, checkpoints and logs go.
        resume: Whether to go on with the run in ``out``.

    Returns:
        The checkpoint, and its accuracy on the images that were held out.

    Raises:
        InputError: If something that was given cannot be used, before training.
    """
    options: dict[str, Any] = {}
    with explained():
        check_counts(epochs=epochs, batch_size=batch_size)
        given = dict(
            data=os.path.abspath(os.path.expanduser(data)),
            encoder=os.path.abspath(os.path.expanduser(encoder)),
            img_size=None if img_size is None else as_size(img_size),
            epochs=epochs,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
        )
        start = find_encoder(encoder)
        classes = find_classes(data, seed)
        folder = prepare_folder(out, resume)
        config = folder / "config" / "finetune.py"
        if resume and config.is_file():
            check_call(config, "finetune", given)
            if epochs is not None:
                options["train_cfg.max_epochs"] = epochs
        else:
            _Plan(given, start, classes).write(config)
    runner = train(
        config,
        work_dir=str(folder),
        resume="auto" if resume else None,
        cfg_options=options,
    )
    checkpoint = newest_checkpoint(folder)
    assert checkpoint is not None
    scalars = runner.message_hub.log_scalars
    accuracy = scalars.get("val/accuracy/top1")
    return FineTuned(
        checkpoint, float("nan") if accuracy is None else float(accuracy.current())
    )


class _Plan:
    """What is chosen for a fine-tuning.

    Raises:
        ValueError: If something cannot be used.
    """

    def __init__(
        self, given: dict[str, Any], start: TrainedEncoder, classes: ClassData
    ) -> None:
        self.given, self.start, self.classes = given, start, classes
        self.kind = str(start.backbone["type"]).rpartition(".")[2]
        if self.kind not in _CLASSIFIERS:
            raise ValueError(
                f"a {self.kind} cannot be fine-tuned by this call: train with a config "
                "of benchmarks/"
            )
        root = classes.train.root
        paths = [os.path.join(root, file) for file in classes.train.files]
        self.found: Survey = survey_for(start, paths)
        self.size = self._size()
        self.count = len(paths)
        self.gpu = get_device() == "cuda"
        self.epochs = given["epochs"] or choose_epochs("finetune", self.count, self.gpu)
        self.wanted = min(
            given["batch_size"] or choose_batch(self.count, self.gpu), self.count
        )
        self.workers = given["workers"]
        if self.workers is None:
            self.workers = choose_workers(self.count)
        self.base = [
            str(config_path(f"_base_/models/{_CLASSIFIERS[self.kind]}")),
            str(config_path("_base_/recipes/finetune.py")),
        ]

    def _size(self) -> tuple[int, int]:
        before = self.start.size
        if self.given["img_size"] is None:
            return before
        size = self.given["img_size"]
        if size != before and "Vision" not in self.kind:
            raise ValueError(
                f"the encoder is for images of {by(before)} pixels, not "
                f"img_size={by(size)}: leave img_size out; only a ViT takes other sizes"
            )
        if "Vision" in self.kind:
            patch = self.start.backbone.get("patch_size", 16)
            check_patch(size, patch if isinstance(patch, int) else patch[0], True)
        return size

    def write(self, config: Path) -> None:
        """Writes the config and the lists of images, and says what was chosen."""
        self.lists = config.parent
        self.lists.mkdir(parents=True, exist_ok=True)
        self.classes.train.write(self.lists / "train.txt")
        self.classes.val.write(self.lists / "val.txt")
        classifier, recipe = map(Config.fromfile, self.base)
        model = self._model()
        classifier.merge_from_dict(dict(model=copy.deepcopy(model)))  # changes it
        classifier.model.backbone.init_cfg = None
        trial = try_batch(MODELS.build(classifier.model), self._images, self.wanted)
        check_space(self.lists.parent, trial.parameters, _KEPT + 2)
        values = self._values(recipe, model, trial.batch)
        lines = self._said(values, trial)
        comment = "\n".join([describe_call("finetune", self.given), "", *lines])
        write_config(config, self.base, comment, values)
        print(*lines, f"config: {config}", sep="\n", flush=True)

    def _images(self, count: int) -> dict[str, Any]:
        """A batch as the loader makes it, of random values."""
        shape = (count, self.found.channels, *self.size)
        kind = torch.float32 if self.found.deep else torch.uint8
        samples = [DataSample().set_gt_label(0) for _ in range(count)]
        return dict(inputs=torch.randint(0, 256, shape).to(kind), data_samples=samples)

    def _model(self) -> dict[str, Any]:
        """What changes in the model of the recipe."""
        before = self.start.config.model
        backbone = {
            key: before.backbone[key] for key in _PASSED_ON if key in before.backbone
        }
        backbone = _plain(backbone)
        if isinstance(backbone.get("arch"), dict):
            backbone["arch"] = dict(_delete_=True, **backbone["arch"])
        backbone["img_size"] = by_size(self.size)
        dims = _width(MODELS.build({**before.backbone, "init_cfg": None}))
        number = len(self.classes.classes)
        found = before.get("data_preprocessor") or {}
        model: dict[str, Any] = dict(
            data_preprocessor=dict(
                num_classes=number,
                mean=list(found["mean"]),
                std=list(found["std"]),
                to_rgb=bool(found.get("bgr_to_rgb", found.get("to_rgb", False))),
            ),
            backbone=dict(
                **backbone,
                init_cfg=dict(
                    type="Pretrained",
                    checkpoint=str(self.start.checkpoint.absolute()),
                    prefix="backbone.",
                ),
            ),
            head=dict(num_classes=number, in_channels=dims),
        )
        if self.kind == "MIMSwinTransformer":
            model["neck"] = dict(in_channels=dims)
        if self.count < _MANY:
            model["train_cfg"] = dict(augments=None)
            model["head"]["loss"] = dict(_delete_=True, type="CrossEntropyLoss")
        return model

    def _values(self, cfg: Config, model: dict[str, Any], batch: int) -> dict[str, Any]:
        """The variables of the config."""
        load = [_plain(step) for step in self.start.loading] or [self.found.loading]
        pack = dict(type="PackInputs")
        if self.count >= _MANY and self.found.bgr:
            steps: list[Any] = [_plain(step) for step in cfg.train_pipeline[2:]]
            steps = [crop(self.size, 0.08), *steps]
        else:
            flip = dict(type="RandomFlip", prob=0.5, direction="horizontal")
            steps = [crop(self.size, 0.35), flip, pack]

        def images(part: str) -> dict[str, Any]:
            root = getattr(self.classes, part).root
            pipeline = "train_pipeline" if part == "train" else "test_pipeline"
            return dict(
                _delete_=True,
                type="CustomDataset",
                data_root=Expression("data_root"),
                data_prefix=os.path.relpath(root, self.given["data"]),
                ann_file=str(self.lists / f"{part}.txt"),
                metainfo=dict(classes=Expression("classes")),
                pipeline=Expression(pipeline),
            )

        model["backbone"]["img_size"] = Expression("img_size")
        loader = dict(batch_size=batch, num_workers=self.workers)
        return dict(
            data_root=self.given["data"],
            img_size=by_size(self.size),
            classes=self.classes.classes,
            train_pipeline=[*load, *steps],
            test_pipeline=[*load, *fit(self.size, self.found), pack],
            train_dataloader=dict(**loader, dataset=dict(dataset=images("train"))),
            val_dataloader=dict(**loader, dataset=images("val")),
            test_dataloader=Expression("val_dataloader"),
            val_evaluator=dict(type="Accuracy", topk=(1,)),
            test_evaluator=Expression("val_evaluator"),
            model=model,
            **schedule(cfg, self.epochs, self.wanted),
            randomness=dict(seed=self.given["seed"]),
            default_hooks=dict(
                logger=dict(interval=min(50, max(1, self.count // batch))),
                checkpoint=dict(
                    interval=max(1, self.epochs // 10), max_keep_ckpts=_KEPT
                ),
            ),
        )

    def _said(self, values: dict[str, Any], trial: Trial) -> list[str]:
        """What was chosen, in lines."""
        resized = ""
        if self.size != self.start.size:
            resized = f", position embeddings resized from {by(self.start.size)}"
        held = "" if trial.batch == self.wanted else f", {trial.batch} at a time"
        rate = values["optim_wrapper"]["optimizer"]["lr"]
        return [
            f"data: {self.classes}",
            f"model: {self.start.checkpoint}, {trial.parameters / 1e6:.1f} M "
            f"parameters, images of {by(self.size)} pixels{resized}",
            f"batch: {self.wanted}{held}, learning rate {rate:g} (the last layer's), "
            f"{self.workers} loading processes",
            f"epochs: {self.epochs}, {choose_warmup(self.epochs)} of them warm-up",
        ]


def _plain(value: Any) -> Any:
    """A part of a config as plain dicts."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return value


def _width(backbone: Any) -> int:
    """Channels of an encoder's features."""
    if stages := getattr(backbone, "stage_dims", None):  # Hiera
        return stages[-1]
    stages = getattr(backbone, "stages", None)  # Swin
    return backbone.embed_dims * (2 ** (len(stages) - 1) if stages is not None else 1)
