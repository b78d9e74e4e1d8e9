"""What is said of images whose values do not fit the normalisation, or the loader."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from mmpretrain.registry import DATASETS
from torch import nn

from mim_plugins.datasets import SeededDataset
from mim_plugins.engine.hooks.input_values import (
    SampledImage,
    check_same_channels,
    check_scale,
    sample_images,
    warn_of_lost_depth,
)

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
SMALL = {key: [value / 255 for value in x] for key, x in IMAGENET.items()}


def preprocessor(**kwargs) -> nn.Module:
    return MODELS.build(dict(type="mmpretrain.MIMDataPreprocessor", **kwargs))


def photos(scale=1.0, dtype=torch.uint8, channels=3):
    values = (torch.rand(4, channels, 16, 16) * 255 * scale).to(dtype)
    return [SampledImage(image, f"{k}.png") for k, image in enumerate(values)]


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "warning", lines.append)
    return lines


@pytest.mark.parametrize(
    ("images", "statistics"),
    [
        (photos(), IMAGENET),
        (photos(1 / 255, torch.float32), SMALL),
        (photos(dtype=torch.float32), IMAGENET),
        # Dark, but of the right scale.
        (photos(0.2), IMAGENET),
        (photos(256, torch.float32), dict(mean=[3e4], std=[2e4])),
        # Normalised in the pipeline.
        (photos(1 / 255, torch.float32), {}),
        # Of one colour, which is no scale.
        ([SampledImage(torch.zeros(3, 4, 4), "")], SMALL),
    ],
)
def test_statistics_of_the_right_scale_pass(images, statistics, warnings):
    check_scale(images, preprocessor(**statistics))
    assert not warnings


@pytest.mark.parametrize(
    ("images", "statistics", "hint"),
    [
        (photos(), SMALL, "those of values from 0 to 1"),
        (photos(1 / 255, torch.float32), IMAGENET, "mean and std those of 0 to 255"),
        (photos(256, torch.float32), IMAGENET, "model.data_preprocessor.mean=\\["),
        (photos(), dict(mean=[3e4], std=[2e4]), r"values from \d to 25\d"),
    ],
)
def test_statistics_of_another_scale_are_refused(images, statistics, hint):
    with pytest.raises(ValueError, match=f"mean and std .* do not fit.*{hint}"):
        check_scale(images, preprocessor(**statistics))


def test_one_channel_of_another_scale_is_named(warnings):
    images = [
        SampledImage(torch.cat([image, image[:1] * 300]), path)
        for image, path in photos(dtype=torch.float32)
    ]
    statistics = {key: [*values, values[0]] for key, values in IMAGENET.items()}
    with pytest.raises(ValueError, match="in channel 3 of 4 images"):
        check_scale(images, preprocessor(**statistics))


def test_values_measured_are_in_the_order_of_the_normalisation():
    images = [
        SampledImage(torch.stack([torch.rand(8, 8) * v for v in (100, 200, 300)]), "")
    ]
    with pytest.raises(ValueError, match=r"mean=\[1\d\d") as reversed_order:
        check_scale(images, preprocessor(**SMALL, bgr_to_rgb=True))
    given = str(reversed_order.value).partition("mean=[")[2].partition("]")[0]
    red, green, blue = map(float, given.split(","))
    assert red > green > blue


def test_doubtful_statistics_are_warned_about(warnings):
    check_scale(photos(4, torch.float32), preprocessor(**IMAGENET))  # 10 bits
    check_scale(photos(), preprocessor())
    assert len(warnings) == 2


def test_mean_alone_of_another_scale_is_warned_about(warnings):
    mixed = dict(mean=SMALL["mean"], std=IMAGENET["std"])
    check_scale(photos(), preprocessor(**mixed))
    assert "They are those of values from 0 to 1" in warnings[0]


def test_mixed_channels_name_a_file_of_each_kind():
    odd = SampledImage(torch.zeros(4, 8, 8), "alpha.png")
    with pytest.raises(ValueError, match="4 with 3 .*3.png.*1 with 4 .*alpha.png"):
        check_same_channels([*photos(), odd])
    check_same_channels(photos())


@pytest.fixture
def deep(tmp_path):
    """A folder of images of 12 bits in files of 16."""
    draw = np.random.default_rng(0)
    for index in range(3):
        image = draw.integers(0, 4096, (24, 24), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    return tmp_path


def load(folder, **loading):
    steps = [dict(type="LoadImageFromFile", **loading), dict(type="PackPretrainInputs")]
    dataset = dict(type="UnlabelledImages", data_root=str(folder), pipeline=steps)
    return sample_images(SeededDataset(DATASETS.build(dataset)), 16)


def test_files_of_16_bits_loaded_with_8_are_said_with_the_way_out(deep):
    images = load(deep, color_type="grayscale")
    message = warn_of_lost_depth(images, preprocessor())
    assert "3 of 3 images are files of 16 bits" in message
    assert "values up to 40" in message and "(12 bits)" in message
    assert "16 grey levels remain" in message
    assert "color_type='unchanged', to_float32=True" in message
    mean = float(message.partition("mean=[")[2].partition("]")[0])
    assert abs(mean - 2047) < 100 and "in_channels" not in message
    images = load(deep, color_type="unchanged", to_float32=True)
    assert warn_of_lost_depth(images, preprocessor()) is None
    assert [path[-5:] for _, path in images] == ["0.png", "1.png", "2.png"]


def test_files_of_8_bits_are_not_spoken_of(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert warn_of_lost_depth(load(tmp_path), preprocessor()) is None


def test_files_with_colours_need_as_many_input_channels(deep):
    message = warn_of_lost_depth(load(deep), preprocessor())
    assert "model.backbone.in_channels=1" in message
