"""Data that do not match a segmentor are refused, with what to change."""

import logging
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image
from samples import ade20k_layout
from torch import nn

from mim_plugins.engine import CheckSegmentationHook
from mim_plugins.engine.checks import image_sizes
from mim_plugins.engine.checks.data import Data, inner_datasets

datasets = pytest.importorskip("mmseg.datasets")
metrics = pytest.importorskip("mmseg.evaluation")

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


@pytest.fixture
def data(tmp_path):
    """Four images of 5 classes, and a function that reads them as a data set."""
    ade20k_layout(tmp_path, labels=5, count=4)
    return reader(tmp_path), tmp_path


def reader(folder):
    def read(classes=5, reduce_zero_label=True, part="training", **options):
        prefix = dict(img_path=f"images/{part}", seg_map_path=f"annotations/{part}")
        names = classes
        if isinstance(classes, int):
            names = tuple(f"c{k}" for k in range(classes))
        pipeline = [*LOAD, dict(type="PackSegInputs")]
        with DefaultScope.overwrite_default_scope("mmseg"):
            return datasets.BaseSegDataset(
                data_root=str(folder),
                metainfo=dict(classes=names),
                reduce_zero_label=reduce_zero_label,
                **dict(dict(pipeline=pipeline, data_prefix=prefix), **options),
            )

    return read


def write(folder, draw, size=(32, 48), count=4, parts=("training", "validation")):
    """Images of noise, and label maps of which a function draws the i-th."""
    rng = np.random.default_rng(0)
    for part in parts:
        for index in range(count):
            image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            mmcv.imwrite(image, str(folder / f"images/{part}/{index}.jpg"))
            label = np.broadcast_to(draw(index), size).astype(np.uint8)
            mmcv.imwrite(label.copy(), str(folder / f"annotations/{part}/{index}.png"))
    return reader(folder)


def left_right(left, right):
    """A label map of two values, each on one half."""
    return lambda index: np.where(np.arange(48) < 24, left, right)


def model(num_classes=5, ignore_index=255, **heads):
    whole = nn.Module()
    whole.backbone = nn.Identity()
    for name in ("decode_head", "auxiliary_head"):
        head = nn.Module()
        head.num_classes = num_classes
        head.ignore_index = heads.get(name, ignore_index)
        setattr(whole, name, head)
    return whole


def check(*sets, segmentor=None, **trained):
    CheckSegmentationHook(num_samples=4).check(sets, segmentor or model(), trained)


def train_set(dataset):
    return Data("train", dataset)


def val_set(dataset, kind="val", batch_size=1, **options):
    return Data(kind, dataset, batch_size, [metrics.IoUMetric(**options)])


@pytest.fixture
def log(caplog):
    """What the checks log."""
    logger = MMLogger.get_instance("label_maps")
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.INFO)
    return caplog


def warnings(log):
    lines = (r.message for r in log.records if r.levelname == "WARNING")
    return [line for line in lines if not line.startswith("The prefix is not set")]


def test_what_fits__passes(data, log):
    read, _ = data
    check(train_set(read()), val_set(read(part="validation", test_mode=True)))
    assert not warnings(log)
    # Labels from 0 on, none of them ignored: one class more.
    check(train_set(read(classes=6, reduce_zero_label=False)), segmentor=model(6))


def test_label_maps__one_missing_or_of_another_name(data):
    read, folder = data
    (folder / "annotations" / "training" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images .*training/2\.png"):
        check(train_set(read()))
    with pytest.raises(FileNotFoundError, match=r"4 of 4 .*seg_map_suffix \(now .tif"):
        check(train_set(read(seg_map_suffix=".tif")))
    with pytest.raises(ValueError, match=r"found no image in .*ends in \.jpeg"):
        check(train_set(read(img_suffix=".jpeg", serialize_data=False)))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.ones((48, 64)), "48x80 pixels .*its label map .* 48x64"),
        (np.ones((80, 48)), "height and width are swapped"),
        (np.ones((48, 80, 3)), "0.png has 3 channels: a label map has one"),
        (np.full((48, 80), 6), r"label 6, but labels of 5 classes are 1 to 5 \("),
    ],
)
def test_label_map__that_does_not_fit_its_image_or_the_classes(data, label, message):
    read, folder = data
    path = folder / "annotations" / "training" / "0.png"
    mmcv.imwrite(label.astype(np.uint8), str(path))
    with pytest.raises(ValueError, match=message):
        check(train_set(read()))


def test_label_map__zero_means_none_of_the_classes_and_the_data_set_is_not_told(data):
    read, _ = data
    with pytest.raises(ValueError, match="0 to 4 .*set reduce_zero_label=True"):
        check(train_set(read(reduce_zero_label=False)))


def test_broken_label_map__is_named(data):
    read, folder = data
    (folder / "annotations/training/0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"training/0\.png cannot be read"):
        check(train_set(read()))


@pytest.mark.parametrize("count", [2, 3])
def test_labels_0_and_255__leave_one_class_to_learn(tmp_path, count):
    read = write(tmp_path, left_right(0, 255))
    dataset = read(count, reduce_zero_label=False)
    with pytest.raises(ValueError, match=r"50% .*\(label 255\).*write 1 for a foregr"):
        check(train_set(dataset), segmentor=model(count))


@pytest.mark.parametrize("names", [("background", "cat"), ("background", "cat", "dog")])
def test_background_as_a_class_and_reduce_zero_label__is_refused(tmp_path, names):
    read = write(tmp_path, lambda i: left_right(0, 1 + i % (len(names) - 1))(i))
    with pytest.raises(ValueError, match="makes 1 the first class, 'background': set"):
        check(train_set(read(names)), segmentor=model(len(names)))
    dataset = read(names, reduce_zero_label=False)
    check(train_set(dataset), segmentor=model(len(names)))


def test_everything_ignored__is_refused(tmp_path):
    read = write(tmp_path, lambda index: 255)
    with pytest.raises(ValueError, match="100% of the pixels are ignored"):
        check(train_set(read(2, reduce_zero_label=False)), segmentor=model(2))


def test_more_than_half_ignored__is_said_and_may_be_meant(tmp_path, log):
    """As with scribbles."""
    rows = np.where(np.arange(48) < 4, 0, np.where(np.arange(48) < 8, 1, 255))
    read = write(tmp_path, lambda index: rows)
    check(train_set(read(2, reduce_zero_label=False)), segmentor=model(2))
    assert any("83% of the pixels are ignored" in line for line in warnings(log))
    log.clear()
    rows = np.where(np.arange(48) < 24, 0, np.where(np.arange(48) < 26, 1, 255))
    read = write(tmp_path, lambda index: rows)
    check(train_set(read(2, reduce_zero_label=False)), segmentor=model(2))
    assert not warnings(log)


def test_rare_class__is_said_at_most(tmp_path, log):
    read = write(tmp_path, lambda i: left_right(0, 2 if i == 4 else 1)(i), count=9)
    check(train_set(read(3, reduce_zero_label=False)), segmentor=model(3))
    (line,) = warnings(log)
    assert "in 4 of 9 label maps" in line and "none has c2" in line
    log.clear()
    # More classes than maps: too few to say so aloud.
    check(train_set(read(20, reduce_zero_label=False)), segmentor=model(20))
    assert not warnings(log)
    # In a set of two classes, a rare one is looked for before anything is refused.
    read = write(tmp_path, lambda i: left_right(0, 1 if i == 4 else 255)(i), count=9)
    check(train_set(read(2, reduce_zero_label=False)), segmentor=model(2))


@pytest.mark.parametrize("kind", ["grayscale", "palette"])
def test_label_maps_of_numbers__as_editors_write_them(tmp_path, kind):
    read = write(tmp_path, left_right(0, 1))
    if kind == "palette":
        for path in (tmp_path / "annotations").rglob("*.png"):
            with Image.open(path) as image:
                image = Image.fromarray(np.array(image), "P")
                image.putpalette([0, 0, 0, 255, 0, 0])
                image.save(path)
    check(train_set(read(2, reduce_zero_label=False)), segmentor=model(2))


def test_labels_are_looked_at_after_the_pipeline(tmp_path):
    """A step of one's own may turn 255 into 1."""
    from mmcv.transforms import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class ForegroundIsOne:
        def __call__(self, info):
            info["gt_seg_map"] = (info["gt_seg_map"] == 255).astype(np.uint8)
            return info

    read = write(tmp_path, left_right(0, 255))
    steps = [*LOAD, dict(type="ForegroundIsOne"), dict(type="PackSegInputs")]
    dataset = read(2, reduce_zero_label=False, pipeline=steps)
    check(train_set(dataset), segmentor=model(2))


def test_reduce_zero_label__is_one_in_all_sets_and_the_checkpoint(tmp_path):
    read = write(tmp_path, left_right(1, 2))
    train = train_set(read(2))
    val = val_set(read(2, reduce_zero_label=False, part="validation"))
    found = "True in train_dataloader, False in val_dataloader: one label"
    with pytest.raises(ValueError, match=found):
        check(train, val, segmentor=model(2))
    names = ("c0", "c1")
    test = val_set(read(2, part="validation"), "test")
    check(test, segmentor=model(2), classes=names, reduce_zero_label=True)
    with pytest.raises(ValueError, match="False in the checkpoint's training"):
        check(test, segmentor=model(2), classes=names, reduce_zero_label=False)
    load = [LOAD[0], dict(type="LoadAnnotations", reduce_zero_label=False)]
    with pytest.raises(
        ValueError, match="cannot be read .*`reduce_zero_label` as True"
    ):
        check(train_set(read(2, pipeline=load)), segmentor=model(2))


def test_ignored_label__is_one_in_data_heads_and_metric(tmp_path):
    rows = np.arange(48) // 16
    read = write(tmp_path, lambda index: rows)

    def sets(ignore_index, in_metric):
        options = dict(reduce_zero_label=False, ignore_index=ignore_index)
        val = read(2, part="validation", **options)
        return train_set(read(2, **options)), val_set(val, ignore_index=in_metric)

    with pytest.raises(ValueError, match="decode_head.ignore_index=255, .*dataset.ig"):
        check(*sets(2, 255), segmentor=model(2))
    with pytest.raises(ValueError, match="val_evaluator.ignore_index=255"):
        check(*sets(2, 255), segmentor=model(2, 2))
    with pytest.raises(ValueError, match="auxiliary_head.ignore_index=255"):
        check(*sets(2, 2), segmentor=model(2, 2, auxiliary_head=255))
    check(*sets(2, 2), segmentor=model(2, 2))
    check(*sets(255, 2), segmentor=model(2, 2))  # mmseg itself reads no data set's


def test_classes__are_one_in_all_sets_and_the_checkpoint(data):
    read, _ = data
    other = read(("c1", "c0", "c2", "c3", "c4"), part="validation")
    with pytest.raises(ValueError, match="train_dataloader and val_dataloader.*0 is"):
        check(train_set(read()), val_set(other))
    names = tuple(f"c{k}" for k in range(5))
    check(val_set(read(), "test"), classes=names)
    with pytest.raises(ValueError, match="checkpoint's training and test_dataloader"):
        check(val_set(read(), "test"), classes=names[::-1])
    with pytest.raises(ValueError, match=r"'whale' is a text"):
        check(train_set(read("whale")))


def test_head_without_class_names_in_the_data__bounds_the_labels(data):
    read, _ = data
    dataset = read(())
    check(train_set(dataset))
    with pytest.raises(ValueError, match="label 5, but labels of 4 classes are 1 to 4"):
        check(train_set(dataset), segmentor=model(4))


def test_test_without_labels__runs(data, tmp_path):
    read, folder = data
    images = dict(data_prefix=dict(img_path="images/validation"))
    predict = [LOAD[0], dict(type="PackSegInputs")]
    only = dict(format_only=True, output_dir=str(tmp_path / "out"))
    check(val_set(read(pipeline=predict, **images), "test", **only))
    with pytest.raises(ValueError, match="no LoadAnnotations.*format_only=True"):
        check(val_set(read(pipeline=predict, **images), "test"))
    with pytest.raises(FileNotFoundError, match="take LoadAnnotations out of the pip"):
        check(val_set(read(**images), "test", **only))


def turn(folder, size=None, orientation=6):
    """Gives the training images an EXIF orientation, 90 degrees by default."""
    for path in (folder / "images/training").iterdir():
        with Image.open(path) as image:
            exif = image.getexif()
            exif[274] = orientation
            image.resize(size or image.size).save(path, exif=exif)


def test_turned_images__maps_of_stored_pixels(data, log):
    read, folder = data
    turn(folder)
    with pytest.raises(ValueError, match="as stored: .*'color_ignore_orientation'"):
        check(train_set(read()))
    load = dict(type="LoadImageFromFile", color_type="color_ignore_orientation")
    check(train_set(read(pipeline=[load, *LOAD[1:], dict(type="PackSegInputs")])))
    assert not warnings(log)


def test_turned_images__maps_of_turned_pixels(data, log):
    read, folder = data
    turn(folder)
    for path in (folder / "annotations/training").iterdir():
        mmcv.imwrite(np.rot90(mmcv.imread(path, "unchanged")).copy(), str(path))
    check(train_set(read()))
    assert not warnings(log)


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_images__of_which_the_size_says_nothing(tmp_path, log, orientation):
    read = write(tmp_path, lambda i: np.eye(32) + 1, (32, 32))
    turn(tmp_path, orientation=orientation)
    check(train_set(read(2)), segmentor=model(2))
    (line,) = warnings(log)
    assert "4 sampled images" in line and "color_ignore_orientation" in line


def test_test_batch_of_several_sizes__is_refused(data):
    read, folder = data
    dataset = read(part="validation")
    check(val_set(dataset, batch_size=2))
    path = "validation/1"
    mmcv.imwrite(np.zeros((32, 80, 3), np.uint8), str(folder / f"images/{path}.jpg"))
    mmcv.imwrite(np.ones((32, 80), np.uint8), str(folder / f"annotations/{path}.png"))
    with pytest.raises(ValueError, match="val_dataloader.batch_size=1"):
        check(val_set(dataset, batch_size=2))
    check(val_set(dataset))


def test_rare_wrong_label__names_its_file_when_it_comes(data):
    read, folder = data
    sample = read()[2]["data_samples"]
    batch = dict(data_samples=[sample])
    runner = SimpleNamespace(model=model())
    hook = CheckSegmentationHook()
    hook.before_train_iter(runner, 0, batch)
    sample.gt_sem_seg.data[0, 3, 3] = 5
    with pytest.raises(ValueError, match=r"training/2\.png has the label 6"):
        hook.before_train_iter(runner, 0, batch)


def test_score__says_which_classes_have_no_labels(log):
    metric = metrics.IoUMetric()
    metric.dataset_meta = dict(classes=("road", "sky", "car"))
    areas = torch.tensor([[1.0, 0, 2], [3, 0, 2], [2, 0, 2], [2, 0, 2]])
    metric.results = [tuple(areas)]
    runner = SimpleNamespace(
        val_dataloader=[0],
        val_evaluator=SimpleNamespace(metrics=[metric]),
        logger=MMLogger.get_current_instance(),
    )
    CheckSegmentationHook().after_val_iter(runner, 0)
    (line,) = warnings(log)
    assert "of 3 classes, no label of this data is sky" in line


def segmentor(**test_cfg):
    preprocessor = SimpleNamespace(
        size=(64, 64), test_cfg=test_cfg.pop("padding", dict(size=(64, 64)))
    )
    options = dict(mode="slide", crop_size=(64, 64), stride=(43, 43)) | test_cfg
    return SimpleNamespace(test_cfg=options, data_preprocessor=preprocessor)


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(mode="whole"), "mode='whole'.*set model.test_cfg.mode=slide"),
        (dict(crop_size=(32, 64)), r"crop_size=\(32, 64\)"),
        (dict(stride=(43, 65)), "leaves gaps"),
        (dict(padding=None), r"test_cfg.size=\(64, 64\), now None"),
    ],
)
def test_test_sizes__are_those_of_the_relative_positions(test_cfg, message):
    image_sizes.check_test_sizes(segmentor(), (64, 64))
    with pytest.raises(ValueError, match=message):
        image_sizes.check_test_sizes(segmentor(**test_cfg), (64, 64))


def test_joined_data_sets__are_looked_into(data):
    read, _ = data
    joined, repeated = ConcatDataset([read(), read()]), RepeatDataset(read(), times=2)
    assert [len(part) for part in inner_datasets(joined, "seg_map_suffix")] == [4, 4]
    assert [len(part) for part in inner_datasets(repeated, "seg_map_suffix")] == [4]
