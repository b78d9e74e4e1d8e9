"""Backbones of the official segmentation code become ours, and go back."""

import pytest
import torch
from key_lists import random_state
from safetensors.torch import load_file
from samples import TINY_ARCH, golden_folder

from mim_plugins.checkpoints import convert, to_official
from mim_plugins.checkpoints.layouts import candidates
from mim_plugins.checkpoints.loading import Target
from mim_plugins.checkpoints.loading.adapt import native_report
from mim_plugins.checkpoints.report import Report
from mim_plugins.models import MIMVisionTransformer, RelPosVisionTransformer


def weights(case):
    return load_file(golden_folder(case) / "weights.safetensors")


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        torch.equal(found[key], wanted[key]) for key in wanted
    )


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        ("deepmim/seg_backbone", "beit"),
        ("localmim/seg_vit", "beit"),
        # As Swin's own code for segmentation, from which it comes.
        ("localmim/seg_swin", "timm"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_backbone__is_known_by_its_keys_and_goes_back(case, layout, prefix):
    official = weights(case)
    assert [x.name for x in candidates(official)] == [layout]
    conversion = convert({prefix + key: x for key, x in official.items()})
    assert conversion.layout.name == layout
    assert not conversion.report.dropped and not conversion.report.unexpected
    back, _ = to_official(conversion.state, conversion.metadata)
    assert same(back, official)


def test_full_size_keys__become_those_of_the_segmentor():
    mmseg_models = pytest.importorskip("mmseg.models")
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from samples import ROOT, laid_out_only

    path = "configs/deepmim/segmentation/mae-clip_vitb_upernet_ade20k.py"
    cfg = Config.fromfile(ROOT / path)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmseg"), laid_out_only():
        model = mmseg_models.build_segmentor(cfg.model)
    own = {
        key: tuple(x.shape)
        for key, x in model.state_dict().items()
        if key.startswith(("backbone.", "neck."))
    }
    official = random_state("deepmim/segmentation_backbone_vit_base_p16")
    converted = convert(official).state
    assert {key: tuple(x.shape) for key, x in converted.items()} == own


def test_swin__merges_as_the_official_code_whatever_the_layout_is_called():
    official = weights("localmim/seg_swin")
    by_keys = convert(official).state
    assert same(by_keys, convert(official, "localmim").state)
    for stage in range(4):
        norm = by_keys[f"backbone.norm{stage}.weight"]
        assert torch.equal(norm, official[f"norm{stage}.weight"])


def test_account__tells_of_parameters_that_start_afresh_and_not_of_indices():
    pretrained = MIMVisionTransformer(arch=dict(TINY_ARCH), img_size=32, patch_size=8)
    encoder = RelPosVisionTransformer(
        arch=dict(TINY_ARCH),
        img_size=32,
        patch_size=8,
        bias=True,
        layer_scale_init_value=1.0,
        out_type="featmap",
        final_norm=False,
    )
    report = Report("pretrained.pth", "ours", 0)
    native_report(Target.of(encoder), pretrained.state_dict(), report)
    assert set(report.missing) == {
        f"layers.{index}.{name}"
        for index in range(TINY_ARCH["num_layers"])
        for name in ("gamma_1", "gamma_2", "attn.relative_position_bias_table")
    }
