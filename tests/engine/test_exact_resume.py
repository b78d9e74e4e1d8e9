"""Going on at any iteration gives the weights of the uninterrupted run, bit for bit."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from samples import ROOT
from torch.utils.data import DataLoader, RandomSampler

from mim_plugins.engine import train
from mim_plugins.engine.hooks import AtomicCheckpointHook
from mim_plugins.engine.resuming.resumable import make_resumable, save_safely
from mim_plugins.engine.running.loops import order_repeats

_runs = 0


def config(**changes: Any) -> Config:
    """A tiny classifier with dropout and mixed images, of the package's data steps."""
    cfg = Config.fromfile(ROOT / "configs/_base_/default_runtime.py")
    cfg.merge_from_dict(
        dict(
            model=dict(
                type="ImageClassifier",
                backbone=dict(
                    type="VisionTransformer",
                    arch=dict(
                        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=8
                    ),
                    img_size=16,
                    patch_size=8,
                    drop_rate=0.2,
                    drop_path_rate=0.2,
                ),
                head=dict(
                    type="VisionTransformerClsHead", num_classes=3, in_channels=16
                ),
                data_preprocessor=dict(
                    num_classes=3, mean=[127.0] * 3, std=[60.0] * 3, to_rgb=True
                ),
                train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8)]),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
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
            ),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(
                type="OptimWrapper",
                optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.05),
            ),
            param_scheduler=[
                dict(
                    type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True
                )
            ],
            custom_hooks=[
                dict(
                    type="EMAHook",
                    ema_type="ExponentialMovingAverage",
                    momentum=0.1,
                )
            ],
            default_hooks=dict(
                logger=dict(interval=1),
                checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=-1),
            ),
        )
    )
    cfg.merge_from_dict(deepcopy(changes))
    return cfg


def by_iteration(sampler: str = "EndlessSampler") -> dict[str, Any]:
    return dict(
        train_cfg=dict(
            _delete_=True, type="IterBasedTrainLoop", max_iters=12, val_interval=99
        ),
        param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False)],
        **{"train_dataloader.sampler.type": sampler},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine images in three classes: four batches of two an epoch."""
    rng = np.random.default_rng(0)
    for index in range(9):
        path = tmp_path / "images" / f"class_{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(cfg: Config, work_dir: str, resume: str | None = None) -> dict[str, Any]:
    """Train in this process, and return the last checkpoint."""
    global _runs
    _runs += 1
    cfg.experiment_name = f"exact_{_runs}"
    cfg.dump("config.py")
    runner = train("config.py", work_dir=work_dir, resume=resume)
    # The schedule, the averages and the log's history are part of the state.
    return torch.load(Path(work_dir, f"iter_{runner.iter}.pth"), weights_only=False)


def same(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            same(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, value in enumerate(one):
            same(value, other[index], f"{where}.{index}")
    else:
        assert one == other, where


WORKERS = {
    "train_dataloader.num_workers": 2,
    "train_dataloader.persistent_workers": True,
}
# Of four iterations an epoch, three make a step.
ACCUMULATED = {"auto_scale_lr": dict(base_batch_size=6)}
PARTS = ("state_dict", "ema_state_dict", "optimizer", "param_schedulers")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "train_dataloader.num_workers": 2,
            "train_dataloader.persistent_workers": True,
        },
        ACCUMULATED,
        ACCUMULATED | {"train_dataloader.drop_last": False},
        by_iteration(),
        by_iteration() | WORKERS,
        by_iteration("EpochSampler"),
        by_iteration() | ACCUMULATED,
        # A schedule that counts iterations, of which three make a step.
        by_iteration() | {"optim_wrapper.accumulative_counts": 3, "custom_hooks": []},
    ],
    ids=[
        "epochs",
        "workers",
        "accumulated",
        "smaller-last-step",
        "iterations",
        "iterations-workers",
        "iterations-by-epochs",
        "iterations-accumulated",
        "iterations-accumulated-by-config",
    ],
)
def test_resume__from_any_iteration_is_the_uninterrupted_run(
    folder: Path, changes: dict[str, Any]
) -> None:
    # A checkpoint in every iteration, whatever is accumulated.
    whole = run(config(**changes), "whole")
    last = whole["meta"]["iter"]
    saved = sorted(folder.glob("whole/iter_*.pth"), key=lambda x: int(x.stem[5:]))
    assert len(saved) >= 10
    for path in (saved[1], saved[6]):
        resumed = run(config(**changes), f"from_{path.stem}", str(path))
        assert resumed["meta"]["iter"] == last
        for part in PARTS:
            same(resumed.get(part), whole.get(part), f"{path.stem} {part}")


def test_checkpoint_between_two_steps__is_of_the_last_step(folder: Path) -> None:
    run(config(**ACCUMULATED), "whole")
    iterations = [
        torch.load(f"whole/iter_{n}.pth", weights_only=False)["meta"]["iter"]
        for n in range(1, 13)
    ]
    assert iterations == [0, 0, 3, 3, 4, 4, 7, 7, 8, 8, 11, 11]


def test_log__goes_on_inside_an_epoch(folder: Path) -> None:
    run(config(), "whole")
    run(config(), "rest", "whole/iter_6.pth")
    log = next(folder.glob("rest/*/*.log")).read_text()
    assert "Epoch(train) [2][3/4]" in log and "Epoch(train) [2][1/4]" not in log


def test_plain_data_sets__are_as_exact(folder: Path) -> None:
    inner = config().train_dataloader.dataset.dataset
    changes = WORKERS | {
        "train_dataloader.dataset": dict(_delete_=True, **inner),
        "train_dataloader.sampler": dict(type="DefaultSampler", shuffle=True),
    }
    whole = run(config(**changes), "whole")
    resumed = run(config(**changes), "rest", "whole/iter_6.pth")
    same(resumed["state_dict"], whole["state_dict"])


def test_images_drawn_by_workers__are_said_to_differ(folder: Path) -> None:
    inner = config().train_dataloader.dataset.dataset
    mixed = dict(type="KFoldDataset", dataset=inner, num_splits=2)
    changes = {
        "train_dataloader.dataset": dict(_delete_=True, **mixed),
        "train_dataloader.sampler": dict(type="DefaultSampler", shuffle=True),
        "train_dataloader.num_workers": 1,
        "train_cfg.max_epochs": 2,
    }
    run(config(**changes), "whole")
    run(config(**changes), "rest", "whole/iter_1.pth")
    log = next(folder.glob("rest/*/*.log")).read_text()
    assert "their crops differ from those of an uninterrupted run" in log


def test_order_repeats__for_samplers_that_follow_the_epoch() -> None:
    data = list(range(8))
    assert order_repeats(DataLoader(data, 2, sampler=DefaultSampler(data)))
    assert not order_repeats(DataLoader(data, 2, sampler=RandomSampler(data)))


@pytest.mark.parametrize(
    ("train_cfg", "loop"),
    [
        (dict(by_epoch=True), "ResumableEpochLoop"),
        (dict(by_epoch=False), "ResumableIterLoop"),
        (dict(type="EpochBasedTrainLoop"), "ResumableEpochLoop"),
        (dict(type="MyLoop"), "MyLoop"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("CustomDataset", "DefaultSampler", "EpochSampler"),
        ("CustomDataset", "InfiniteSampler", "EndlessSampler"),
        ("CustomDataset", "RepeatAugSampler", None),
        # It is no data set of mmengine's kind.
        ("KFoldDataset", "DefaultSampler", None),
        ("Unknown", "DefaultSampler", None),
    ],
)
def test_make_resumable__replaces_what_it_extends(
    train_cfg: dict, loop: str, kind: str, before: str, after: str | None
) -> None:
    loader = dict(sampler=dict(type=before), dataset=dict(type=kind))
    cfg = Config(
        dict(train_cfg=train_cfg, train_dataloader=loader, default_scope="mmpretrain")
    )
    make_resumable(cfg)
    assert cfg.train_cfg == dict(type=loop)
    data = cfg.train_dataloader
    assert data.sampler.type == (after or before)
    assert data.dataset.type == ("SeededDataset" if after else kind)


class UsersHook(CheckpointHook):
    """It does something else on purpose."""


class UsersSafeHook(AtomicCheckpointHook):
    """As well."""


@pytest.mark.parametrize("kind", ["CheckpointHook", "mmengine.CheckpointHook", None])
def test_save_safely__replaces_the_hook_of_mmengine(kind: str | None) -> None:
    cfg = Config(dict(default_scope="mmpretrain"))
    if kind is not None:
        cfg.default_hooks = dict(checkpoint=dict(type=kind, interval=5, out_dir="x"))
    (note,) = save_safely(cfg)
    assert "CheckpointHook is replaced by AtomicCheckpointHook" in note.message
    expected = dict(interval=1) if kind is None else dict(interval=5, out_dir="x")
    assert cfg.default_hooks.checkpoint == dict(type="AtomicCheckpointHook", **expected)


def test_save_safely__leaves_hooks_of_users_and_says_what_is_lost() -> None:
    hooks = [dict(type=UsersSafeHook), dict(type=UsersHook), dict(type="EMAHook")]
    cfg = Config(dict(default_hooks=dict(checkpoint=None), custom_hooks=hooks))
    (note,) = save_safely(cfg)
    assert note.level == logging.WARNING
    assert "UsersHook is a CheckpointHook of its own and stays" in note.message
    assert [hook["type"] for hook in cfg.custom_hooks] == [
        UsersSafeHook,
        UsersHook,
        "EMAHook",
    ]
