"""The workflow at a small scale: pre-train, stop, resume, fine-tune, look at it."""

import json
import logging
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from samples import ROOT, clip_state_dict, data_folder

from mim_plugins.engine import train

PRETRAIN = ROOT / "configs/deepmim/mae_vitb_800e.py"
CLIP = ROOT / "configs/deepmim/mae-clip_vitb_300e.py"
FINETUNE = ROOT / "configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py"
LINEAR = ROOT / "configs/deepmim/benchmarks/mae_vitb_linear-90e_in1k.py"
ARCH = dict(
    _delete_=True, embed_dims=24, num_layers=6, num_heads=2, feedforward_channels=48
)
# The configs as they are, at a width and size that take seconds.
SMALL = {
    "model.backbone.arch": ARCH,
    "model.backbone.img_size": 32,
    "model.backbone.patch_size": 8,
    "model.backbone.taps": (1, 3),
    "model.neck": dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
    "train_pipeline.1.scale": 32,
    "train_dataloader.dataset.dataset.pipeline.1.scale": 32,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 1,
    "param_scheduler.0.end": 1,
    "param_scheduler.1.begin": 1,
    "param_scheduler.1.end": 2,
    "param_scheduler.1.T_max": 1,
    "optim_wrapper.optimizer.lr": 1e-3,
    "default_hooks.logger.interval": 1,
    "default_hooks.checkpoint.interval": 1,
}


@pytest.fixture(autouse=True)
def fresh_loggers():
    """Each run gets its own log file; mmengine keeps loggers by name."""
    yield
    MMLogger.get_instance("tests", log_level="WARNING")
    logging.getLogger("mmengine").handlers.clear()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """ImageNet's layout with two classes, 12 images to train on and 4 to test."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    (root / "meta").mkdir()
    for part, count in (("train", 6), ("val", 2)):
        lines = [f"n{c:08d}/{i}.jpg {c}" for c in range(2) for i in range(count)]
        (root / "meta" / f"{part}.txt").write_text("\n".join(lines))
        for label in range(2):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for index in range(count):
                # Dark and bright ones, which any encoder separates.
                low = 150 * label
                image = draw.integers(low, low + 100, (5, 7, 3), dtype=np.uint8)
                image = cv2.resize(image, (70, 50), interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(folder / f"{index}.jpg"), image)
    return root


def run(config, images, work_dir, options, **kwargs):
    return train(
        config,
        work_dir=str(work_dir),
        precision="fp32",
        auto_scale_lr=False,
        cfg_options={"data_root": str(images), **options},
        **kwargs,
    )


def scalars(work_dir: Path) -> list[dict]:
    """What the runs below a work dir logged, in order."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def test_pretrain__stop_and_resume_equals_one_run(images, tmp_path):
    whole = run(
        PRETRAIN, images, tmp_path / "whole", SMALL | {"train_cfg.max_epochs": 2}
    )
    wanted = whole.model.state_dict()

    # Stopped after the first epoch: the schedule must still be that of two.
    time.sleep(1)  # mmengine names a run's log folder by the second it starts in
    run(PRETRAIN, images, tmp_path / "part", SMALL | {"train_cfg.max_epochs": 1})
    time.sleep(1)
    resumed = run(
        PRETRAIN,
        images,
        tmp_path / "part",
        SMALL | {"train_cfg.max_epochs": 2},
        resume="auto",
    )
    assert resumed.iter == whole.iter == 6
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, wanted[key]), key

    logged = [line for line in scalars(tmp_path / "whole") if "loss" in line]
    assert {"loss_0", "loss_1", "loss_2", "images_per_s", "lr"} <= set(logged[0])
    resumed_log = [line for line in scalars(tmp_path / "part") if "loss" in line]
    assert [x["loss"] for x in resumed_log] == [x["loss"] for x in logged]


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory) -> str:
    """A tiny CLIP image tower of the student's grid, 4 x 4 patches."""
    path = tmp_path_factory.mktemp("clip") / "clip.pth"
    torch.save(clip_state_dict(patch=8, size=32, out=20), path)
    return str(path)


def test_clip__checkpoints_hold_no_teacher_and_resuming_rebuilds_it(
    images, clip_file, tmp_path
):
    options = SMALL | {"model.target_generator.checkpoint": clip_file}
    two = options | {"train_cfg.max_epochs": 2}
    whole = run(CLIP, images, tmp_path / "whole", two)
    saved = torch.load(tmp_path / "whole/epoch_1.pth", weights_only=False)
    assert {key.split(".")[0] for key in saved["state_dict"]} == {"backbone", "neck"}
    trained = {id(p) for p in whole.model.parameters() if p.requires_grad}
    groups = whole.optim_wrapper.optimizer.param_groups
    assert {id(p) for group in groups for p in group["params"]} == trained

    run(CLIP, images, tmp_path / "part", options | {"train_cfg.max_epochs": 1})
    resumed = run(CLIP, images, tmp_path / "part", two, resume="auto")
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[key]), key
    logged = [line for line in scalars(tmp_path / "whole") if "loss" in line]
    # 2 - 2 cos of three levels, about 2 each at the start.
    assert 4 < logged[0]["loss"] < 8 and logged[-1]["loss"] < logged[0]["loss"]


def test_mixed_targets__hog_pixels_and_clip_train_from_a_config(
    images, clip_file, tmp_path
):
    config = tmp_path / "mixed.py"
    config.write_text(
        f"""
_base_ = {str(PRETRAIN)!r}
model = dict(
    target_generator=[
        dict(type="HOGTarget", cell_size=4),
        dict(type="PixelTarget", norm_pix=True),
        dict(type="CLIPTarget", checkpoint={clip_file!r}),
    ],
    head=dict(criterion=["L2", "smooth_l1", "cosine"], weights=[1, 1, 0.5]),
)
"""
    )
    runner = run(config, images, tmp_path, SMALL | {"train_cfg.max_epochs": 2})
    widths = [d.decoder_pred.out_features for d in runner.model.neck.decoders]
    assert widths == [2 * 2 * 3 * 9, 8 * 8 * 3, 20]
    losses = [line for line in scalars(tmp_path) if "loss" in line]
    assert losses[-1]["loss"] < losses[0]["loss"]
    # Pixels of one level, histograms and features of the others next to their targets.
    (picture,) = tmp_path.glob("reconstructions/*.png")
    assert cv2.imread(str(picture)).shape[1] == 8 * (128 + 4) + 4


def test_pretrain__knn_and_reconstructions(images, tmp_path):
    knn = {
        f"{part}_dataloader": dict(
            batch_size=4,
            dataset=dict(
                type="CustomDataset",
                data_root=str(images),
                data_prefix=prefix,
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="Resize", scale=32),
                    dict(type="PackInputs"),
                ],
            ),
        )
        for part, prefix in (("train", "train"), ("val", "val"))
    }
    hooks = [
        dict(type="ThroughputHook"),
        dict(type="ReconstructionHook", interval=1, num_images=3),
        dict(type="KNNHook", interval=1, k=3, **knn),
    ]
    options = SMALL | {"train_cfg.max_epochs": 1, "custom_hooks": hooks}
    runner = run(PRETRAIN, images, tmp_path, options)
    picture = cv2.imread(str(tmp_path / "reconstructions" / "epoch_001.png"))
    assert picture is not None and picture.std() > 10
    accuracy = [x["knn_top1"] for x in scalars(tmp_path) if "knn_top1" in x]
    assert accuracy == [100.0]
    assert list(Path(runner.work_dir).glob("*/vis_data/vis_image/reconstruction*"))
    assert runner.model.training


@pytest.mark.parametrize("config", [FINETUNE, LINEAR])
def test_pretrained__goes_on_into_mmpretrain(images, tmp_path, config):
    geometry = {
        "model.backbone.arch": ARCH,
        "model.backbone.img_size": 224,
        "model.backbone.patch_size": 56,
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 1,
        "train_cfg.max_epochs": 1,
    }
    crop = {"train_dataloader.dataset.dataset.pipeline.1.scale": 224}
    pretrained = run(PRETRAIN, images, tmp_path / "pre", SMALL | geometry | crop)
    options = geometry | {
        "model.backbone.init_cfg.checkpoint": str(tmp_path / "pre" / "epoch_1.pth"),
        "model.head.in_channels": 24,
        "model.head.num_classes": 2,
        "model.data_preprocessor.num_classes": 2,
        "val_dataloader.batch_size": 4,
        "val_dataloader.num_workers": 1,
        "val_evaluator.topk": 1,
        # Nothing moves, so what was loaded can be seen afterwards.
        "optim_wrapper.optimizer.lr": 0.0,
    }
    if config == LINEAR:
        options |= {"model.backbone.frozen_stages": 6, "model.neck.input_features": 24}
    runner = run(config, images, tmp_path / "tuned", options)
    tuned = {
        k: v for k, v in runner.model.state_dict().items() if k.startswith("backbone.")
    }
    encoder = pretrained.model.state_dict()
    fresh = set() if config == LINEAR else {"backbone.ln2.weight", "backbone.ln2.bias"}
    assert set(tuned) - set(encoder) == fresh
    for key in set(tuned) - fresh:
        assert torch.equal(tuned[key], encoder[key]), key
    assert any("accuracy/top1" in line for line in scalars(tmp_path / "tuned"))


def test_pretrain__on_photographs_the_loss_falls(tmp_path):
    photographs = data_folder("imagenet_sample")
    options = SMALL | {
        "model.backbone.img_size": 64,
        "train_dataloader.dataset.dataset.pipeline.1.scale": 64,
        "train_dataloader.batch_size": 20,
        "train_cfg.max_epochs": 2,
    }
    run(PRETRAIN, photographs, tmp_path, options)
    loss = [line["loss"] for line in scalars(tmp_path) if "loss" in line]
    assert len(loss) == 20 and sum(loss[-5:]) < 0.97 * sum(loss[:5])
