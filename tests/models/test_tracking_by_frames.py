"""Crops, and following an object through a video."""

import numpy as np
import pytest
import torch
from test_tracker import build

from mim_plugins.models import Tracker
from mim_plugins.models.trackers.centre_head import Maps
from mim_plugins.models.trackers.crops import Region, clip_box


def frame(height=60, width=80):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


class Fixed:
    """A network whose maps are given."""

    template_size, search_size = 32, 64
    template_factor, search_factor = 2.0, 4.0

    def __init__(self, maps):
        self._maps = maps

    def template(self, crop):
        assert crop.shape == (32, 32, 3)

    def maps(self, template, crop):
        assert crop.shape == (64, 64, 3)
        return self._maps


def maps(row, column, size=(0.25, 0.25)):
    score = torch.full((1, 1, 8, 8), 1e-4)
    score[0, 0, row, column] = 0.9
    sizes = torch.tensor(size).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    return Maps(score, sizes, torch.zeros(1, 2, 8, 8))


def test_update__maps_the_box_back_to_the_frame():
    # A region of side 64 around (40, 30): from (8, -2). Centre at 4/8, 5/8 of it.
    tracker = Tracker(Fixed(maps(5, 4))).init(frame(), (32, 22, 16, 16))
    assert tracker.update(frame()).tolist() == pytest.approx([32, 30, 16, 16])
    assert tracker.box.tolist() == pytest.approx([32, 30, 16, 16])
    # From there the region moves along, and nothing else does.
    assert tracker.update(frame()).tolist() == pytest.approx([32, 38, 16, 16])


def test_window__prefers_what_is_near():
    near = maps(4, 4)
    near.score[0, 0, 0, 0] = 0.95  # higher, but in the corner
    tracker = Tracker(Fixed(near)).init(frame(), (32, 22, 16, 16))
    assert tracker.update(frame()).tolist() == pytest.approx([32, 22, 16, 16])
    window = np.sin(np.pi * np.arange(1, 9) / 9) ** 2
    assert tracker.score == pytest.approx(0.9 * window[4] ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((-50, 5, 20, 20), (0, 5, 10, 20)),
        ((75, 5, 20, 20), (70, 5, 10, 20)),
        ((10, 10, 2, 3), (10, 10, 10, 10)),
        ((-10, -10, 200, 200), (0, 0, 80, 60)),
    ],
)
def test_box__keeps_ten_pixels_inside_the_frame(box, clipped):
    assert clip_box(box, 60, 80).tolist() == list(clipped)


def test_region__is_there_and_back():
    region = Region.around((10.5, 20, 30, 17), 4)
    box = np.array([12.25, 33, 9, 11])
    assert np.allclose(region.absolute(region.relative(box)), box)
    assert region.side == int(np.ceil(4 * np.sqrt(30 * 17)))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1, 2, 3), "four numbers x,y,width,height"),
        ("1,2,3,4", "four numbers"),
        ((1, 2, 0, 4), "positive width and height"),
        ((1, 2, float("nan"), 4), "positive width and height"),
        ((80, 5, 10, 10), "outside of the frame, which is 80 pixels wide and 60"),
        ((-10, 5, 10, 10), "outside of the frame"),
    ],
)
def test_init__refuses_boxes_it_cannot_follow(box, words):
    with pytest.raises(ValueError, match=words):
        Tracker(Fixed(maps(4, 4))).init(frame(), box)


@pytest.mark.parametrize(
    "image", [None, np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), "uint8")]
)
def test_frame__is_a_colour_image_of_bytes(image):
    with pytest.raises(ValueError, match="uint8 array"):
        Tracker(Fixed(maps(4, 4))).init(image, (1, 1, 2, 2))


def test_update__comes_after_init():
    with pytest.raises(RuntimeError, match="init"):
        Tracker(build()).update(frame())


def test_tracker__computes_what_the_model_does_without_autograd():
    model = build()
    tracker = Tracker(model).init(frame(), (32, 22, 16, 16))
    region = Region.around((32, 22, 16, 16), 4)
    crops = [
        Region.around((32, 22, 16, 16), 2).crop(frame(), 32),
        region.crop(frame(), 64),
    ]
    batch = {
        name: torch.from_numpy(crop).permute(2, 0, 1)[None]
        for name, crop in zip(("template", "search"), crops, strict=True)
    }
    inputs = model.data_preprocessor({"inputs": batch})["inputs"]
    wanted = model(inputs)
    found = tracker.network.maps(tracker._template, crops[1])
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6) and not a.requires_grad
    box = tracker.update(frame())
    assert box.shape == (4,) and (box[2:] >= 10).all()
    assert np.array_equal(tracker.init(frame(), (32, 22, 16, 16)).update(frame()), box)
