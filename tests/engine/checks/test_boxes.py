"""Detection data that do not match are refused before the first iteration."""

import json
import logging
from types import SimpleNamespace

import pytest
from coco_files import CLASSES, edit_coco, write_coco
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image
from samples import ROOT
from torch import nn

from mim_plugins.engine import CheckDetectionHook, InputError, environment, launch
from mim_plugins.engine.checks.boxes import read_annotations
from mim_plugins.engine.checks.data import Data
from mim_plugins.engine.checks.image_sizes import check_padding
from mim_plugins.engine.errors import explained
from mim_plugins.models import Hiera, ViTDet

pytest.importorskip("mmdet")
pytest.importorskip("mmcv._ext")

CONFIG = ROOT / "configs/deepmim/detection/mae_vitb_mask-rcnn_coco.py"


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path)


def coco(root, classes=CLASSES, split="train2017", **options):
    from mmdet.registry import DATASETS

    pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build(
            dict(
                type="CocoDataset",
                data_root=str(root),
                ann_file=f"annotations/instances_{split}.json",
                data_prefix=dict(img=f"{split}/"),
                metainfo=dict(classes=classes),
                **dict(dict(pipeline=pipeline), **options),
            )
        )


def metric(root, split="val2017", **options):
    from mmdet.evaluation import CocoMetric

    file = root / "annotations" / f"instances_{split}.json"
    return CocoMetric(str(file), **options)


def detector(num_classes=3):
    model = nn.Module()
    model.data_preprocessor = nn.Module()
    model.roi_head = nn.Module()
    model.roi_head.bbox_head = nn.ModuleList([nn.Module(), nn.Module()])
    model.roi_head.mask_head = nn.Module()
    model.rpn_head = nn.Module()
    model.rpn_head.num_classes = 1
    for head in (*model.roi_head.bbox_head, model.roi_head.mask_head):
        head.num_classes = num_classes
    return model


def train_set(root, **options):
    return Data("train", coco(root, **options))


def val_set(root, kind="val", metrics=None, **options):
    dataset = coco(root, split="val2017", test_mode=True, **options)
    return Data(kind, dataset, metrics=metrics or [metric(root)])


def check(*sets, model=None, trained=None):
    hook = CheckDetectionHook()
    hook.check(sets, model or detector(), dict(classes=trained))


def read(root, split="train2017"):
    return json.loads((root / f"annotations/instances_{split}.json").read_text())


def edit_all(root, listed, split="train2017", **changes):
    """Changes every entry of a list of the file; functions compute their value."""
    entries = [
        entry | {k: v(entry) if callable(v) else v for k, v in changes.items()}
        for entry in read(root, split)[listed]
    ]
    edit_coco(root, split, **{listed: entries})


@pytest.fixture
def log(caplog):
    """What the checks log."""
    logger = MMLogger.get_instance("boxes")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.INFO)
    return caplog


def test_data_that_fit__pass_and_are_counted(root, log):
    check(train_set(root), val_set(root), trained=CLASSES)
    line = "train_dataloader: 2 of 2 images, 4 of 4 objects of"
    assert any(m.startswith(line) for m in log.messages)
    assert {record.levelname for record in log.records} == {"INFO"}
    # Some of the categories, in the order of the file.
    check(train_set(root, classes=CLASSES[1:]), model=detector(2))


# Classes: their number, their order, in every set, metric and checkpoint.


def test_class_count__names_the_heads_and_the_option(root):
    with pytest.raises(ValueError) as error:
        check(train_set(root), model=detector(80))
    message = str(error.value)
    assert "train_dataloader has 3 classes (person, bicycle, car" in message
    assert "model.roi_head.bbox_head.1.num_classes=3" in message
    assert "model.roi_head.mask_head.num_classes=3" in message
    assert "rpn_head" not in message


def test_categories_that_are_not_there__are_named(root):
    classes = ("person", "unicorn", "car")
    with pytest.raises(ValueError, match="no category 'unicorn' of the 3 classes"):
        check(train_set(root, classes=classes))
    # What --cfg-options makes of ('traffic light', ...).
    edit_all(root, "categories", name=lambda c: f"a {c['name']}")
    with pytest.raises(ValueError, match="--cfg-options drops spaces"):
        check(train_set(root, classes=("aperson", "abicycle", "acar")))


def test_classes_in_another_order__are_refused(root):
    """mmdet numbers them as the file does: every name would be wrong."""
    with pytest.raises(ValueError, match=r"classes=\('person', 'bicycle', 'car'\)"):
        check(train_set(root, classes=CLASSES[::-1]))


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[::-1]])
def test_categories_in_another_order_in_validation__are_refused(root, classes):
    """Neither order in the config would mend that: each file numbers by its own."""
    edit_coco(root, "val2017", categories=read(root)["categories"][::-1])
    with pytest.raises(ValueError) as error:
        check(train_set(root, classes=classes), val_set(root, classes=classes))
    message = str(error.value)
    assert "instances_train2017.json) and val_dataloader (" in message
    assert "0 is person and car" in message and "ids may stay" in message
    # As it says.
    edit_coco(root, "val2017", categories=read(root)["categories"])
    check(train_set(root), val_set(root))


def test_metric_with_categories_in_another_order__is_refused(root, tmp_path):
    other = write_coco(tmp_path / "other")
    edit_coco(other, "val2017", categories=read(root)["categories"][::-1])
    with pytest.raises(ValueError, match="and val_evaluator.ann_file have other"):
        check(train_set(root), val_set(root, metrics=[metric(other)]))


def test_category_that_validation_lacks__is_named(root):
    edit_coco(root, "val2017", categories=read(root)["categories"][1:])
    with pytest.raises(ValueError, match="val_dataloader .*'person'.*only this file"):
        check(train_set(root), val_set(root))


def test_checkpoint_of_other_classes__is_refused_in_a_test(root):
    edit_coco(root, "val2017", categories=read(root)["categories"][::-1])
    for classes in (CLASSES, CLASSES[::-1]):
        test = val_set(root, "test", classes=classes)
        with pytest.raises(ValueError, match="checkpoint's training and test_datal"):
            check(test, trained=CLASSES)
    check(test, trained=CLASSES[::-1])
    check(test, trained=None)  # of another tool, which records none


def test_classes_as_text__are_refused(root):
    with pytest.raises(ValueError, match=r"classes='person' is a text.*\('person',\)"):
        check(train_set(root, classes="person"))
    edit_coco(root, images=[])
    with pytest.raises(InputError, match=r"classes='person' is a text"), explained():
        coco(root, classes="person")


# Objects: which are used.


def broken(name):
    """Changes that leave out all objects, and what the message says about it."""
    return {
        "crowds": dict(iscrowd=1),
        "area 0": dict(area=0),
        "unlisted categories": dict(category_id=99),
        "unlisted images": dict(image_id=10**6),
        "multiply them by width and height": dict(bbox=[0.1, 0.2, 0.5, 1.0]),
        "pixels of the image": dict(bbox=[500, 500, 20, 20]),
    }[name]


@pytest.mark.parametrize(
    "reason",
    [
        "crowds",
        "area 0",
        "unlisted categories",
        "unlisted images",
        "multiply them by width and height",
        "pixels of the image",
    ],
)
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_objects_none_of_which_is_used__are_refused(root, reason, split):
    edit_all(root, "annotations", split, **broken(reason))
    with pytest.raises(ValueError, match=f"0 of 4 objects of .*{reason}"):
        check(train_set(root), val_set(root))


def test_objects__under_half_or_half_by_mistake_are_refused(root, log):
    half = [
        annotation | dict(category_id=99) if index % 2 else annotation
        for index, annotation in enumerate(read(root)["annotations"])
    ]
    edit_coco(root, annotations=half)
    with pytest.raises(ValueError, match="2 of 4 objects .*left out: 2 of unlisted"):
        check(train_set(root))
    half[3] |= dict(category_id=1)
    edit_coco(root, annotations=half)
    check(train_set(root))
    (record,) = (r for r in log.records if "3 of 4 objects" in r.message)
    assert (
        record.levelname == "WARNING" and "1 of unlisted categories" in record.message
    )


def test_crowds_up_to_half__and_images_without_objects_are_as_in_coco(root, log):
    annotations = read(root)["annotations"]
    edit_coco(root, annotations=[a | dict(iscrowd=a["id"] % 2) for a in annotations])
    edit_coco(root, "val2017", annotations=read(root, "val2017")["annotations"][:1])
    check(train_set(root), val_set(root))
    assert {record.levelname for record in log.records} == {"INFO"}


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_boxes_of_two_corners__are_refused(root, split):
    def corners(annotation):
        x, y, w, h = annotation["bbox"]
        return [x, y, x + w, y + h]

    shifted = [  # away from the first corner, as objects mostly are
        a | dict(bbox=[a["bbox"][0] + 5, a["bbox"][1] + 12, *a["bbox"][2:]])
        for a in read(root, split)["annotations"]
    ]
    edit_coco(root, split, annotations=shifted)
    check(train_set(root), val_set(root))
    edit_all(root, "annotations", split, bbox=corners)
    with pytest.raises(ValueError, match="subtract the first corner"):
        check(train_set(root), val_set(root))


def test_boxes_of_larger_images__are_refused(root):
    edit_all(root, "annotations", bbox=[45, 5, 40, 30])
    with pytest.raises(ValueError, match="of 4 boxes reach far beyond their image"):
        check(train_set(root))


def test_annotation_0__which_never_counts_as_found_is_refused(root):
    edit_all(root, "annotations", "val2017", id=lambda a: a["id"] - 1)
    with pytest.raises(ValueError, match="val_evaluator.* id 0, .*from 1"):
        check(train_set(root), val_set(root))
    edit_all(root, "annotations", id=lambda a: a["id"] - 1)
    check(train_set(root))  # training does not mind


def test_boxes_without_masks__are_refused_where_masks_are_read(root):
    for split in ("train2017", "val2017"):
        edit_all(root, "annotations", split, segmentation=[])
    check(train_set(root), val_set(root))
    load = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_mask=True),
    ]
    with pytest.raises(
        ValueError, match="4 of 4 .*no mask.*with_mask=True.*mask_head="
    ):
        check(train_set(root, pipeline=load))
    masks = metric(root, metric=["bbox", "segm"])
    with pytest.raises(ValueError, match="the metric 'segm' reads"):
        check(train_set(root), val_set(root, metrics=[masks]))


def test_metric_of_masks__for_a_model_without_is_refused(root):
    model = detector()
    model.roi_head.with_mask = False
    masks = metric(root, metric=["bbox", "segm"])
    with pytest.raises(ValueError, match="set val_evaluator.metric=bbox"):
        check(train_set(root), val_set(root, metrics=[masks]), model=model)


def test_test_without_ground_truth__runs(root, tmp_path):
    """As COCO's test-dev: images and categories alone."""
    content = read(root, "val2017")
    del content["annotations"]
    file = root / "annotations/instances_val2017.json"
    file.write_text(json.dumps(content))
    prefix = str(tmp_path / "results")
    only = metric(root, format_only=True, outfile_prefix=prefix)
    check(val_set(root, "test", metrics=[only]), trained=CLASSES)
    with pytest.raises(ValueError, match="0 of 0 objects .*format_only=True"):
        check(val_set(root, "test"), trained=CLASSES)


def test_file_of_panoptic_segmentation__is_left_alone(root):
    panoptic = [dict(image_id=100, file_name="a.png", segments_info=[])]
    dataset = coco(root)
    edit_coco(root, annotations=panoptic)
    assert read_annotations(dataset) == {}


# Images.


def test_objects_of_other_images__are_explained_when_none_is_left(root):
    edit_all(root, "annotations", image_id=10**6)
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
        check(train_set(root))


def test_image_that_cannot_be_read__is_named_not_the_annotations(root):
    (root / "train2017/000000000001.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"0001.jpg cannot be read \("):
        check(train_set(root))
    with pytest.raises(InputError) as error, explained():
        coco(root, max_refetch=0)[1]
    assert "000000000001.jpg" in str(error.value)
    assert "COCO's layout" not in str(error.value)


def test_height_and_width_swapped__are_refused(root):
    edit_all(
        root,
        "images",
        "val2017",
        height=lambda i: i["width"],
        width=lambda i: i["height"],
    )
    with pytest.raises(ValueError, match="pixels .*: height and width are swap"):
        check(train_set(root), val_set(root))


SWAPPED = dict(height=lambda i: i["width"], width=lambda i: i["height"])


def turn(root, size=None, orientation=6):
    """Gives the training images an EXIF orientation, 90 degrees by default."""
    for path in (root / "train2017").iterdir():
        with Image.open(path) as image:
            exif = image.getexif()
            exif[274] = orientation
            image.resize(size or image.size).save(path, exif=exif)


def as_stored(**options):
    load = dict(type="LoadImageFromFile", color_type="color_ignore_orientation")
    return dict(pipeline=[load, dict(type="LoadAnnotations")], **options)


def test_turned_images__boxes_in_stored_pixels(root, log):
    turn(root)
    with pytest.raises(ValueError, match="as stored: .*'color_ignore_orientation'"):
        check(train_set(root))
    check(train_set(root, **as_stored()))
    assert "EXIF" not in log.text


def test_turned_images__boxes_in_turned_pixels(root, log):
    turn(root)
    edit_all(root, "images", **SWAPPED)
    check(train_set(root))
    assert "EXIF" not in log.text
    with pytest.raises(ValueError, match="image as turned: set color_type='color'"):
        check(train_set(root, **as_stored()))


def test_square_turned_images__are_warned_about(root, log):
    turn(root, (64, 64))
    edit_all(root, "images", height=64, width=64)
    check(train_set(root, **as_stored()))
    assert "EXIF" not in log.text
    check(train_set(root))
    assert "2 sampled images, such as" in log.text and "EXIF" in log.text


def test_metric_of_other_images__is_refused(root):
    (root / "other").mkdir()
    write_coco(root / "other", num_images=4)
    with pytest.raises(ValueError, match="has 2 of the 4 images that val_evaluator"):
        check(val_set(root, metrics=[metric(root / "other")]))
    edit_coco(root / "other", "val2017", images=[dict(id=1, file_name="a.jpg")])
    with pytest.raises(ValueError, match="does not list 2 of the 2 images"):
        check(val_set(root, metrics=[metric(root / "other")]))


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
    joined = Data("train", ConcatDataset([coco(root), coco(broken)]))
    check(joined)
    with pytest.raises(ValueError, match="has 3 classes"):
        check(joined, model=detector(80))
    (broken / "train2017/000000000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="broken/train2017/000000000001.jpg"):
        check(joined)


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
