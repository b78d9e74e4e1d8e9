"""Every config of pre-training and classification takes a training and a test step.

At the widths of toys, on three pictures, and otherwise as the files say: depth, taps,
image size, pipelines, losses, optimiser, hooks. (Detection, segmentation and tracking
have tests of their own in addition to those of their data.)
"""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from samples import ROOT, stand_in_teachers

from mim_plugins.engine import train

CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.py")
    if not {"_base_", "detection", "segmentation", "tracking"} & {*path.parts}
    and not path.stem.startswith("tracker")
)
NARROW = dict(embed_dims=32, num_heads=4, feedforward_channels=32)
NARROW_STAGES = dict(embed_dims=8, num_heads=(1, 2, 2, 4))
DEPTHS = {
    "MIMSwinTransformer": {"base": (2, 2, 18, 2), "large": (2, 2, 18, 2)},
    "SwinTransformer": {"base": (2, 2, 18, 2), "large": (2, 2, 18, 2)},
    "SimMIMSwin": {"tiny": (2, 2, 6, 2)},
    "MIMHiera": {"base": (2, 3, 16, 3)},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """ImageNet's layout, one class: three images to train on and two to test."""
    root = tmp_path_factory.mktemp("few_images")
    draw = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        folder = root / part / "n00000000"
        folder.mkdir(parents=True)
        for index in range(count):
            picture = draw.integers(0, 255, (48, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{index}.jpg"), picture)
    return root


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config__takes_a_training_step_and_a_test_step(path, images, tmp_path):
    cfg = Config.fromfile(path)
    narrow(cfg.model)
    stand_in_teachers(cfg.model, tmp_path)
    few(cfg, images)
    # mmengine keeps visualizers by the config's name and the second a run begins in.
    few_steps = tmp_path / f"{path.parent.parent.name}_{path.name}"
    cfg.dump(few_steps)
    runner = train(few_steps, work_dir=str(tmp_path / "work"), precision="fp32")
    assert runner.iter == 1
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert np.isfinite(losses).all()
    model = runner.model
    if hasattr(model, "reconstruct"):
        data = next(iter(runner.train_dataloader))
        inputs = model.data_preprocessor(data)["inputs"]
        # As in a step of training, but in evaluation mode and on every patch.
        with torch.no_grad():
            levels = model.reconstruct(inputs)["levels"]
            features = model.patch_mean(inputs)
        assert torch.isfinite(features).all()
        assert all(x is None or x.shape == inputs.shape for x in levels)
    else:
        metrics = runner.test_loop.run() if runner.val_loop is None else last(runner)
        assert 0 <= metrics["accuracy/top1"] <= 100
    shutil.rmtree(tmp_path / "work")


def last(runner) -> dict[str, float]:
    """The metrics of the validation that follows the training step."""
    scalars = runner.message_hub.log_scalars
    return {
        name.removeprefix("val/"): buffer.data[0][-1]
        for name, buffer in scalars.items()
        if name.startswith("val/")
    }


def narrow(model: dict) -> None:
    """Makes a config's model narrow, in place, its teacher included."""
    backbone = model.backbone
    width = narrow_encoder(backbone)
    if "teacher" in model and model.teacher.type == "TimmClassifier":
        model.teacher.model_name = "regnetx_002"
    elif "teacher" in model:
        narrow_encoder(model.teacher)
    target = model.get("target_generator", {})
    if "teacher" in target:
        narrow(target.teacher)
    neck = model.get("neck") or {}
    if "embed_dims" in neck:
        neck.update(embed_dims=32, num_heads=4)
    if "input_features" in neck:
        neck.input_features = width
    if "in_channels" in neck:
        neck.in_channels = width
    if "in_channels" in model.get("head", {}):
        model.head.in_channels = width


def narrow_encoder(encoder: dict) -> int:
    """Makes an encoder narrow, in place; returns the width of what leaves it."""
    arch = encoder.arch
    stages = DEPTHS.get(encoder.type, {})
    depths = stages.get(arch) if isinstance(arch, str) else arch.get("depths")
    if depths is None:
        known = {"base": 12, "large": 24, "deit-small": 12}
        layers = known[arch] if isinstance(arch, str) else arch["num_layers"]
        encoder.arch = dict(NARROW, num_layers=layers)
        return NARROW["embed_dims"]
    encoder.arch = dict(NARROW_STAGES, depths=depths)
    if "Hiera" in encoder.type:
        encoder.arch["num_heads"] = 1
    return 8 * NARROW_STAGES["embed_dims"]


def few(cfg: Config, images: Path) -> None:
    """One training step on three pictures, then a test on two, without processes."""
    labelled = cfg.model.type in ("MIMImageClassifier", "DistilledClassifier")
    cfg.train_dataloader.update(batch_size=3)
    loaders = [cfg.get(f"{part}_dataloader") for part in ("train", "val", "test")]
    for loader, part in zip(loaders, ("train", "val", "test"), strict=True):
        if loader is None:
            continue
        loader.update(num_workers=0, persistent_workers=False)
        outer = loader.dataset
        inner = outer.dataset if "dataset" in outer else outer
        pipeline = inner.pipeline
        if pipeline[0]["type"] != "LoadImageFromFile":  # as data sets in memory
            pipeline = [dict(type="LoadImageFromFile"), *pipeline]
        inner.clear()
        inner.update(
            type="CustomDataset" if labelled else "UnlabelledImages",
            data_root=str(images),
            data_prefix=part,
            pipeline=pipeline,
        )
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = None
    cfg.model.backbone.pop("init_cfg", None)
    cfg.custom_hooks = [
        hook
        for hook in cfg.get("custom_hooks", [])
        if hook["type"] not in ("ReconstructionHook", "KNNHook")
    ]
