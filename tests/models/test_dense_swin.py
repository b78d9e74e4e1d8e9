"""The Swin Transformer of segmentation, on maps that windows do not divide."""

import pytest
import torch
from torch import nn

from mim_plugins.models import MIMSwinTransformer

ARCH = dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 1, 2, 2])


def encoder():
    model = MIMSwinTransformer(
        arch=dict(ARCH),
        img_size=64,
        window_size=7,
        pad_small_map=True,
        drop_path_rate=0.0,
        norm_eps=1e-5,
        out_indices=(0, 1, 2, 3),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval()
    return model


# Odd maps, which merging pads; images that patches do not divide; maps smaller than a
# window, in which windows still shift.
@pytest.mark.parametrize("size", [(96, 128), (90, 118), (36, 20)])
def test_maps__equal_mmsegs(size):
    backbones = pytest.importorskip("mmseg.models.backbones")
    theirs = backbones.SwinTransformer(
        embed_dims=8,
        depths=ARCH["depths"],
        num_heads=ARCH["num_heads"],
        window_size=7,
        drop_path_rate=0.0,
        init_cfg=None,
    )
    ours = encoder()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.eval()
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        found, wanted = ours(images), theirs(images)
    assert [x.shape for x in found] == [x.shape for x in wanted]
    for map_, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(map_, other, rtol=1e-4, atol=1e-5)


def test_masked_pass__is_refused_where_maps_are_padded():
    with pytest.raises(ValueError, match="pad_small_map=True pads windows for dense"):
        encoder().image_grid(torch.randn(1, 3, 64, 64))
