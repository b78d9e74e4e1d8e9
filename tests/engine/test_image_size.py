"""``img_size`` and ``patch_size``, set once, reach pipelines, encoders and targets."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from samples import ROOT, laid_out_only, stand_in_teachers

from mim_plugins.engine import load_config, training_config
from mim_plugins.engine.checks.data import Data
from mim_plugins.engine.config.image_size import follow_image_size, takes_image_size
from mim_plugins.engine.config.overrides import parts
from mim_plugins.engine.hooks.data_health import CheckInputHook

CONFIGS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.py"))
    if not {"_base_", "detection", "segmentation", "tracking"} & set(path.parts)
    and "tracker" not in path.name
]
METHODS = [
    "deepmim/mae_vitb_300e.py",
    "deepmim/mae-hybrid_vitb_300e.py",
    "deepmim/mae-clip_vitb_300e.py",
    "localmim/vitb_hog_1600e.py",
    "localmim/vitb_pixel_1600e.py",
    "localmim/swinb_hog_400e.py",
    "mirl/vits54_300e.py",
    "mae/vitb_1600e.py",
    "distilled/mae-lite_vitt_400e.py",
    "distilled/d2-mae_vitt_400e.py",
    "distilled/mae-lite_hierat_400e.py",
    "distilled/d2-simmim_swint_400e.py",
    "demo/mae_digits.py",
    "cifar10/mirl_vit-d24_10e.py",
]


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def pipelines(cfg: Config) -> dict[str, list]:
    return {
        path: node
        for path, node in parts(cfg)
        if path.rpartition(".")[2].endswith("pipeline") and isinstance(node, list)
    }


def made(pipeline: list, height: int = 300, width: int = 400) -> tuple[int, int]:
    """The size of what a pipeline makes of an image."""
    steps = [
        TRANSFORMS.build(step)
        for step in pipeline
        if not step["type"].startswith(("LoadImage", "Pack"))
    ]
    image = np.zeros((height, width, 3), np.uint8)
    result = Compose(steps)(dict(img=image, img_shape=image.shape[:2]))
    return result["img"].shape[:2]


def build(cfg: Config, folder):
    stand_in_teachers(cfg.model, folder)
    with laid_out_only():
        return MODELS.build(cfg.model)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_config__one_size_reaches_all_pipelines_and_the_encoder(path):
    cfg = load_config(path, dict(img_size=96))
    assert cfg.model.backbone.img_size == 96
    found = pipelines(cfg)
    assert "train_dataloader.dataset.dataset.pipeline" in found
    for place, steps in found.items():
        assert made(steps) == (96, 96), place
        # The resize of tests keeps its ratio to the crop.
        edges = [step.scale for step in steps if step.type == "ResizeEdge"]
        assert edges in ([], [110]), place


@pytest.mark.parametrize("path", METHODS)
def test_size_that_the_config_has__changes_nothing(path):
    path = ROOT / "configs" / path
    plain = load_config(path)
    sized = load_config(path, dict(img_size=plain.model.backbone.img_size))
    assert sized.pop("img_size")
    assert sized.to_dict() == plain.to_dict()


@pytest.mark.parametrize("path", METHODS)
def test_every_method__is_built_at_another_size(path, tmp_path):
    cfg = load_config(ROOT / "configs" / path, dict(img_size=128))
    if "Swin" in cfg.model.backbone.type:
        cfg.model.backbone.window_size = 4
        if "teacher" in cfg.model:
            cfg.model.teacher.window_size = cfg.model.neck.window_size = 4
    model = build(cfg, tmp_path)
    grid = [128 // side for side in model.backbone.mask_patch_size]
    assert list(model.backbone.grid) == list(model.neck.grid) == grid
    if "teacher" in cfg.model:
        assert cfg.model.teacher.img_size == 128


@pytest.mark.parametrize("path", ["localmim/vitb_hog_1600e.py", "mae/vitb_1600e.py"])
def test_patches__of_another_size_take_the_targets_along(path):
    cfg = load_config(ROOT / "configs" / path, dict(img_size=96, patch_size=8))
    with laid_out_only():
        model = MODELS.build(cfg.model)
    assert tuple(model.backbone.grid) == (12, 12)
    if cfg.model.target_generator.type == "HOGTarget":
        assert cfg.model.target_generator.cell_size == (2, 4, 8, 16)


def test_sizes_of_a_child_config__and_again_after_a_run_has_written_it(tmp_path):
    child = tmp_path / "small.py"
    base = ROOT / "configs/deepmim/mae_vitb_300e.py"
    child.write_text(f"_base_ = {str(base)!r}\nimg_size = (64, 160)\npatch_size = 8\n")
    cfg = load_config(child)
    assert cfg.model.backbone.img_size == (64, 160)
    for steps in pipelines(cfg).values():
        assert made(steps, 400, 1000) == (64, 160)
    dumped = tmp_path / "dumped.py"
    cfg.dump(dumped)
    assert load_config(dumped).to_dict() == cfg.to_dict()


def test_long_images__are_cropped_in_their_shape():
    path = ROOT / "configs/deepmim/mae_vitb_300e.py"
    cfg = load_config(path, dict(img_size=(64, 160)))
    low, high = cfg.train_pipeline[1].aspect_ratio_range
    assert (low, high) == pytest.approx((0.75 * 2.5, 4 / 3 * 2.5), abs=1e-5)
    resize = cfg.test_pipeline[1]
    assert resize.type == "Resize" and resize.scale == (183, 73)


def test_fine_tuning__follows_and_classifies_at_the_size():
    path = ROOT / "configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py"
    cfg = load_config(path, dict(img_size=32, patch_size=4))
    cfg.model.backbone.arch = dict(
        embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=24
    )
    cfg.model.backbone.init_cfg = None
    cfg.model.head.in_channels = 24
    cfg.model.train_cfg = None
    model = MODELS.build(cfg.model)
    assert model.backbone.pos_embed.shape[1] == 1 + 64
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_log__says_the_size():
    path = ROOT / "configs/deepmim/mae_vitb_300e.py"
    options = dict(img_size=96, patch_size=8)
    cfg, notes = training_config(path, cfg_options=options)
    (said,) = [note.message for note in notes if "image size" in note.message]
    assert "img_size=96x96" in said and "grid of 12x12 units of 8x8 pixels" in said
    assert not [note for note in notes if "nothing uses" in note.message]


def test_longer_key__wins():
    path = ROOT / "configs/deepmim/mae_vitb_300e.py"
    cfg = load_config(path, {"img_size": 96, "test_pipeline.1.scale": 96})
    assert cfg.test_pipeline[1].scale == 96 and cfg.train_pipeline[1].scale == 96


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("mae/vitb_1600e.py", dict(img_size=100), "img_size=96 or img_size=112"),
        ("mae/vitb_1600e.py", dict(img_size=(64, 100)), "img_size=64,96 or img_size=6"),
        ("mae/vitb_1600e.py", dict(img_size="big"), "img_size='big' is no size"),
        ("mae/vitb_1600e.py", dict(img_size=0), "img_size=0 is no size"),
        ("mae/vitb_1600e.py", dict(img_size=8), "img_size=16"),
        ("distilled/mae_hierat_400e.py", dict(img_size=80), "img_size=64 or img_size"),
        (
            "localmim/vitb_hog_1600e.py",
            dict(patch_size=6, img_size=96),
            "cell_size=(4, 8, 16, 32)",
        ),
        (
            "mae/detection/vitb_mask-rcnn_coco.py",
            dict(img_size=96),
            "for pre-training and classification",
        ),
    ],
)
def test_size_that_does_not_fit__is_refused(path, options, said):
    with pytest.raises(ValueError, match=r"\w") as caught:
        load_config(ROOT / "configs" / path, options)
    assert said in str(caught.value)


def test_windows_that_do_not_divide__name_sizes_that_fit():
    cfg = load_config(ROOT / "configs/localmim/swinb_hog_400e.py", dict(img_size=96))
    with pytest.raises(ValueError, match="windows of 7") as caught, laid_out_only():
        MODELS.build(cfg.model)
    assert "window_size=7 fits images of 224x224" in str(caught.value)
    assert "images of 96x96 fit window_size=6 or 12" in str(caught.value)


def test_other_toolboxes__keep_variables_of_these_names():
    path = ROOT / "configs/mae/detection/vitb_mask-rcnn_coco.py"
    cfg = Config.fromfile(path)
    before = cfg.to_dict()
    cfg.img_size = 96
    follow_image_size(cfg)
    assert not takes_image_size(cfg)
    assert cfg.to_dict() == {**before, "img_size": 96}


@pytest.fixture
def evaluated(tmp_path):
    """Makes the data of a validation whose pipeline resizes to a size."""
    for folder in ("ant", "bee"):
        (tmp_path / "val" / folder).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / "val" / folder / "1.png"), np.zeros((40, 40, 3), np.uint8)
        )

    def make(height: int, width: int) -> Data:
        steps = [
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(width, height)),
            dict(type="PackInputs"),
        ]
        init_default_scope("mmpretrain")
        folder = dict(data_root=str(tmp_path), split="val", pipeline=steps)
        return Data("val", DATASETS.build(dict(type="ClassFolders", **folder)))

    return make


def classifier(kind="VisionTransformer", size=(32, 64)):
    arch = dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=24)
    backbone = dict(type=kind, arch=arch, img_size=size, patch_size=16)
    head = dict(type="LinearClsHead", num_classes=2, in_channels=24)
    return MODELS.build(
        dict(type="ImageClassifier", backbone=backbone, head=head, _scope_="mmpretrain")
    )


@pytest.fixture
def recorded_log(monkeypatch):
    said: list[str] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "warning", said.append)
    return lambda: said


def test_validation__of_the_encoders_size_passes(evaluated, recorded_log):
    CheckInputHook().check([evaluated(32, 64)], classifier(), {})
    assert recorded_log() == []


def test_validation_at_another_size__is_warned_about(evaluated, recorded_log):
    CheckInputHook().check([evaluated(48, 48)], classifier(), {})
    (said,) = recorded_log()
    assert "48x48 pixels, but the encoder is made for 32x64" in said
    assert "img_size=32,64 makes images of its size" in said


def test_validation_with_rows_and_columns_swapped__is_said(evaluated, recorded_log):
    CheckInputHook().check([evaluated(64, 32)], classifier(), {})
    (said,) = recorded_log()
    assert "64x32 pixels, but" in said and "rows and columns are swapped" in said


def test_validation_at_another_size__is_refused_by_fixed_positions(evaluated):
    model = classifier("RelPosVisionTransformer")
    with pytest.raises(ValueError, match=r"48x48 pixels.*32x64.*img_size=\.\.\."):
        CheckInputHook().check([evaluated(48, 48)], model, {})
