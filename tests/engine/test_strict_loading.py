"""A checkpoint that lacks part of a model is refused, rather than tested at random."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.engine.strict_loading import require_strict_loading


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
    require_strict_loading(model, path)
    message = "lacks part of the ImageClassifier .*2 tensors are missing, head.fc.bias"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model, path)


def test_head_of_other_classes__is_refused(tmp_path):
    path = saved(classifier(10), tmp_path / "x.pth")
    model = classifier()
    require_strict_loading(model, path)
    with pytest.raises(ValueError, match="2 tensors have other sizes, head.fc.bias"):
        load_checkpoint(model, path)


def test_complete_checkpoint__is_accepted_without_counters(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    path = saved(model, tmp_path / "x.pth", leave_out=("num_batches_tracked",))
    require_strict_loading(model, path)
    load_checkpoint(model, path)
    path = saved(model, tmp_path / "y.pth", leave_out=("running_mean",))
    with pytest.raises(ValueError, match="running_mean"):
        load_checkpoint(model, path)


def test_weights_that_are_not_finite__are_refused(tmp_path):
    model = classifier()
    path = saved(model, tmp_path / "x.pth")
    broken = torch.load(path)
    broken["state_dict"]["head.fc.weight"][2, 3] = torch.inf
    torch.save(broken, path)
    require_strict_loading(model, path)
    with pytest.raises(ValueError, match="x.pth: 1 of its .* head.fc.weight first"):
        load_checkpoint(model, path)
