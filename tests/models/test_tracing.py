"""Traced encoders: equal to the model itself at any number of images."""

import warnings

import pytest
import torch
from samples import TINY_ARCH, TINY_HIERA

from mim_plugins.models import (
    Hiera,
    MIMSwinTransformer,
    MIMVisionTransformer,
    RelPosVisionTransformer,
    ViTDet,
)

SWIN = dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2])


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (MIMVisionTransformer, dict(arch=TINY_ARCH)),
        (RelPosVisionTransformer, dict(arch=TINY_ARCH)),
        (MIMSwinTransformer, dict(arch=SWIN, window_size=4)),
        (
            MIMSwinTransformer,
            dict(arch=SWIN, window_size=7, pad_small_map=True, out_indices=(0, 1)),
        ),
        (Hiera, dict(arch=TINY_HIERA)),
        (Hiera, dict(arch=TINY_HIERA, out_type="featmap")),
        (ViTDet, dict(arch=TINY_ARCH, pretrain_img_size=32, window_size=3)),
    ],
)
@pytest.mark.parametrize("traced_with", [1, 2])
def test_trace__equals_the_model_at_another_number_of_images(cls, options, traced_with):
    model = cls(img_size=64, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    with torch.no_grad(), warnings.catch_warnings():
        # Sizes of the image become constants.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, torch.randn(traced_with, 3, 64, 64))
        for count in (1, 2, 5):
            images = torch.randn(count, 3, 64, 64)
            for found, wanted in zip(traced(images), model(images), strict=True):
                torch.testing.assert_close(found, wanted)
