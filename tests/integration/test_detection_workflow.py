"""The detection workflow: pre-train, detect, resume, test, draw boxes and masks."""

import json
import pickle
from collections.abc import Iterator

import mmcv
import numpy as np
import pytest
import torch
from coco_files import CLASSES, edit_coco, write_coco
from mmengine.config import Config
from mmengine.registry import DefaultScope
from samples import ROOT, tiny_model

from mim_plugins import engine
from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state

pytest.importorskip("mmdet")
pytest.importorskip("mmcv._ext")

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = ROOT / "configs/demo/detection/vit-d6_mask-rcnn-overfit_coco.py"


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """Runs leave their scope behind; here it ends with the test."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def pretraining(root, work_dir):
    """A DeepMIM of the over-fitting config's size, trained for two iterations."""
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="TensorRandomResizedCrop", scale=64),
        dict(type="PackPretrainInputs"),
    ]
    images = dict(
        type="UnlabelledImages",
        data_root=str(root),
        data_prefix="train2017",
        pipeline=pipeline,
    )
    arch = dict(embed_dims=16, num_layers=6, num_heads=2, feedforward_channels=32)
    backbone = dict(arch=arch, img_size=64, patch_size=16)
    cfg = Config(
        dict(
            default_scope="mmpretrain",
            custom_imports=dict(imports=["mim_plugins"], allow_failed_imports=False),
            model=tiny_model(backbone=backbone),
            train_dataloader=dict(
                batch_size=2,
                sampler=dict(type="EpochSampler", shuffle=True),
                dataset=dict(type="SeededDataset", dataset=images),
            ),
            optim_wrapper=dict(
                type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)
            ),
            train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=1),
            log_level="ERROR",
        )
    )
    path = root / "pretraining.py"
    cfg.dump(path)
    engine.train(path, work_dir=str(work_dir), precision="fp32")
    return work_dir / "epoch_1.pth"


def small(checkpoint=None, iterations=2):
    """Options that make the over-fitting config one of a second."""
    width = 8
    options = {
        "model.backbone.arch.embed_dims": 16,
        "model.backbone.arch.num_heads": 2,
        "model.backbone.arch.feedforward_channels": 32,
        "model.backbone.img_size": 64,
        "model.backbone.pretrain_img_size": 64,
        "model.data_preprocessor.pad_size_divisor": 64,
        "model.neck.in_channels": 16,
        "model.neck.out_channels": width,
        "model.rpn_head.in_channels": width,
        "model.rpn_head.feat_channels": width,
        "model.roi_head.bbox_roi_extractor.out_channels": width,
        "model.roi_head.mask_roi_extractor.out_channels": width,
        "model.roi_head.bbox_head.in_channels": width,
        "model.roi_head.bbox_head.conv_out_channels": width,
        "model.roi_head.bbox_head.num_classes": len(CLASSES),
        "model.roi_head.mask_head.in_channels": width,
        "model.roi_head.mask_head.conv_out_channels": width,
        "model.roi_head.mask_head.num_classes": len(CLASSES),
        # Also what is hardly an object to a network that has seen two images.
        "model.test_cfg.rcnn.score_thr": 0.0,
        "train_cfg.max_iters": iterations,
        "train_cfg.val_interval": 10,
        "default_hooks.checkpoint.interval": 1,
    }
    for name in ("train", "val", "test"):
        loader = f"{name}_dataloader"
        options[f"{loader}.num_workers"] = 0
        options[f"{loader}.dataset.metainfo"] = dict(classes=CLASSES)
    if checkpoint is not None:
        options["model.backbone.init_cfg"] = dict(
            _delete_=True,
            type="Pretrained",
            checkpoint=str(checkpoint),
            prefix="backbone.",
        )
    return options


def test_workflow__from_pretraining_to_pictures_of_boxes(tmp_path):
    root = write_coco(tmp_path / "coco", num_images=4)
    pretrained = pretraining(root, tmp_path / "pretraining")
    state = torch.load(pretrained, weights_only=False)["state_dict"]
    official = tmp_path / "official.pth"
    save_state(to_official(state)[0], official, wrapper="model")
    loaded = {}
    for source in (pretrained, official):
        options = small(source) | dict(data_root=str(root) + "/")
        runner = engine.train(
            CONFIG,
            work_dir=str(tmp_path / source.stem),
            cfg_options=options | {"optim_wrapper.optimizer.lr": 0.0},
        )
        loaded[source.stem] = runner.model.backbone.state_dict()
    # Trained at a learning rate of zero: what was loaded is still there.
    for backbone in loaded.values():
        for key, value in backbone.items():
            if "rel_pos" not in key and key != "pos_embed":
                assert torch.equal(value, state[f"backbone.{key}"]), key
    for source in loaded:
        log = next((tmp_path / source).rglob("*.log")).read_text()
        assert "missing      12  layers.* (12): randomly initialised" in log
        assert "cls_token" in log and "ViTDet has no such part" in log

    options = small(iterations=3) | dict(data_root=str(root) + "/")
    work_dir = str(tmp_path / pretrained.stem)
    runner = engine.train(CONFIG, work_dir=work_dir, resume="auto", cfg_options=options)
    assert runner.iter == 3
    checkpoint = f"{work_dir}/iter_3.pth"
    scores = engine.test(
        CONFIG,
        checkpoint,
        work_dir=str(tmp_path / "test"),
        out=str(tmp_path / "found.pkl"),
        show_dir=str(tmp_path / "show"),
        cfg_options=options,
    )
    found = pickle.loads((tmp_path / "found.pkl").read_bytes())
    assert len(found) == 4 and "bboxes" in found[0]["pred_instances"]
    names = {path.name for path in (root / "val2017").iterdir()}
    assert {path.name for path in (tmp_path / "show").iterdir()} == names
    boxes = {"model.roi_head.mask_head": None, "test_evaluator.metric": "bbox"}
    mirrored = engine.test(
        CONFIG,
        checkpoint,
        work_dir=str(tmp_path / "test"),
        tta=True,
        cfg_options={k: v for k, v in options.items() if "mask_head" not in k} | boxes,
    )
    assert set(mirrored) == {name for name in scores if "bbox" in name}
    assert -1 <= scores["coco/bbox_mAP"] <= 1
    assert -1 <= scores["coco/segm_mAP"] <= 1

    from mmdet.apis import DetInferencer

    config = next((tmp_path / pretrained.stem).glob("*.py"))
    inferencer = DetInferencer(str(config), checkpoint, show_progress=False)
    image = root / "val2017/000000000000.jpg"
    results = inferencer(str(image), out_dir=str(tmp_path / "out"), pred_score_thr=0.0)
    found = results["predictions"][0]
    assert len(found["bboxes"]) == len(found["masks"]) > 0
    drawn = mmcv.imread(str(tmp_path / "out/vis" / image.name))
    assert not np.array_equal(drawn, mmcv.imread(str(image)))


def test_classes__are_compared_with_validation_and_checkpoint(tmp_path):
    """Each file numbers by its own order; AP would be 0, without a word."""
    root = write_coco(tmp_path / "coco")
    work_dir = str(tmp_path / "run")
    options = small(iterations=1) | dict(data_root=str(root) + "/")
    engine.train(CONFIG, work_dir=work_dir, cfg_options=options)
    file = root / "annotations/instances_val2017.json"
    categories = json.loads(file.read_text())["categories"]
    edit_coco(root, "val2017", categories=categories[::-1])
    for part, classes in (("val", CLASSES), ("test", CLASSES[::-1])):
        changed = options | {
            f"{part}_dataloader.dataset.ann_file": "annotations/instances_val2017.json",
            f"{part}_dataloader.dataset.data_prefix.img": "val2017/",
            f"{part}_dataloader.dataset.metainfo": dict(classes=classes),
        }
        with pytest.raises(engine.InputError, match=f"and {part}_data.*have"):
            if part == "val":
                other = str(tmp_path / "other")
                engine.train(CONFIG, work_dir=other, cfg_options=changed)
            else:
                checkpoint = f"{work_dir}/iter_1.pth"
                engine.test(CONFIG, checkpoint, cfg_options=changed)
