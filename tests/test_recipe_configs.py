"""Values of the recipes that the official code has, one by one."""

import json
import re
from functools import cache

import pytest
from mmengine.config import Config
from mmpretrain.registry import DATASETS
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


@pytest.mark.parametrize(
    "path",
    [
        "mae/benchmarks/vitl_finetune-50e_in1k.py",
        "deepmim/benchmarks/mae_vitl_finetune-50e_in1k.py",
    ],
)
def test_vitl__is_fine_tuned_as_on_maes_page(path):
    cfg = read(path)
    assert cfg.train_cfg.max_epochs == 50
    assert cfg.optim_wrapper.optimizer.lr == 1e-3 * 1024 / 256
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.75
    assert cfg.model.backbone.drop_path_rate == 0.2
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == 5
    assert cosine.eta_min_ratio * cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "path",
    [
        "mae/benchmarks/vitb_finetune-100e_in1k.py",
        "deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py",
        "deepmim/benchmarks/mae_vits_finetune-100e_in1k.py",
    ],
)
def test_vitb__is_fine_tuned_as_on_maes_page(path):
    cfg = read(path)
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.optim_wrapper.optimizer.lr == 5e-4 * 1024 / 256
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.65
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert steps(path)["RandomErasing"].erase_prob == 0.25


def test_localmim__on_further_encoders_has_the_recipe_of_the_nearest():
    for further, nearest in (
        ("vits_hog_1600e", "vitb_hog_1600e"),
        ("swinb-w14_hog_400e", "swinb_hog_400e"),
    ):
        for folder, ending in (("", ""), ("benchmarks/", "_finetune-100e_in1k")):
            ours = read(f"localmim/{folder}{further}{ending}.py")
            theirs = read(f"localmim/{folder}{nearest}{ending}.py")
            for part in ("optim_wrapper", "param_scheduler", "train_cfg"):
                assert ours[part] == theirs[part], part
            assert ours.auto_scale_lr == theirs.auto_scale_lr
    assert read("localmim/vits_hog_1600e.py").model.backbone.arch == "deit-small"
    assert read("localmim/swinb-w14_hog_400e.py").model.backbone.window_size == 14


@pytest.mark.parametrize(
    ("stem", "epochs", "width"),
    [
        ("vitt_scratch-300e", 300, 192),
        ("vits_scratch-300e", 300, 384),
        ("vitt_scratch-rpe-1000e", 1000, 192),
    ],
)
def test_scratch__starts_from_nothing_with_the_improved_recipe(stem, epochs, width):
    path = f"distilled/benchmarks/{stem}_in1k.py"
    cfg = read(path)
    tuned = read("distilled/benchmarks/mae_vitt_finetune-300e_in1k.py")
    assert "pretrained" not in cfg and "Pretrained" not in str(cfg.model)
    assert cfg.train_cfg.max_epochs == epochs
    arch = cfg.model.backbone.arch
    assert (arch.embed_dims, arch.num_heads) == (width, 12)
    assert cfg.optim_wrapper.optimizer == tuned.optim_wrapper.optimizer
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 1
    assert cfg.train_dataloader == tuned.train_dataloader
    assert cfg.model.train_cfg == tuned.model.train_cfg


TRANSFERS = sorted(FOLDER.glob("distilled/benchmarks/*_transfer-50e_*.py"))


def test_transfer__is_from_three_pre_trainings_to_seven_sets():
    found = {tuple(path.stem.split("_")[::3]) for path in TRANSFERS}
    sets = "cifar10", "cifar100", "flowers", "pets", "aircraft", "cars", "inat18"
    assert found == {(m, s) for m in ("mae", "mae-lite", "d2-mae") for s in sets}


@pytest.mark.parametrize("path", TRANSFERS, ids=lambda path: path.stem)
def test_transfer__has_the_documented_recipe(path):
    name = str(path.relative_to(FOLDER))
    cfg = read(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", 0.1, 0.9)
    assert optimizer.nesterov and optimizer.weight_decay == 0
    assert cfg.optim_wrapper.clip_grad.max_norm == 1.0
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.75
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[0].end) == (50, 10)
    assert cfg.auto_scale_lr.base_batch_size == 512
    assert cfg.model.train_cfg is None and not cfg.model.head.loss.use_soft
    assert not {"RandAugment", "RandomErasing"} & steps(name).keys()
    method = path.name.split("_")[0]
    assert cfg.pretrained == f"work_dirs/distilled/{method}_vitt_400e/epoch_400.pth"
    classes = dict(cifar10=10, cifar100=100, flowers=102, pets=37, aircraft=100)
    classes |= dict(cars=196, inat18=8142)
    wanted = classes[path.stem.split("_")[-1]]
    assert cfg.model.head.num_classes == wanted
    assert cfg.model.data_preprocessor.num_classes == wanted
    head = path.read_text().split("_base_")[0]
    assert ("not for D2-MAE" in head.replace("\n# ", " ")) == (method == "d2-mae")


@pytest.mark.parametrize(
    "path",
    [
        f"{stem}_{kind}mask-rcnn_coco.py"
        for stem in (
            "mae/detection/vitl",
            "deepmim/detection/mae_vitl",
            "localmim/detection/vitl_hog_800e",
        )
        for kind in ("", "cascade-")
    ],
)
def test_detection__on_vitl_has_vitdets_settings(path):
    cfg = read(path)
    assert cfg.model.type == ("CascadeRCNN" if "cascade" in path else "MaskRCNN")
    encoder = cfg.model.backbone
    assert encoder.drop_path_rate == 0.4
    assert tuple(encoder.global_blocks) == (5, 11, 17, 23)
    assert encoder.arch.embed_dims == cfg.model.neck.in_channels == 1024
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.8


def test_inaturalist__lists_are_made_as_the_data_file_says(tmp_path, monkeypatch):
    """By the code in its head comment, from files in the published form."""
    monkeypatch.chdir(tmp_path)
    for part, label in (("train2018", 8141), ("val2018", 3)):
        image = dict(id=7, file_name=f"train_val2018/Plantae/{label}/a b.jpg")
        label = dict(id=9, image_id=7, category_id=label)
        content = json.dumps(dict(images=[image], annotations=[label]))
        (tmp_path / f"{part}.json").write_text(content)
    text = (FOLDER / "_base_/datasets/inaturalist18.py").read_text()
    code = re.findall(r"^#   (.*)$", text, re.MULTILINE)
    exec("\n".join(code), {})
    cfg = read("distilled/benchmarks/mae_vitt_transfer-50e_inat18.py")
    for loader, label in ((cfg.train_dataloader, 8141), (cfg.val_dataloader, 3)):
        options = loader.dataset.get("dataset", loader.dataset)
        data = DATASETS.build(dict(options, data_root=str(tmp_path), pipeline=[]))
        (item,) = [data.get_data_info(index) for index in range(len(data))]
        assert item["gt_label"] == label
        wanted = tmp_path / f"train_val2018/Plantae/{label}/a b.jpg"
        assert item["img_path"] == str(wanted)


def test_heads__say_where_a_value_is_from():
    head = (FOLDER / "distilled/benchmarks/mae_vitt_finetune-100e_in1k.py").read_text()
    assert "Unverified" not in head
    for path in FOLDER.rglob("*.py"):
        text = path.read_text().replace("\n# ", " ")
        # Equal decays over all depths leave the embedding the same, not the blocks.
        assert not re.search("leaves the first block as much", text), path
        if "appendix A.1, table 9" in text:  # MAE's table has no lr of 5e-4
            assert "mixup, CutMix and label smoothing" in text, path
