"""Tests of the rehearsal of a run."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from samples import ROOT

from mim_plugins.engine import InputError, train
from mim_plugins.models import ReconstructionHead

CONFIG = """
_base_ = ["{root}/configs/_base_/default_runtime.py"]
model = dict(
    type="DeepMIM",
    data_preprocessor=dict(
        type="MIMDataPreprocessor", mean=[127.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
    ),
    mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
    backbone=dict(
        type="MIMVisionTransformer",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=16,
        patch_size=4,
        taps=(0,),
    ),
    neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
    target_generator=dict(type="PixelTarget", norm_pix=True),
    head=dict(type="ReconstructionHead", criterion="L2"),
)
pipeline = [
    dict(type="LoadImageFromFile", color_type="color_ignore_orientation"),
    dict(type="TensorRandomResizedCrop", scale=16, crop_ratio_range=(0.2, 1.0)),
    dict(type="DrawFlip", prob=0.5),
    dict(type="PackPretrainInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(type="UnlabelledImages", data_root="images", pipeline=pipeline),
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.008))
param_scheduler = [
    dict(
        type="LinearLR", start_factor=0.5, end=2, by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR", begin=2, by_epoch=True, convert_to_iter_based=True
    ),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config and 17 images, in the current folder."""
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    for index in range(17):
        picture = draw.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), picture)
    name = f"{tmp_path.name}.py"
    (tmp_path / name).write_text(CONFIG.format(root=ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rehearse(folder: Path, **options) -> None:
    train(f"{folder.name}.py", dry_run=True, precision="fp32", **options)


def test_dry_run__prints_the_plan_and_leaves_nothing(folder, capfd) -> None:
    before = set(folder.rglob("*"))
    rehearse(folder)
    assert set(folder.rglob("*")) == before
    plan = capfd.readouterr().out
    assert "4 per GPU × 1 × 2 accumulated = 8, as the recipe" in plan
    assert "data: 17 images; 16 were read" in plan
    # Measured on two images, and said so.
    assert re.search(r"step: 2 images in \d+.\d\d s on cpu, from which the 4", plan)
    # Five iterations of four: two steps of eight images and a smaller one.
    assert "run: 10 epochs of 3 steps, 30 steps of 8 images: 240 images seen" in plan
    line = re.search(r"learning rate: (.* at epoch 0.*)", plan)[1]
    rates = {
        int(epoch): float(rate)
        for rate, epoch in re.findall(r"([\d.e+-]+) at epoch (\d+)", line)
    }
    assert list(rates) == [0, 2, 5, 8, 10]
    assert rates[0] == pytest.approx(0.004) and rates[2] == pytest.approx(0.008)
    assert rates[10] < 1e-4 < rates[8] < rates[5] < rates[2]
    assert re.search(r"time: .* for 50 iterations", plan)
    assert re.search(r"memory: \d+.\d GB at most of this process", plan)
    assert re.search(r"checkpoint: .* 4 of them need .* GB are free", plan)


def test_dry_run__leaves_a_work_dir_that_was_there_as_it_was(folder, capfd) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    rehearse(folder, work_dir="out")
    assert [x.name for x in (folder / "out").iterdir()] == ["notes.txt"]


def test_dry_run__refuses_a_disk_without_space(folder, capfd, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 999, 1))
    with pytest.raises(InputError, match="make space, set another --work-dir"):
        rehearse(folder)
    assert not (folder / "work_dirs").exists()


def test_dry_run__names_the_part_that_fails_in_the_first_step(
    folder, monkeypatch
) -> None:
    def fail(*args, **kwargs):
        torch.zeros(2, 3) @ torch.zeros(2, 3)

    monkeypatch.setattr(ReconstructionHead, "loss", fail)
    message = r"^model \(DeepMIM\): mat1 and mat2 shapes cannot be multiplied"
    with pytest.raises(InputError, match=message) as error:
        rehearse(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "work_dirs").exists()


def test_dry_run__refuses_sharded_runs(folder) -> None:
    options = {"runner_type": "FlexibleRunner"}
    with pytest.raises(InputError, match="--dry-run is for runs in which every"):
        rehearse(folder, cfg_options=options)
