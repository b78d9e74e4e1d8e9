"""Every official ViT checkpoint fills a ViTDet of its size, tables of offsets apart."""

import json

import pytest
import torch
from key_lists import key_lists, list_of
from mmpretrain.registry import MODELS
from samples import laid_out_only

from mim_plugins.checkpoints.files import Checkpoint
from mim_plugins.checkpoints.loading import Target
from mim_plugins.checkpoints.loading.adapt import adapt_official

ARCHS = {
    "tiny": (192, 12, 12),
    "small": (384, 12, 12),
    "base": (768, 12, 12),
    "b12": (768, 12, 12),
    "b24": (768, 24, 12),
    "b48": (768, 48, 12),
    "s54": (384, 54, 12),
    "large": (1024, 24, 16),
}
NAMES = [
    name
    for name in key_lists()
    if not any(word in name for word in ("swin", "simmim", "hiera", "rpe", "segment"))
]


@pytest.mark.parametrize("name", NAMES)
def test_official_checkpoint__fills_a_vitdet(name):
    # A distilled student's size is named after its teacher's could be.
    size = next(size for size in ARCHS if size in name.split("/")[1])
    width, depth, heads = ARCHS[size]
    with laid_out_only():
        model = MODELS.build(
            dict(
                type="ViTDet",
                arch=dict(
                    embed_dims=width,
                    num_layers=depth,
                    num_heads=heads,
                    feedforward_channels=4 * width,
                ),
            )
        )
    shapes = json.loads(list_of(name).read_text())["tensors"]
    zero = torch.zeros(1)
    tensors = {key: zero.expand(shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint.of({"state_dict": tensors}, name)
    (layout,) = checkpoint.candidates
    state, report = adapt_official(Target.of(model), checkpoint, layout)
    own = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    assert all(tuple(x.shape) == own[key] for key, x in state.items())
    tables = {key for key in own if "rel_pos" in key}
    assert len(tables) == 2 * depth
    assert set(report.missing) == set(own) - set(state) == tables
    assert report.dropped["cls_token"] == "ViTDet has no such part"
    assert report.unexpected == []
