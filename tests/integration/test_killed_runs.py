"""Runs that are killed, and go on: the weights of the uninterrupted run, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from samples import ROOT

CONFIG = """
_base_ = ["{root}/configs/_base_/default_runtime.py"]
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VisionTransformer",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=8),
        img_size=16,
        patch_size=8,
        drop_rate=0.2,
    ),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=16),
    data_preprocessor=dict(num_classes=3, mean=[127.0] * 3, std=[60.0] * 3),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="EpochSampler", shuffle=True),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="CustomDataset",
            data_root="images",
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="TensorRandomResizedCrop", scale=16),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackInputs"),
            ],
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(by_epoch=True, max_epochs=3)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2))
param_scheduler = [
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type="StepEMAHook")]
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=3),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config, and 17 images in three classes."""
    rng = np.random.default_rng(0)
    for index in range(17):
        path = tmp_path / "images" / f"class_{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    (tmp_path / "tiny.py").write_text(CONFIG.format(root=ROOT))
    return tmp_path


def start(folder: Path, processes: int, *arguments: str) -> subprocess.Popen:
    tools = ROOT / "tools"
    command = [sys.executable, str(tools / "train.py"), "tiny.py", *arguments]
    if processes > 1:
        script = str(tools / "dist_train.sh")
        command = ["bash", script, "tiny.py", str(processes), *arguments]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PORT": str(30000 + os.getpid() % 20000),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=(folder / "output.txt").open("a"),
        stderr=subprocess.STDOUT,
        # A group of its own, which is killed together.
        start_new_session=True,
    )


def finish(folder: Path, processes: int, *arguments: str) -> None:
    assert start(folder, processes, *arguments).wait(timeout=120) == 0, (
        folder / "output.txt"
    ).read_text()


def wait_for(folder: Path, name: str) -> None:
    """Wait for a checkpoint."""
    limit = time.monotonic() + 90
    while not list(folder.glob(name)):
        assert time.monotonic() < limit, (folder / "output.txt").read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_run__goes_on_and_ends_with_the_same_weights(
    folder: Path, processes: int
) -> None:
    finish(folder, processes, "--work-dir", "whole")
    process = start(folder, processes, "--work-dir", "killed")
    wait_for(folder / "killed", "iter_5.pth")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finish(folder, processes, "--work-dir", "killed", "--resume")
    # 17 images are two batches of 8: 8 iterations of 2 images, or 4 of 4.
    last = "iter_24.pth" if processes == 1 else "iter_12.pth"
    whole, killed = (
        torch.load(folder / name / last, weights_only=False)
        for name in ("whole", "killed")
    )
    assert whole["meta"]["iter"] == killed["meta"]["iter"]
    for part in ("state_dict", "ema_state_dict"):
        for key, value in whole[part].items():
            assert torch.equal(killed[part][key], value), key
