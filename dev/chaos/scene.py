"""What is trained: a tiny DeepMIM on noise, with a checkpoint of any size."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.models import DeepMIM

ROOT = Path(__file__).resolve().parents[2]

# Images of a step, over all processes; images and epochs of a run: 24 steps.
BATCH = 4
IMAGES = 33
EPOCHS = 3

_MODEL = dict(
    type="HeavyDeepMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor", mean=[128.0] * 3, std=[64.0] * 3
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.5),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
        img_size=16,
        patch_size=4,
        taps=(0,),
    ),
    neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)

_DATA = dict(
    num_workers=0,
    drop_last=True,
    timeout=20,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="UnlabelledImages",
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="TensorRandomResizedCrop", scale=16),
                dict(type="DrawFlip", prob=0.5),
                dict(type="PackPretrainInputs"),
            ],
        ),
    ),
)


@MODELS.register_module()
class HeavyDeepMIM(DeepMIM):
    """A DeepMIM with numbers that only make its checkpoints larger.

    Args:
        ballast: Megabytes of them.
        **kwargs: Of ``DeepMIM``.
    """

    def __init__(self, ballast: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # None are alike, so that no part of a file is as good as another.
        numbers = torch.arange(int(ballast * 250_000), dtype=torch.int32)
        self.register_buffer("ballast", numbers)


@dataclass(frozen=True)
class Scene:
    """A folder with images, in which runs are trained.

    Args:
        folder: The folder.
        images: Folder of the images.
        changes: Values that replace those of the config, by dotted key.
    """

    folder: Path
    images: Path
    changes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, images: int = IMAGES) -> Scene:
        """Generate the images.

        Args:
            folder: An empty folder.
            images: How many.
        """
        write_images(folder / "images", images)
        return cls(folder, folder / "images")

    def config(self, name: str, processes: int = 1, **changes: Any) -> Path:
        """Write the config of a run.

        Args:
            name: Of the file, without its ending.
            processes: By how many processes a step's images are divided.
            **changes: Further values, which replace those of the scene.
        """
        cfg = Config.fromfile(ROOT / "configs/_base_/default_runtime.py")
        cfg.merge_from_dict(
            dict(
                custom_imports=dict(imports=["mim_plugins", "dev.chaos.scene"]),
                model=_MODEL,
                train_dataloader=_DATA,
                train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
                # Step sizes that follow from gradients, also from tiny ones, as AdamW's
                # would not: rounding would be enlarged.
                optim_wrapper=dict(
                    type="OptimWrapper",
                    optimizer=dict(type="SGD", lr=0.05, momentum=0.9),
                ),
                param_scheduler=[
                    dict(
                        type="CosineAnnealingLR",
                        by_epoch=True,
                        convert_to_iter_based=True,
                    )
                ],
                default_hooks=dict(logger=dict(interval=1)),
                log_processor=dict(window_size=1),
                auto_scale_lr=dict(base_batch_size=BATCH),
            )
        )
        data = cfg.train_dataloader
        data.dataset.dataset.data_root = str(self.images)
        data.batch_size = BATCH // processes
        cfg.merge_from_dict(self.changes | changes)
        path = self.folder / f"{name}.py"
        cfg.dump(path)
        return path


def write_images(folder: Path, count: int, size: int = 20) -> list[Path]:
    """Write images of noise.

    Args:
        folder: Where; created if need be.
        count: How many.
        size: Their height and width in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    paths = [folder / f"{index:04}.png" for index in range(count)]
    for path in paths:
        cv2.imwrite(str(path), draw.integers(0, 255, (size, size, 3), dtype=np.uint8))
    return paths


def final_weights(work_dir: Path) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint, and its averaged ones.

    Args:
        work_dir: Folder of the run.

    Raises:
        FileNotFoundError: If it has left none.
    """
    pointer = work_dir / "last_checkpoint"
    saved = torch.load(pointer.read_text().strip(), weights_only=False)
    parts = ("state_dict", "ema_state_dict")
    return {f"{x}.{k}": v for x in parts for k, v in saved.get(x, {}).items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of what is not the same, bit for bit; ballast may have another size."""
    return sorted(
        key
        for key in one.keys() | other.keys()
        if not key.endswith("ballast")
        and not (key in one and key in other and torch.equal(one[key], other[key]))
    )


def losses(work_dir: Path) -> list[float]:
    """The losses that the last attempt at a run has logged, by iteration.

    Args:
        work_dir: Folder of the run.
    """
    newest = max(work_dir.glob("*/vis_data/scalars.json"))
    lines = map(json.loads, newest.read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]
