"""Data that do not match a segmentor are refused, with what to change."""

from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope
from samples import ade20k_layout

from mim_plugins.engine.hooks import segmentation as check
from mim_plugins.engine.hooks.dataset_checks import inner_datasets

datasets = pytest.importorskip("mmseg.datasets")


@pytest.fixture
def data(tmp_path):
    """Four images of 5 classes, and a function that reads them as a data set."""
    ade20k_layout(tmp_path, labels=5, count=4)

    def read(classes=5, reduce_zero_label=True, **options):
        with DefaultScope.overwrite_default_scope("mmseg"):
            return datasets.BaseSegDataset(
                data_root=str(tmp_path),
                metainfo=dict(classes=[f"c{k}" for k in range(classes)]),
                reduce_zero_label=reduce_zero_label,
                data_prefix=dict(
                    img_path="images/training", seg_map_path="annotations/training"
                ),
                **options,
            )

    return read, tmp_path


def test_what_fits__passes(data):
    read, _ = data
    dataset = read()
    check.check_files("train_dataloader", dataset)
    for index in range(4):
        check.check_label_map(dataset, index)
    # Labels from 0 on, none of them ignored: one class more.
    check.check_label_map(read(classes=6, reduce_zero_label=False), 0)


def test_label_maps__one_missing_or_of_another_name(data):
    read, folder = data
    (folder / "annotations" / "training" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images .*training/2\.png"):
        check.check_files("train_dataloader", read())
    with pytest.raises(FileNotFoundError, match=r"4 of 4 .*seg_map_suffix \(now .tif"):
        check.check_files("train_dataloader", read(seg_map_suffix=".tif"))
    with pytest.raises(ValueError, match=r"found no image in .*ends in \.jpeg"):
        check.check_files(
            "train_dataloader", read(img_suffix=".jpeg", serialize_data=False)
        )


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.ones((48, 64)), "48x80 pixels, its label map .* 48x64"),
        (np.ones((48, 80, 3)), "0.png has 3 channels: a label map has one"),
        (np.full((48, 80), 6), r"label 6, but labels of 5 classes are 1 to 5 \("),
    ],
)
def test_label_map__that_does_not_fit_its_image_or_the_classes(data, label, message):
    read, folder = data
    path = folder / "annotations" / "training" / "0.png"
    mmcv.imwrite(label.astype(np.uint8), str(path))
    with pytest.raises(ValueError, match=message):
        check.check_label_map(read(), 0)


def test_label_map__zero_means_none_of_the_classes_and_the_data_set_is_not_told(data):
    read, _ = data
    with pytest.raises(ValueError, match="0 to 4 .*set reduce_zero_label=True"):
        check.check_label_map(read(reduce_zero_label=False), 0)


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
    check.check_test_sizes(segmentor(), (64, 64))
    with pytest.raises(ValueError, match=message):
        check.check_test_sizes(segmentor(**test_cfg), (64, 64))


def test_joined_data_sets__are_looked_into(data):
    read, _ = data
    joined, repeated = ConcatDataset([read(), read()]), RepeatDataset(read(), times=2)
    assert [len(part) for part in inner_datasets(joined, "seg_map_suffix")] == [4, 4]
    assert [len(part) for part in inner_datasets(repeated, "seg_map_suffix")] == [4]
