"""Another ``arch`` takes along what depends on the encoder's width and depth."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import ROOT, laid_out_only

from mim_plugins.engine import load_config


def load(path, **options):
    keys = {key.replace("__", "."): value for key, value in options.items()}
    cfg = load_config(ROOT / "configs" / path, keys)
    if "init_cfg" in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    return cfg


@pytest.mark.parametrize("key", ["arch", "model__backbone__arch"])
@pytest.mark.parametrize(
    ("path", "arch", "width"),
    [
        ("mae/benchmarks/vitb_finetune-100e_in1k.py", "deit-tiny", 192),
        ("mae/benchmarks/vitb_linear-90e_in1k.py", "large", 1024),
        ("localmim/benchmarks/swinb_hog_400e_finetune-100e_in1k.py", "tiny", 768),
        ("distilled/benchmarks/mae_hierat_finetune-300e_in1k.py", "base", 768),
        ("distilled/benchmarks/simmim_swint_finetune-300e_in1k.py", "small", 768),
        ("distilled/benchmarks/mae_vitt_finetune-rpe-1000e_in1k.py", "base", 768),
    ],
)
def test_classifier__head_and_neck_get_the_width(path, arch, width, key):
    cfg = load(path, **{key: arch})
    assert cfg.model.head.in_channels == width
    cfg.model.train_cfg = None
    with laid_out_only():
        model = MODELS.build(cfg.model).eval()
        feats = model.extract_feat(torch.zeros(2, 3, 224, 224))
        assert model.head(feats).shape == (2, 1000)


def test_linear_probe__freezes_all_blocks():
    cfg = load("mae/benchmarks/vitb_linear-90e_in1k.py", arch="large")
    assert cfg.model.backbone.frozen_stages == 24


def test_supervised_blocks__keep_their_share_of_the_depth():
    cfg = load("deepmim/mae_vitb_300e.py", arch="large")
    large = load("deepmim/mae_vitl_300e.py")
    assert cfg.model.backbone.taps == large.model.backbone.taps == (11, 15, 19)


def test_extra_and_decoded_block__move_with_the_depth():
    arch = dict(embed_dims=192, num_layers=24, num_heads=12, feedforward_channels=768)
    cfg = load("distilled/d2-mae_vitt_400e.py", arch=arch)
    assert cfg.model.backbone.final_block == 15
    assert cfg.model.distillation[0].student_layers == (24,)
    assert cfg.model.teacher.arch == "base"


def test_longer_key__wins():
    path = "deepmim/mae_vitb_300e.py"
    cfg = load(path, arch="large", model__backbone__taps=(3, 4, 5))
    assert cfg.model.backbone.taps == (3, 4, 5)


def test_child_config__and_again_after_a_run_has_written_it(tmp_path):
    child = tmp_path / "large.py"
    base = ROOT / "configs/deepmim/mae_vitb_300e.py"
    child.write_text(f"_base_ = {str(base)!r}\narch = 'large'\n")
    cfg = load_config(child)
    assert cfg.model.backbone.arch == "large"
    assert cfg.model.backbone.taps == (11, 15, 19)
    cfg.dump(dumped := tmp_path / "dumped.py")
    assert load_config(dumped).to_dict() == cfg.to_dict()


@pytest.mark.parametrize("key", ["arch", "model__backbone__arch"])
def test_unknown_arch__names_those_there_are(key):
    with pytest.raises(ValueError, match="no arch 'vit-b'") as caught:
        load("deepmim/mae_vitb_300e.py", **{key: "vit-b"})
    assert "deit-small" in str(caught.value)


def test_head_of_another_width__is_refused(tmp_path):
    child = tmp_path / "small.py"
    base = ROOT / "configs/mae/benchmarks/vitb_finetune-100e_in1k.py"
    text = f"_base_ = {str(base)!r}\nmodel = dict(backbone=dict(arch='deit-small'))\n"
    child.write_text(text)
    with pytest.raises(ValueError, match=r"head.in_channels=768.*width of 384"):
        load_config(child)
    child.write_text(text + "arch = 'deit-small'\n")
    with pytest.raises(ValueError, match="set model.head.in_channels=384"):
        load_config(child)
    child.write_text(f"_base_ = {str(base)!r}\narch = 'deit-small'\n")
    assert load_config(child).model.head.in_channels == 384
