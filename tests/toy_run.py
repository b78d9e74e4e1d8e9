"""A run of a second: tiny images, a tiny DeepMIM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

import mim_plugins  # noqa: F401  (registers everything)


@DATASETS.register_module(force=True)
class ToyImages(Dataset):
    """Labelled 8x8 images whose brightness is their class."""

    def __init__(self, count: int = 12, classes: int = 3, labelled: bool = False):
        self.count, self.classes, self.labelled = count, classes, labelled
        self.metainfo = {"classes": [str(i) for i in range(classes)]}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = index % self.classes
        generator = torch.Generator().manual_seed(index)
        noise = torch.randint(0, 20, (3, 8, 8), generator=generator)
        image = (noise + 100 * label).to(torch.uint8)
        if self.labelled:
            return dict(inputs=image, data_samples=DataSample().set_gt_label(label))
        return dict(inputs=image, data_samples=dict(seed=index, sample_idx=index))


_runs = 0

TINY_MODEL = dict(
    type="DeepMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor", mean=[128.0] * 3, std=[64.0] * 3
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.5),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
        img_size=8,
        patch_size=4,
        taps=(0,),
    ),
    neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)


def loader(batch_size: int = 4, **dataset: Any) -> dict[str, Any]:
    """Config of a loader of toy images."""
    return dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type="ToyImages", **dataset),
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
    )


def make_runner(folder: Path, **changes: Any) -> Runner:
    """Build a runner of the toy run; keyword arguments replace parts of its config."""
    global _runs
    _runs += 1
    config = dict(
        model=TINY_MODEL,
        work_dir=str(folder / "work"),
        # Runners of one process share loggers and message hubs of one name.
        experiment_name=f"toy_{_runs}",
        default_scope="mmpretrain",
        train_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)),
        default_hooks=dict(
            runtime_info=dict(type="DeferredRuntimeInfoHook"),
            logger=dict(type="LoggerHook", interval=2),
            checkpoint=dict(type="CheckpointHook", interval=1),
        ),
        randomness=dict(seed=0),
    )
    config.update(changes)
    return Runner.from_cfg(Config(config))
