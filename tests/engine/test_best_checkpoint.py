"""A save_best that no metric has is refused before the run."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS, DefaultScope
from mmpretrain.structures import DataSample
from samples import ROOT

from mim_plugins.engine import InputError, train, training_config
from mim_plugins.engine.config.best_checkpoint import metric_names

CLASSIFY = ROOT / "configs/mae/benchmarks/vitb_finetune-100e_in1k.py"
DETECT = ROOT / "configs/mae/detection/vitb_mask-rcnn_coco.py"
SEGMENT = ROOT / "configs/mae/segmentation/vitb_upernet_ade20k.py"
BEST = "default_hooks.checkpoint.save_best"


@pytest.mark.parametrize(
    "metric",
    [
        dict(type="Accuracy"),
        dict(type="mmpretrain.Accuracy", topk=(1, 2), thrs=(None, 0.5)),
        dict(type="Accuracy", topk=2, prefix="mine"),
        dict(type="SingleLabelMetric"),
        dict(type="SingleLabelMetric", items=("recall", "support"), average=None),
        dict(type="SingleLabelMetric", thrs=[0.1, None], average="micro"),
    ],
)
def test_names__are_those_that_classification_returns(metric):
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        judge = METRICS.build(dict(metric))
    score = torch.tensor([0.2, 0.7, 0.1])
    sample = DataSample().set_gt_label(1).set_pred_score(score).set_pred_label(1)
    judge.process(None, [sample.to_dict()])
    assert list(judge.evaluate(1)) == metric_names([metric])


@pytest.mark.parametrize(
    "kinds", [["mIoU"], ["mDice"], ["mFscore"], ["mIoU", "mDice", "mFscore"]]
)
def test_names__are_those_that_segmentation_returns(kinds):
    pytest.importorskip("mmseg")
    metric = dict(type="IoUMetric", iou_metrics=kinds)
    with DefaultScope.overwrite_default_scope("mmseg"):
        judge = METRICS.build(dict(metric))
    judge.dataset_meta = dict(classes=["a", "b"])
    areas = judge.intersect_and_union(torch.zeros(4), torch.zeros(4), 2, 255)
    judge.results.append(areas)
    assert set(judge.evaluate(1)) == set(metric_names(metric))


@pytest.mark.parametrize(
    "options",
    [
        dict(metric=["bbox", "segm"]),
        dict(metric="bbox", metric_items=["mAP", "AR@100"]),
        dict(metric=["proposal", "bbox"]),
        dict(metric="proposal_fast", proposal_nums=(1, 10)),
    ],
)
def test_names__are_those_that_detection_returns(options, tmp_path):
    pytest.importorskip("mmdet")
    from coco_files import CLASSES, write_coco

    root = write_coco(tmp_path)
    file = str(root / "annotations" / "instances_val2017.json")
    metric = dict(type="CocoMetric", ann_file=file, **options)
    with DefaultScope.overwrite_default_scope("mmdet"):
        judge = METRICS.build(dict(metric))
    judge.dataset_meta = dict(classes=CLASSES)
    box = np.array([[2.0, 4.0, 20.0, 24.0]])
    for image_id, size in ((100, (64, 48)), (107, (48, 64))):
        mask = np.asfortranarray(np.ones((*size, 1), np.uint8))
        found = dict(
            img_id=image_id, bboxes=box, scores=np.ones(1), labels=np.zeros(1, int)
        )
        if "segm" in options["metric"]:
            from pycocotools.mask import encode

            found.update(masks=encode(mask), mask_scores=np.ones(1))
        truth = dict(width=size[1], height=size[0], img_id=image_id)
        judge.results.append((truth, found))
    assert list(judge.evaluate(2)) == metric_names(metric)


@pytest.mark.parametrize(
    ("path", "wanted", "message"),
    [
        (CLASSIFY, "accuracy/top2", "accuracy/top1, accuracy/top5: did you mean"),
        (CLASSIFY, "top1", "did you mean 'accuracy/top1'"),
        (CLASSIFY, ["accuracy/top1", "mIoU"], "='mIoU' is none of the figures"),
        (CLASSIFY, "nonsense", "='nonsense' is none of the figures"),
        (DETECT, "bbox_mAP", "coco/segm_mAP_l: did you mean 'coco/bbox_mAP'"),
        (SEGMENT, "mIou", "aAcc, mIoU, mAcc: did you mean 'mIoU'"),
    ],
)
def test_name_that_no_metric_has__is_refused(path, wanted, message):
    pytest.importorskip({DETECT: "mmdet", SEGMENT: "mmseg"}.get(path, "mmpretrain"))
    if path == DETECT:
        pytest.importorskip("mmcv._ext")
    with pytest.raises(ValueError, match=f"save_best.*{message}"):
        training_config(path, cfg_options={BEST: wanted})


def test_run__ends_at_its_start(tmp_path):
    with pytest.raises(InputError, match="save_best='accuracy/top3'.*'auto' takes"):
        train(
            CLASSIFY,
            work_dir=str(tmp_path),
            cfg_options={BEST: "accuracy/top3", "data_root": str(tmp_path / "none")},
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wanted", ["auto", "accuracy/top5", ["accuracy/top1", "accuracy/top5"], None]
)
def test_name_that_there_is__is_accepted(wanted):
    training_config(CLASSIFY, cfg_options={BEST: wanted})


def test_top_5_of_three_classes__is_refused(tmp_path):
    for name in ("ant", "bee", "cat"):
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="top5' is none .*, which are accuracy/top1:"):
        training_config(
            CLASSIFY, cfg_options={BEST: "accuracy/top5", "data_root": str(tmp_path)}
        )


def test_metric_that_is_not_known__lets_any_name_pass():
    assert metric_names([dict(type="Accuracy"), dict(type="MyMetric")]) is None
    assert metric_names(dict(type="CocoMetric", classwise=True)) is None
    metrics = dict(type="Evaluator", metrics=[dict(type="Accuracy")])
    assert metric_names(metrics) == ["accuracy/top1"]


def test_early_stopping__is_checked_too(tmp_path):
    (tmp_path / "config.py").write_text(
        f"_base_ = {str(CLASSIFY)!r}\n"
        "custom_hooks = [*_base_.custom_hooks,"
        " dict(type='EarlyStoppingHook', monitor='accuracy/top')]\n"
    )
    with pytest.raises(ValueError, match=r"custom_hooks\.\d+\.monitor='accuracy/top'"):
        training_config(tmp_path / "config.py")


def test_without_validation__is_said(tmp_path):
    base = ROOT / "configs" / "deepmim" / "mae_vitb_300e.py"
    _, notes = training_config(base, cfg_options={BEST: "knn_top1"})
    assert any(f"{BEST}='knn_top1' has no effect" in note.message for note in notes)
    assert not Config.fromfile(base).default_hooks.checkpoint.get("save_best")
