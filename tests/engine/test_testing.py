"""Options of tools/test.py: predictions, pictures, augmented images, precision."""

import pickle
import sys
from importlib import util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from samples import ROOT, TINY_ARCH, ade20k_layout, small_segmentor

from mim_plugins import engine
from mim_plugins.engine import InputError
from mim_plugins.engine.testing import apply_tta, check_writable

FINETUNE = ROOT / "configs/mae/benchmarks/vitb_finetune-100e_in1k.py"
DETECT = ROOT / "configs/mae/detection/vitb_mask-rcnn_coco.py"
SEGMENT = "distilled/segmentation/d2-mae_vitt_semantic-fpn_ade20k.py"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """Own classes, a small config for them, and an untrained checkpoint of it."""
    folder = tmp_path_factory.mktemp("classes")
    draw = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        for part in ("train", "val"):
            (folder / "data" / part / name).mkdir(parents=True)
            for index in range(2):
                image = draw.integers(0, 255, (24, 40, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / "data" / part / name / f"{index}.png"), image)
    cfg = Config.fromfile(FINETUNE)
    cfg.model.backbone.update(
        arch=dict(TINY_ARCH), img_size=16, patch_size=8, init_cfg=None
    )
    cfg.model.head.update(in_channels=24, num_classes=3)
    for part in ("val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(folder / "data")
        loader.dataset.pipeline[1].scale = 18
        loader.dataset.pipeline[2].crop_size = 16
    cfg.dump(folder / "config.py")
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "some.pth")
    return folder


def run(folder: Path, work_dir: Path, **options) -> dict:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return engine.test(
            folder / "config.py",
            str(folder / "some.pth"),
            work_dir=str(work_dir),
            **options,
        )


def test_classifier__predictions_and_a_picture_of_every_image(classes, tmp_path):
    out, show = tmp_path / "new" / "found.pkl", tmp_path / "show"
    metrics = run(classes, tmp_path, out=str(out), show_dir=str(show))
    with out.open("rb") as file:
        found = pickle.load(file)
    assert len(found) == 6
    right = [int(x["pred_label"]) == int(x["gt_label"]) for x in found]
    assert metrics["accuracy/top1"] == pytest.approx(100 * np.mean(right))
    # Files of one name in several folders.
    pictures = sorted(p.relative_to(show).parent.name for p in show.rglob("*.png"))
    assert pictures == ["ant", "ant", "bee", "bee", "cat", "cat"]


def test_classifier__metrics_and_averaged_flips(classes, tmp_path):
    out = tmp_path / "metrics.json"
    metrics = run(classes, tmp_path, out=str(out), tta=True)
    assert "accuracy/top1" in out.read_text() and set(metrics) == {"accuracy/top1"}
    cfg = Config.fromfile(classes / "config.py")
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        apply_tta(cfg)
        model = MODELS.build(cfg.model)
        state = torch.load(classes / "some.pth", weights_only=False)["state_dict"]
        model.module.load_state_dict(state)
        model.eval()
        images = torch.randint(0, 255, (1, 3, 16, 16), dtype=torch.uint8)
        views = [images, images.flip(3)]
        with torch.no_grad():
            (merged,) = model.test_step(
                dict(inputs=views, data_samples=[[DataSample()], [DataSample()]])
            )
            each = [model.module.test_step(dict(inputs=view)) for view in views]
    first, second = (samples[0].pred_score for samples in each)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(merged.pred_score, (first + second) / 2)


def test_metrics__are_written_by_one_process(classes, tmp_path, monkeypatch):
    monkeypatch.setattr("mim_plugins.engine.launch.is_main_process", lambda: False)
    run(classes, tmp_path, out=str(tmp_path / "metrics.json"))
    assert not (tmp_path / "metrics.json").exists()


def test_config_of_the_training__stays_as_it_is(classes, tmp_path, monkeypatch):
    """By default a test has a folder of its own."""
    cfg = Config.fromfile(classes / "config.py")
    cfg.work_dir = str(tmp_path / "run")
    (tmp_path / "run").mkdir()
    config = tmp_path / "run" / "config.py"
    cfg.dump(config)
    before = config.read_text()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        engine.test(config, str(classes / "some.pth"), tta=True)
    assert config.read_text() == before
    assert (tmp_path / "run" / "test" / "config.py").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(out="found.txt"), "file that ends in .pkl for predictions, in .json"),
        (dict(out="file/found.pkl"), "--out file/found.pkl cannot be written: .*file"),
        (dict(out="folder.pkl"), "--out folder.pkl is a folder"),
        (dict(show_dir="file"), "--show-dir file cannot be written"),
        (dict(show_dir="show", tta=True), "leave one of the two out"),
    ],
)
def test_what_cannot_be_written__is_refused_before_the_test(
    classes, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.pkl").mkdir()
    with pytest.raises(InputError, match=message):
        run(classes, tmp_path / "work", **options)
    assert not (tmp_path / "work").exists()


def test_writable__folders_are_created(tmp_path):
    path = check_writable("--out", str(tmp_path / "a" / "b.json"))
    assert Path(path).parent.is_dir() and not Path(path).exists()


def test_tool__hands_the_options_on(classes, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(engine, "test", lambda *args, **kwargs: given.update(kwargs))
    spec = util.spec_from_file_location("test_tool", ROOT / "tools" / "test.py")
    tool = util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    options = ["--out", "x.pkl", "--show-dir", "y", "--tta", "--amp"]
    monkeypatch.setattr(sys, "argv", ["test.py", "config.py", "some.pth", *options])
    tool.main()
    assert (given["out"], given["show_dir"]) == ("x.pkl", "y")
    assert given["tta"] and given["amp"]


def test_segmentation__maps_pictures_and_scales(tmp_path):
    pytest.importorskip("mmseg")
    ade20k_layout(tmp_path / "data")
    cfg = Config.fromfile(ROOT / "configs" / SEGMENT)
    small_segmentor(cfg, tmp_path / "data", tmp_path / "run")
    cfg.test_dataloader.dataset.indices = None
    cfg.dump(tmp_path / "config.py")
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = engine.build_runner(cfg).model
        torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / "some.pth")

        def test(**options):
            return engine.test(
                tmp_path / "config.py", str(tmp_path / "some.pth"), **options
            )

        with pytest.raises(InputError, match="maps of segmentation .* to a folder"):
            test(out=str(tmp_path / "found.pkl"))
        once = test(out=str(tmp_path / "maps"), show_dir=str(tmp_path / "show"))
        several = test(tta=True)
    maps = sorted((tmp_path / "maps").glob("*.png"))
    assert [path.name for path in maps] == ["0.png", "1.png"]
    # Numbered as the labels are, 0 being none of the classes.
    assert cv2.imread(str(maps[0]), cv2.IMREAD_UNCHANGED).shape[:2] == (48, 80)
    assert len(list((tmp_path / "show").rglob("*.png"))) == 2
    assert set(once) == set(several)
    assert len(cfg.tta_pipeline[1].transforms[0]) == 6


def test_segmentation__without_a_pipeline_of_scales_is_refused():
    cfg = Config.fromfile(
        ROOT / "configs/distilled/segmentation/mae_vitt_semantic-fpn_camvid.py"
    )
    with pytest.raises(ValueError, match="no tta_model and tta_pipeline"):
        apply_tta(cfg)
    cfg = Config.fromfile(ROOT / "configs" / SEGMENT.replace("-fpn_", "-fpn-ms_"))
    with pytest.raises(ValueError, match="SegTTAModel of this config averages already"):
        apply_tta(cfg)


def test_detection__masks_are_not_averaged():
    pytest.importorskip("mmdet")
    with pytest.raises(ValueError, match="averages boxes alone.*mask_head=None"):
        apply_tta(Config.fromfile(DETECT))


def test_detection__amp_on_a_cpu_is_refused(tmp_path):
    pytest.importorskip("mmdet")
    pytest.importorskip("mmcv._ext")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "some.pth").touch()
    with pytest.raises(InputError, match="--amp is not for detection on a CPU"):
        engine.test(DETECT, str(tmp_path / "some.pth"), amp=True)
