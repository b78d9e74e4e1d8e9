"""Optimiser groups of detectors by ViTDet's rules, parameter by parameter."""

import re

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from samples import ROOT, laid_out_only
from torch import nn

pytest.importorskip("mmdet")
pytest.importorskip("mmcv._ext")


def model_and_cfg(path):
    from mmdet.registry import MODELS

    cfg = Config.fromfile(ROOT / "configs" / path)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"), laid_out_only():
        return MODELS.build(cfg.model), cfg


def groups_of(model, optim_wrapper):
    """Learning rate and weight decay of every parameter, by name."""
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in build_optim_wrapper(model, optim_wrapper).optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters()}


def layer_norms(model, part: str) -> set[str]:
    """Names of the parameters of layer norms in a part of a model."""
    return {
        f"{part}.{path}.{name}"
        for path, module in model.get_submodule(part).named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }


def published_scale(name: str, rate: float, depth: int) -> float:
    """ViTDet's released rule: embeddings at 0, block i at i + 1, the rest above."""
    layer = depth + 1
    if name.startswith("backbone."):
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif block := re.match(r"backbone\.layers\.(\d+)\.", name):
            layer = int(block[1]) + 1
    return rate ** (depth + 1 - layer)


@pytest.mark.parametrize(
    ("path", "depth", "rate", "decay"),
    [
        ("deepmim/detection/mae_vitb_mask-rcnn_coco.py", 12, 0.7, 0.1),
        ("localmim/detection/vitb_hog_1600e_cascade-mask-rcnn_coco.py", 12, 0.7, 0.1),
        ("mirl/detection/vits54_800e_mask-rcnn_coco.py", 54, 0.7 ** (13 / 55), 0.1),
        ("distilled/detection/d2-mae_vitt_mask-rcnn_coco.py", 12, 1.0, 0.05),
        ("distilled/detection/mae-lite_hierat_mask-rcnn_coco.py", 12, 1.0, 0.05),
    ],
)
def test_groups__are_those_of_the_released_rules(path, depth, rate, decay):
    """Of the encoder, norms and position embedding are not decayed; the rest is."""
    model, cfg = model_and_cfg(path)
    norms = layer_norms(model, "backbone")
    assert len(norms) >= 2 * 2 * depth
    for name, found in groups_of(model, cfg.optim_wrapper).items():
        spared = name in norms or name == "backbone.pos_embed"
        wanted = (1e-4 * published_scale(name, rate, depth), 0.0 if spared else decay)
        assert found == pytest.approx(wanted), name


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("mae/detection/vitb_mask-rcnn_coco.py", 34),
        ("mae/detection/vitb_cascade-mask-rcnn_coco.py", 66),
    ],
)
def test_groups__decay_the_layer_norms_of_pyramid_and_heads(path, count):
    """As detectron2, which spares torch's LayerNorm alone: theirs is another class."""
    model, cfg = model_and_cfg(path)
    groups = groups_of(model, cfg.optim_wrapper)
    norms = layer_norms(model, "neck") | layer_norms(model, "roi_head")
    assert len(norms) == count
    assert {groups[name] for name in norms} == {(1e-4, 0.1)}


def test_groups__of_swin_spare_norms_and_tables():
    model, cfg = model_and_cfg("localmim/detection/swinb_hog_400e_mask-rcnn_coco.py")
    spared = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or name.endswith("bias_table")
    }
    for name, found in groups_of(model, cfg.optim_wrapper).items():
        assert found == (1e-4, 0.0 if name in spared else 0.05), name
