"""Segmentation's pyramid: mmseg's, with the pooling and widths papers differ in."""

import pytest
import torch
from torch.nn import functional as F

from mim_plugins.models import ViTPyramid

NORM = dict(type="BN")


def maps():
    return [torch.randn(2, 6, 4, 6) for _ in range(4)]


def test_defaults__equal_mmsegs_neck_key_by_key():
    necks = pytest.importorskip("mmseg.models.necks")
    theirs = necks.Feature2Pyramid(6, norm_cfg=NORM)
    ours = ViTPyramid(6, norm_cfg=NORM)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    inputs = maps()
    for found, wanted in zip(ours(inputs), theirs(inputs), strict=True):
        assert torch.equal(found, wanted)


def test_average__is_localmims_coarsest_map():
    inputs = maps()
    levels = ViTPyramid(6, pool="avg", norm_cfg=NORM)(inputs)
    assert [level.shape[-2:] for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert torch.equal(levels[3], F.avg_pool2d(inputs[3], 2))
    assert levels[2] is inputs[2]


def test_out_channels__narrow_every_level_before_pooling():
    neck = ViTPyramid(6, out_channels=3, norm_cfg=NORM)
    inputs = maps()
    levels = neck(inputs)
    assert {level.shape[1] for level in levels} == {3}
    narrow, pool = neck.downsample_2x
    assert torch.equal(levels[3], F.max_pool2d(narrow(inputs[3]), 2))
    assert isinstance(pool, torch.nn.MaxPool2d)
    assert neck.upsample_4x[1].num_features == 3


def test_mistakes__are_named():
    with pytest.raises(ValueError, match="pool is one of .*'mean'"):
        ViTPyramid(6, pool="mean")
    with pytest.raises(ValueError, match="got 3: set backbone.out_indices to 4"):
        ViTPyramid(6, norm_cfg=NORM)(maps()[:3])
