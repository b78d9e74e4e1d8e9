"""A checkpoint that lacks some of a model is not judged with the rest from chance."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.engine.complete import require_all


def classifier(num_classes=5):
    backbone = dict(arch=TINY_ARCH, img_size=32, patch_size=8, final_norm=True)
    return MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(type="VisionTransformer", **backbone),
            head=dict(type="LinearClsHead", num_classes=num_classes, in_channels=24),
        )
    )


def saved(model, path, leave_out=()):
    state = model.state_dict()
    kept = {key: x for key, x in state.items() if not key.endswith(leave_out)}
    torch.save({"state_dict": kept}, path)
    return str(path)


def test_encoder_without_head__is_refused(tmp_path):
    path = saved(MODELS.build(tiny_model()), tmp_path / "x.pth")
    model = classifier()
    require_all(model, path)
    message = "whole ImageClassifier .*2 tensors are missing, head.fc.bias, head.fc.wei"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model, path)


def test_head_of_other_classes__is_refused(tmp_path):
    path = saved(classifier(10), tmp_path / "x.pth")
    model = classifier()
    require_all(model, path)
    with pytest.raises(ValueError, match="2 tensors have other sizes, head.fc.bias"):
        load_checkpoint(model, path)


def test_whole_checkpoint__is_taken_without_what_is_counted(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    path = saved(model, tmp_path / "x.pth", leave_out=("num_batches_tracked",))
    require_all(model, path)
    load_checkpoint(model, path)
    path = saved(model, tmp_path / "y.pth", leave_out=("running_mean",))
    with pytest.raises(ValueError, match="running_mean"):
        load_checkpoint(model, path)
