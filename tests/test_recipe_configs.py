"""Values of the recipes that the official code has, one by one."""

import re
from functools import cache

import pytest
from mmengine.config import Config
from samples import ROOT

FOLDER = ROOT / "configs"


@cache
def read(path: str) -> Config:
    return Config.fromfile(FOLDER / path)


def steps(path: str) -> dict[str, dict]:
    """The training pipeline of a config, by the names of its steps."""
    dataset = read(path).train_dataloader.dataset
    return {step.type: step for step in dataset.get("dataset", dataset).pipeline}


@pytest.mark.parametrize(
    ("path", "epochs"),
    [
        ("distilled/benchmarks/mae_vitt_finetune-100e_in1k.py", 100),
        ("distilled/benchmarks/d2-mae_vitt_finetune-distilled-300e_in1k.py", 300),
    ],
)
def test_lightweight__maes_style_regularises_as_mae(path, epochs):
    cfg = read(path)
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [
        ("Mixup", 0.8),
        ("CutMix", 1.0),
    ]
    assert cfg.model.head.loss.type == "LabelSmoothLoss"
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert steps(path)["RandAugment"].magnitude_level == 9
    assert steps(path)["RandomErasing"].erase_prob == 0.25
    assert cfg.optim_wrapper.optimizer.lr == 1e-3 * 1024 / 256
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.85
    assert cfg.train_cfg.max_epochs == epochs
    arch = cfg.model.backbone.arch
    assert (arch.embed_dims, arch.num_heads) == (192, 12)
    assert cfg.model.head.in_channels == 192


def test_lightweight__the_improved_recipe_regularises_less():
    path = "distilled/benchmarks/d2-mae_vitt_finetune-300e_in1k.py"
    cfg = read(path)
    assert cfg.model.backbone.get("drop_path_rate", 0) == 0
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [("Mixup", 0.2)]
    assert cfg.model.head.loss == dict(type="CrossEntropyLoss", use_soft=True)
    assert steps(path)["RandAugment"].magnitude_level == 10
    assert "RandomErasing" not in steps(path)


@pytest.mark.parametrize(
    ("path", "crops", "interpolation"),
    [
        ("distilled/simmim_swint_400e.py", (0.67, 1.0), "random"),
        ("distilled/d2-simmim_swint_400e.py", (0.67, 1.0), "random"),
        ("distilled/mae_vitt_400e.py", (0.08, 1.0), "random"),
        ("distilled/mae-lite_hierat_400e.py", (0.08, 1.0), "random"),
        ("mae/vitb_1600e.py", (0.2, 1.0), "bicubic"),
        ("localmim/swinb_hog_400e.py", (0.2, 1.0), "bicubic"),
        ("mirl/vits54_800e.py", (0.2, 1.0), "bicubic"),
    ],
)
def test_pretraining__crops_are_the_official_ones(path, crops, interpolation):
    crop = steps(path)["TensorRandomResizedCrop"]
    assert tuple(crop.crop_ratio_range) == crops
    assert crop.get("interpolation", "bicubic") == interpolation


@pytest.mark.parametrize(
    "path",
    [
        str(path.relative_to(FOLDER))
        for path in sorted(FOLDER.glob("*/detection/*.py"))
        if "_base_" not in path.parts and "demo" not in path.parts
    ],
)
def test_detection__hands_on_1000_proposals(path):
    """In training and test, in Cascade too (detectron2's ViTDet)."""
    model = read(path).model
    assert model.train_cfg.rpn_proposal.max_per_img == 1000
    assert model.test_cfg.rpn.max_per_img == 1000


def test_headline_segmentation__starts_from_a_file_that_is_always_kept():
    for name in ("rpe", "rpe-ms"):
        cfg = read(f"distilled/segmentation/d2-mae_vitt_semantic-fpn-{name}_ade20k.py")
        assert re.fullmatch(
            "work_dirs/distilled/benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k/"
            r"epoch_1000\.pth",
            cfg.pretrained,
        )
