"""Tests of images of a validation that cannot be read."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset
from toy_run import make_runner

from mim_plugins.engine.hooks.periodic import PeriodicHook
from mim_plugins.engine.hooks.validation_images import CheckValidationHook


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four images of 8 pixels, dark and bright; one is broken."""
    for label in range(2):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for index in range(4):
            image = np.full((8, 8, 3), 40 + 150 * label + index, np.uint8)
            cv2.imwrite(str(tmp_path / "images" / str(label) / f"{index}.png"), image)
    (tmp_path / "images" / "1" / "2.png").write_bytes(b"not an image")
    return tmp_path


def dataset(folder: Path) -> dict:
    return dict(
        type="CustomDataset",
        data_root=str(folder / "images"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")],
    )


def test_validation__is_read_before_training(folder: Path) -> None:
    data: CustomDataset = DATASETS.build(dict(dataset(folder), _scope_="mmpretrain"))
    runner = SimpleNamespace(rank=0, world_size=1)
    runner.val_loop = SimpleNamespace(
        dataloader=SimpleNamespace(dataset=data, num_workers=2)
    )
    with pytest.raises(ValueError, match="1 of the validation images") as error:
        CheckValidationHook().before_train(runner)
    assert "images/1/2.png (" in str(error.value)
    (folder / "images" / "1" / "2.png").write_bytes(
        (folder / "images" / "1" / "3.png").read_bytes()
    )
    CheckValidationHook().before_train(runner)
    runner.val_loop = None
    CheckValidationHook().before_train(runner)


def test_knn__leaves_it_out_and_counts_it(folder: Path) -> None:
    part = dict(batch_size=3, dataset=dataset(folder))
    hook = dict(type="KNNHook", train_dataloader=part, val_dataloader=part, interval=1)
    runner = make_runner(
        folder,
        custom_hooks=[hook | dict(k=3)],
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )
    runner.train()
    log = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "% of 7 images (k=3, 7 images to compare with, 2 unreadable ones left" in log
    assert "images/1/2.png" in log


@pytest.mark.parametrize("by_epoch", [True, False])
def test_evaluation_that_fails__comes_after_the_checkpoint(
    tmp_path: Path, by_epoch: bool
) -> None:
    class Failing(PeriodicHook):
        def evaluate(self, runner, model, step: int) -> None:
            raise OSError("a disk is gone")

    checkpoint = dict(type="CheckpointHook", interval=1, by_epoch=by_epoch)
    runner = make_runner(tmp_path, default_hooks=dict(checkpoint=checkpoint))
    runner.register_hook(Failing(interval=1, by_epoch=by_epoch))
    with pytest.raises(OSError, match="a disk is gone"):
        runner.train()
    name = "epoch_1.pth" if by_epoch else "iter_1.pth"
    saved = torch.load(tmp_path / "work" / name, weights_only=False)
    assert saved["meta"]["iter"] == (3 if by_epoch else 1)
