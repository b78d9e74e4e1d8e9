"""The configs of docs/data.md train and test on data as the page describes them."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_files import write_coco
from mmengine.config import Config
from mmengine.registry import DefaultScope
from samples import ROOT, TINY_ARCH, ade20k_layout, small_segmentor

from mim_plugins import engine
from mim_plugins.engine.config.overrides import apply_options

PAGE = (ROOT / "docs/data.md").read_text()
CONFIGS = {
    name: re.search(
        rf"`(configs/\S+/{name}/insects.py)`:\n\n```python\n(.*?)```", PAGE, re.S
    )
    for name in ("benchmarks", "detection", "segmentation")
}


def config(name: str, tmp_path: Path, data_root: Path) -> Config:
    """The config of the page, as if it were where the page puts it."""
    found = CONFIGS[name]
    assert found
    base = re.search(r'_base_ = "(.*)"', found[2])
    path = tmp_path / "insects.py"
    where = str((ROOT / found[1]).parent / base[1])
    text = found[2].replace(base[1], where).replace("data/insects/", f"{data_root}/")
    path.write_text(text)
    return Config.fromfile(path)


def options(heading: str) -> dict[str, str]:
    """The options of a command line below some words of the page."""
    block = PAGE[PAGE.index(heading) :].split("--cfg-options", 1)[1].split("\n\n")[0]
    pairs = (pair.split("=", 1) for pair in block.replace("\\", " ").split())
    values = {"False": False, "True": True, "None": None}
    return {key: values.get(value, value) for key, value in pairs}


def run(cfg: Config, tmp_path: Path, testing: dict | None = None) -> dict:
    """Trains for an iteration, and tests."""
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
    cfg.train_dataloader.batch_size = 2
    path, work_dir = tmp_path / "small.py", str(tmp_path / "run")
    cfg.dump(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        engine.train(path, work_dir=work_dir, accumulate_batch=False)
        checkpoint = str(next(Path(work_dir).glob("*_1.pth")))
        return engine.test(path, checkpoint, work_dir=work_dir, cfg_options=testing)


def insects(root: Path) -> Path:
    """COCO's layout as the page describes it."""
    write_coco(root, classes=("ant", "bee", "wasp"))
    for name in ("train", "val"):
        (root / f"{name}2017").rename(root / name)
        (root / f"annotations/instances_{name}2017.json").rename(root / f"{name}.json")
    return root


def small_detector(tmp_path: Path, changes: dict | None = None) -> Config:
    from test_detection_configs import reduced

    cfg = config("detection", tmp_path, insects(tmp_path / "data"))
    of_pipelines = {k: v for k, v in (changes or {}).items() if "pipeline" in k}
    if of_pipelines:
        apply_options(cfg, of_pipelines)
    data = cfg._cfg_dict.to_dict()
    cfg = reduced(cfg, tmp_path / "data")
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"].dataset.metainfo = data[f"{part}_dataloader"][
            "dataset"
        ]["metainfo"]
        if part != "train":
            cfg[f"{part}_evaluator"] = data[f"{part}_evaluator"]
    for head in ("bbox_head", "mask_head"):
        cfg.model.roi_head[head].num_classes = data["model"]["roi_head"][head][
            "num_classes"
        ]
    cfg.default_hooks.checkpoint.save_begin = 0
    if of_pipelines:
        apply_options(cfg, {k: v for k, v in changes.items() if "pipeline" not in k})
    return cfg


@pytest.fixture
def detection():
    pytest.importorskip("mmdet")
    pytest.importorskip("mmcv._ext")


@pytest.mark.usefixtures("detection")
def test_own_boxes__and_masks(tmp_path):
    scores = run(small_detector(tmp_path), tmp_path)
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= set(scores)


@pytest.mark.usefixtures("detection")
def test_own_boxes__alone_and_without_ground_truth(tmp_path):
    cfg = small_detector(tmp_path, options("Boxes without masks"))
    for split in ("train", "val"):
        path = tmp_path / f"data/{split}.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        path.write_text(json.dumps(content))
    del content["annotations"]
    (tmp_path / "data/test.json").write_text(json.dumps(content))
    testing = options("Images without annotations")
    for key, value in testing.items():
        if isinstance(value, str):
            testing[key] = value.replace("data/insects", str(tmp_path / "data"))
    testing["test_dataloader.dataset.data_prefix.img"] = "val/"
    testing["test_evaluator.outfile_prefix"] = str(tmp_path / "results")
    assert run(cfg, tmp_path, testing) == {}
    assert (tmp_path / "results.bbox.json").is_file()


def test_own_label_maps(tmp_path):
    pytest.importorskip("mmseg")
    root = tmp_path / "data"
    ade20k_layout(root, labels=2)
    cfg = config("segmentation", tmp_path, root)
    small_segmentor(cfg, root, tmp_path / "run")
    cfg.default_hooks.checkpoint.interval = 1
    assert 0 <= run(cfg, tmp_path)["mIoU"] <= 100


def test_own_classes(tmp_path):
    root = tmp_path / "data"
    for part in ("train", "val"):
        for folder in ("ant", "bee", "wasp", "fly"):
            (root / part / folder).mkdir(parents=True)
            noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
            cv2.imwrite(str(root / part / folder / "1.png"), noise)
    cfg = config("benchmarks", tmp_path, root)
    cfg.model.backbone.update(arch=dict(TINY_ARCH), init_cfg=None)
    cfg.model.head.in_channels = TINY_ARCH["embed_dims"]
    cfg.train_cfg.max_epochs = 1
    assert set(run(cfg, tmp_path)) == {"accuracy/top1"}
