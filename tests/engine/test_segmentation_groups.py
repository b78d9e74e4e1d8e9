"""Optimiser groups of segmentors against the official ones, parameter by parameter."""

import json

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from samples import ROOT, golden_folder, laid_out_only

from mim_plugins.checkpoints.layouts import beit
from mim_plugins.models import RelPosVisionTransformer

models = pytest.importorskip("mmseg.models")


def segmentor_and_cfg(path, **backbone):
    cfg = Config.fromfile(ROOT / "configs" / path)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope("mmseg"), laid_out_only():
        return models.build_segmentor(cfg.model), cfg


def groups_of(model, optim_wrapper):
    """Scale of the lr and weight decay of every parameter, by name."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        wrapper = build_optim_wrapper(model, optim_wrapper)
    base = optim_wrapper["optimizer"]["lr"]
    found = {
        id(p): (group["lr"] / base, group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters()}


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, found in ours.items():
        assert found == pytest.approx(theirs[name]), name


def official_name(ours: str) -> str:
    """The official name of a parameter, whose pyramid belongs to the backbone."""
    return f"backbone.{beit.RULES.to_official(ours)}"


def test_deepmim__equal_the_official_ones():
    path = "deepmim/segmentation/mae-clip_vitb_upernet_ade20k.py"
    model, cfg = segmentor_and_cfg(path)
    ours = groups_of(model, cfg.optim_wrapper)
    keys = golden_folder("deepmim/keys/param_groups_segmentation.json")
    official = json.loads(keys.read_text())["params"]
    heads = {k: v for k, v in ours.items() if k.split(".")[0].endswith("_head")}
    encoder = {official_name(k): v for k, v in ours.items() if k not in heads}
    wanted = {k: v for k, v in official.items() if k.startswith("backbone.")}
    assert set(encoder) == set(wanted)
    for name, (scale, decay) in encoder.items():
        assert scale == pytest.approx(wanted[name]["lr_scale"], rel=1e-9), name
        assert decay == pytest.approx(wanted[name]["weight_decay"]), name
    # Every parameter of the heads behaves like the one layer in the key file.
    for name, found in heads.items():
        kind = "bias" if model.get_parameter(name).ndim == 1 else "weight"
        like = official[f"decode_head.conv_seg.{kind}"]
        assert found == (like["lr_scale"], like["weight_decay"]), name


def test_semantic_fpn__equal_those_of_mmsegs_constructor():
    """The official run is mmseg's; its constructor knows backbones by their names."""

    @ROOT_MODELS.register_module(force=True)
    class NamedLikeMAE(RelPosVisionTransformer):
        pass

    model, cfg = segmentor_and_cfg(
        "distilled/segmentation/d2-mae_vitt_semantic-fpn_ade20k.py", type="NamedLikeMAE"
    )
    theirs = dict(
        constructor="LearningRateDecayOptimizerConstructor",
        optimizer=dict(cfg.optim_wrapper.optimizer),
        paramwise_cfg=dict(num_layers=12, decay_rate=0.8, decay_type="layer_wise"),
    )
    assert_same(groups_of(model, cfg.optim_wrapper), groups_of(model, theirs))


def test_localmim_swin__equal_those_of_mmengines_constructor():
    model, cfg = segmentor_and_cfg(
        "localmim/segmentation/swinb_hog_400e_upernet_ade20k.py"
    )
    spared = ("absolute_pos_embed", "relative_position_bias_table", "norm")
    theirs = dict(
        optimizer=dict(cfg.optim_wrapper.optimizer),
        paramwise_cfg=dict(
            custom_keys={key: dict(decay_mult=0.0) for key in spared},
        ),
    )
    ours = groups_of(model, cfg.optim_wrapper)
    assert_same(ours, groups_of(model, theirs))
    assert {decay for _, decay in ours.values()} == {0.0, 0.01}


@pytest.mark.parametrize(
    ("path", "rate", "depth"),
    [
        ("localmim/segmentation/vitb_hog_1600e_upernet_ade20k.py", 0.65, 12),
        ("mirl/segmentation/vits54_800e_upernet_ade20k.py", 0.9 ** (13 / 55), 54),
    ],
)
def test_layer_decay__reaches_the_embedding_and_spares_all_but_the_encoder(
    path, rate, depth
):
    model, cfg = segmentor_and_cfg(path)
    groups = groups_of(model, cfg.optim_wrapper)
    table = "backbone.layers.3.attn.relative_position_bias_table"
    assert groups["backbone.pos_embed"] == pytest.approx((rate ** (depth + 1), 0.05))
    assert groups[table] == pytest.approx((rate ** (depth - 3), 0.05))
    assert groups["backbone.layers.3.gamma_1"] == pytest.approx(
        (rate ** (depth - 3), 0)
    )
    outside = [v for k, v in groups.items() if not k.startswith("backbone.")]
    assert {scale for scale, _ in outside} == {1.0}
