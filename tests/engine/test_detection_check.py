"""Detection data that do not match are refused before the first iteration."""

import json
import logging
from types import SimpleNamespace

import pytest
from coco_files import CLASSES, edit_coco, write_coco
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from samples import ROOT
from torch import nn
from torch.utils.data import DataLoader

from mim_plugins.engine import InputError, environment, launch
from mim_plugins.engine.errors import explained
from mim_plugins.engine.hooks.dataset_checks import check_num_classes
from mim_plugins.engine.hooks.detection import (
    CheckDetectionHook,
    check_annotations,
    check_images,
    check_metric,
    check_padding,
    class_heads,
)
from mim_plugins.models import Hiera, ViTDet

pytest.importorskip("mmdet")
pytest.importorskip("mmcv._ext")

CONFIG = ROOT / "configs/deepmim/detection/mae_vitb_mask-rcnn_coco.py"


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path)


def coco(root, classes=CLASSES, split="train2017", **options):
    from mmdet.registry import DATASETS

    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(
            dict(
                type="CocoDataset",
                data_root=str(root),
                ann_file=f"annotations/instances_{split}.json",
                data_prefix=dict(img=f"{split}/"),
                metainfo=dict(classes=classes),
                **options,
            )
        )


def metric(root, split="val2017"):
    from mmdet.evaluation import CocoMetric

    file = root / "annotations" / f"instances_{split}.json"
    return SimpleNamespace(metrics=[CocoMetric(str(file))])


def detector(num_classes):
    model = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.ModuleList([nn.Module(), nn.Module()])
    model.roi_head.mask_head = nn.Module()
    model.rpn_head = nn.Module()
    model.rpn_head.num_classes = 1
    for head in (*model.roi_head.bbox_head, model.roi_head.mask_head):
        head.num_classes = num_classes
    return model


def test_data_that_fit__pass(root):
    dataset = coco(root)
    loader = DataLoader(dataset)
    runner = SimpleNamespace(
        train_dataloader=loader,
        val_dataloader=DataLoader(coco(root, split="val2017")),
        model=detector(3),
        val_loop=object(),
        val_evaluator=metric(root),
    )
    CheckDetectionHook().before_train(runner)
    check_annotations("train_dataloader", coco(root, classes=CLASSES[1:]))


def test_class_count__names_the_heads_and_the_option(root):
    with pytest.raises(ValueError) as error:
        check_num_classes("train_dataloader", coco(root), class_heads(detector(80)))
    message = str(error.value)
    assert "train_dataloader has 3 classes (person, bicycle, car" in message
    assert "model.roi_head.bbox_head.1.num_classes=3" in message
    assert "model.roi_head.mask_head.num_classes=3" in message
    assert "rpn_head" not in message


def test_categories_that_are_not_there__are_named(root):
    classes = ("person", "unicorn", "car")
    with pytest.raises(ValueError, match="no category 'unicorn' of the 3 classes"):
        check_annotations("train_dataloader", coco(root, classes=classes))


def test_classes_in_another_order__are_refused(root):
    """mmdet numbers them as the file does: every name would be wrong."""
    with pytest.raises(ValueError, match=r"classes=\('person', 'bicycle', 'car'"):
        check_annotations("train_dataloader", coco(root, classes=CLASSES[::-1]))


def test_objects_of_other_images__are_refused(root):
    file = root / "annotations/instances_train2017.json"
    annotations = json.loads(file.read_text())["annotations"]
    edit_coco(root, annotations=[a | dict(image_id=10**6) for a in annotations])
    with pytest.raises(ValueError, match="no object in .* belongs to one of its 2"):
        check_annotations("train_dataloader", coco(root))
    with pytest.raises(InputError, match="image_id of its annotations"), explained():
        coco(root, filter_cfg=dict(filter_empty_gt=True))


def test_file_without_images__is_refused(root):
    edit_coco(root, images=[])
    with pytest.raises(InputError, match="CocoDataset holds no image: none that"):
        with explained():
            coco(root)


def test_images_that_are_not_there__are_refused(root):
    (root / "train2017/000000000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="000000000001.jpg, which .* lists"):
        check_images("train_dataloader", coco(root), num_samples=16)


def test_metric_of_other_images__is_refused(root):
    dataset = coco(root, split="val2017")
    (root / "other").mkdir()
    write_coco(root / "other", num_images=4)
    with pytest.raises(ValueError, match="has 2 of the 4 images that val_evaluator"):
        check_metric("val", dataset, metric(root / "other"))
    edit_coco(root, "val2017", images=[dict(id=1, file_name="a.jpg")])
    with pytest.raises(ValueError, match="does not list 2 of the 2 images"):
        check_metric("val", dataset, metric(root))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "instances_train2017.json cannot be read as annotations in COCO's"),
        ("[]", "instances_train2017.json cannot be read as annotations in COCO's"),
        ('{"images": [], "annotations": []}', "with images, annotations and categ"),
        (None, "Set the folder of the data with --cfg-options data_root="),
    ],
)
def test_annotation_file_that_is_none__is_explained(root, content, message):
    file = root / "annotations/instances_train2017.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(InputError, match=message), explained():
        coco(root)


def test_missing_file_of_a_metric__is_explained(root):
    (root / "annotations/instances_val2017.json").unlink()
    with pytest.raises(InputError, match="--cfg-options data_root="), explained():
        metric(root)


def test_padding__must_make_whole_units_for_hiera():
    arch = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=1)
    model = SimpleNamespace(
        backbone=Hiera(arch=arch, img_size=64, out_type="featmap"),
        data_preprocessor=SimpleNamespace(pad_size_divisor=16),
    )
    with pytest.raises(ValueError, match="pad_size_divisor=32"):
        check_padding(model)
    model.data_preprocessor.pad_size_divisor = 64
    check_padding(model)


def test_joined_data_sets__are_checked_one_by_one(root, tmp_path):
    from mmengine.dataset import ConcatDataset

    broken = write_coco(tmp_path / "broken")
    joined = ConcatDataset([coco(root), coco(broken)])
    hook, model = CheckDetectionHook(), detector(3)
    hook._check("train_dataloader", DataLoader(joined), model)
    check_metric("val", joined, metric(root, split="train2017"))
    with pytest.raises(ValueError, match="has 3 classes"):
        hook._check("train_dataloader", DataLoader(joined), detector(80))
    (broken / "train2017/000000000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="broken/train2017/000000000001.jpg"):
        hook._check("train_dataloader", DataLoader(joined), model)


def test_padding__must_make_whole_patches_for_vitdet(caplog):
    arch = dict(embed_dims=8, num_layers=4, num_heads=2, feedforward_channels=8)
    model = SimpleNamespace(
        backbone=ViTDet(arch=arch, img_size=64, pretrain_img_size=32),
        data_preprocessor=SimpleNamespace(pad_size_divisor=10),
    )
    with pytest.raises(ValueError, match="units of 16x16 .*pad_size_divisor=64"):
        check_padding(model)
    logger = MMLogger.get_instance("padding")
    logger.addHandler(caplog.handler)
    model.data_preprocessor.pad_size_divisor = 64
    check_padding(model)
    assert not caplog.messages
    model.data_preprocessor.pad_size_divisor = 32
    check_padding(model)
    assert "padded to multiples of 32" in caplog.text


def test_padding__must_make_whole_cells_for_a_feature_pyramid_network():
    from mmdet.models.necks import FPN

    model = SimpleNamespace(
        backbone=nn.Identity(),
        neck=FPN(in_channels=[4, 8, 16, 32], out_channels=4, num_outs=5),
        data_preprocessor=SimpleNamespace(pad_size_divisor=16),
    )
    with pytest.raises(ValueError, match="FPN .*pad_size_divisor=32"):
        check_padding(model)
    model.data_preprocessor.pad_size_divisor = 32
    check_padding(model)


def test_mmcv_without_operators__is_refused_with_the_command(monkeypatch, tmp_path):
    def without_operators(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(environment.importlib, "import_module", without_operators)
    with pytest.raises(InputError, match=r"tools/install\.sh test compiles"):
        launch.train(CONFIG, work_dir=str(tmp_path))
    checkpoint = tmp_path / "epoch_1.pth"
    checkpoint.touch()
    with pytest.raises(InputError, match="mmcv's compiled operators"):
        launch.test(CONFIG, str(checkpoint), work_dir=str(tmp_path))


def test_missing_toolbox__is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="mmdet, which it needs, is not installed"):
        environment.check_toolbox("mmdet")
    environment.check_toolbox("mmpretrain")
    environment.check_toolbox(None)


def test_smaller_batch__is_accumulated_or_cautioned_about_in_iterations():
    cfg, notes = launch.training_config(CONFIG)
    assert {note.level for note in notes} == {logging.INFO}
    assert cfg.optim_wrapper.accumulative_counts == 32
    assert cfg.train_cfg.max_iters == 32 * 184375
    cfg, notes = launch.training_config(CONFIG, accumulate_batch=False)
    (caution,) = (n.message for n in notes if n.level == logging.WARNING)
    assert "sees 32 times fewer images" in caution
    assert "param_scheduler.1.milestones=[5244448,5681472]" in caution
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 / 32)


def test_data_root__reaches_the_metrics_annotation_file():
    cfg = Config.fromfile(CONFIG)
    assert cfg.val_evaluator.ann_file.startswith("data/coco/annotations")
    cfg = launch.load_config(CONFIG, dict(data_root="/elsewhere"))
    file = "/elsewhere/annotations/instances_val2017.json"
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == file
    assert cfg.train_dataloader.dataset.data_root == "/elsewhere"
    assert cfg.train_dataloader.dataset.ann_file.startswith("annotations/")
