"""Optimiser groups against the official ones, parameter by parameter."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from samples import ROOT, golden_folder, laid_out_only

from mim_plugins.checkpoints.layouts.deepmim import rules_for

CONFIGS = {
    "pretrain": ("configs/deepmim/mae_vitb_800e.py", None),
    "finetune": ("configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py", 0.6),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_groups__equal_the_official_ones(kind):
    path, layer_decay = CONFIGS[kind]
    cfg = Config.fromfile(ROOT / path)
    if layer_decay:
        # The key file is the CLIP model's, whose layer decay is 0.6.
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = layer_decay
        cfg.model.backbone.init_cfg = None
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    base_lr = cfg.optim_wrapper.optimizer.lr
    ours = {
        id(p): (group["lr"] / base_lr, group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }
    keys = golden_folder(f"deepmim/keys/param_groups_{kind}.json")
    official = json.loads(keys.read_text())["params"]
    to_ours = rules_for(official).to_ours
    official = {
        to_ours(k): (v["lr_scale"], v["weight_decay"]) for k, v in official.items()
    }
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(official) == set(trainable)
    for name, parameter in trainable.items():
        assert ours[id(parameter)] == pytest.approx(official[name], rel=1e-9), name
    assert len(wrapper.optimizer.param_groups) == (2 if kind == "pretrain" else 28)


def wrapper_for(model, paramwise_cfg, **optimizer):
    cfg = dict(
        constructor="LayerDecayOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1) | optimizer,
        paramwise_cfg=paramwise_cfg,
    )
    return build_optim_wrapper(model, cfg)


def test_custom_keys__longest_match_wins_over_the_shape_rules(build):
    model = build()
    rules = dict(
        flat_decay_mult=0.0,
        custom_keys={
            "backbone": dict(lr_mult=0.5),
            "backbone.ln1": dict(lr_mult=0.1, decay_mult=0.3),
        },
    )
    groups = wrapper_for(model, rules).optimizer.param_groups
    found = {id(p): g for g in groups for p in g["params"]}
    assert found[id(model.backbone.ln1.weight)]["lr"] == pytest.approx(0.1)
    assert found[id(model.backbone.ln1.weight)]["weight_decay"] == pytest.approx(0.03)
    assert found[id(model.backbone.layers[0].ln1.weight)]["lr"] == 0.5
    assert found[id(model.neck.decoders[0].ln1.weight)]["weight_decay"] == 0


def test_unknown_key_is_refused(build):
    with pytest.raises(ValueError, match="norm_decay_mul"):
        wrapper_for(build(), dict(norm_decay_mul=0.0))


def test_layer_decay__needs_an_encoder_that_knows_its_depth():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="get_layer_depth"):
        wrapper_for(model, dict(layer_decay_rate=0.5))


def test_optimiser__is_fused_where_possible_unless_told_otherwise(build):
    from mim_plugins.compat import supports_fused_optimizer

    fused = wrapper_for(build(), {}).optimizer.defaults["fused"]
    assert bool(fused) == supports_fused_optimizer("cpu")
    assert wrapper_for(build(), {}, fused=False).optimizer.defaults["fused"] is False


def swin_depth(name: str, depths: list[int]) -> int:
    """The layer of a parameter in LocalMIM's released fine-tuning code."""
    part, *rest = name.removeprefix("backbone.").split(".")
    if part == "patch_embed":
        return 0
    if part != "stages":
        return sum(depths) + 1
    stage = int(rest[0])
    if rest[1] == "downsample":
        return sum(depths[: stage + 1])
    return sum(depths[:stage]) + int(rest[2]) + 1


def test_swin_groups__layers_and_position_tables_as_official():
    arch = dict(embed_dims=8, depths=[1, 2, 3], num_heads=[1, 1, 1])
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="MIMSwinTransformer",
                arch=arch,
                img_size=56,
                patch_size=2,
                norm_cfg=None,
            ),
            neck=dict(type="PooledNorm", in_channels=32),
            head=dict(type="LinearClsHead", in_channels=32, num_classes=3),
        )
    )
    rules = dict(flat_decay_mult=0.0, bias_decay_mult=0.0)
    groups = wrapper_for(model, dict(layer_decay_rate=0.9, **rules)).optimizer
    found = {id(p): g for g in groups.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        group = found[id(parameter)]
        scale = 0.9 ** (7 - swin_depth(name, arch["depths"]))
        assert group["lr"] == pytest.approx(scale), name
        # In fine-tuning, tables of relative positions are decayed.
        assert (group["weight_decay"] == 0) is (parameter.ndim == 1), name


def test_swin_groups__pre_training_decays_neither_position_tables_nor_mask_tokens():
    cfg = Config.fromfile(ROOT / "configs/localmim/swinb_hog_400e.py")
    with laid_out_only():
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(p): g["weight_decay"]
        for g in wrapper.optimizer.param_groups
        for p in g["params"]
    }
    assert len(wrapper.optimizer.param_groups) == 2
    spared = ("relative_position_bias_table", "mask_token")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim == 1 or name.endswith(spared)
            assert decay[id(parameter)] == (0 if plain else 0.05), name
        else:
            assert id(parameter) not in decay
