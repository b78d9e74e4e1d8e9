"""Every official layout is recognised, accounted for in full, and reversible."""

import pytest
import torch
from key_lists import key_lists, random_state
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import ROOT, clip_state_dict, golden_folder, laid_out_only
from whole_files import tensors as tensors_of_timm

from mim_plugins.checkpoints import convert, to_official
from mim_plugins.checkpoints.files.state_dicts import strip_prefixes
from mim_plugins.checkpoints.layouts import candidates, layouts

# Where no key tells the place of the final norm.
NAMED = {
    "localmim/finetune_swin_base_patch4_win7": "localmim",
    "localmim/finetune_swin_large_patch4_win14": "localmim",
    "maelite/swin_tiny48_finetune": "timm",
}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", key_lists())
def test_every_official_list__comes_back_bit_identical(name):
    official = random_state(name)
    conversion = convert(official, NAMED.get(name, "auto"), source=name)
    assert len(conversion.report.converted) == len(conversion.state)
    assert not conversion.report.unexpected
    back, _ = to_official(conversion.state, conversion.metadata, source=name)
    of_teacher = {key for key in official if key.startswith("tch_model.")}
    assert same({k: x for k, x in official.items() if k not in of_teacher}, back)
    dropped = {k for k, why in conversion.report.dropped.items() if "window" not in why}
    assert dropped == of_teacher


LAYOUTS = {
    "deepmim/pretrain_clip_vit_base_p16": "deepmim",
    "deepmim/finetune_vit_base_p16_global_pool": "timm",
    "localmim/pretrain_vit_base_patch16_hog": "localmim",
    "localmim/pretrain_swin_base_patch4_win7_hog": "localmim",
    "mirl/vit_s54_pretrain": "mirl",
    "mirl/vit_s54_finetune": "mirl",
    "maelite/d2_mae_tiny_wrapper": "mae-lite",
    "maelite/mae_tiny_pretrain": "mae",
    "maelite/hiera_tiny_pretrain": "hiera",
    "maelite/vit_tiny_finetune_rpe": "beit",
    "maelite/simmim_swin_tiny_pretrain": "simmim",
}


def names(layouts):
    return [layout.name for layout in layouts]


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) & set(key_lists())))
def test_layout__is_detected_whatever_wraps_it(name):
    official = random_state(name)
    assert names(candidates(official)) == [LAYOUTS[name]]
    wrapped = {f"_orig_mod.module.{key}": value for key, value in official.items()}
    assert names(candidates(strip_prefixes(wrapped))) == [LAYOUTS[name]]
    ours = convert(official, source=name).state
    assert names(candidates(ours)) == ["mmpretrain"]
    assert same(convert(ours).state, ours)


def test_multi_gpu_file__is_converted_without_its_teacher(
    name="maelite/d2_mae_tiny_wrapper",
):
    if name not in key_lists():
        pytest.skip("full set absent")
    official = {f"module.{key}": x for key, x in random_state(name).items()}
    conversion = convert(official)
    assert conversion.state["backbone.cls_token"].shape[-1] == 192
    assert conversion.metadata == {
        "layout": "mae-lite",
        "adapters": [11],
        "num_heads": 12,
    }
    assert "tch_model.* (150): the frozen teacher" in str(conversion.report)
    teacher = convert(official, part="teacher")
    assert teacher.state["backbone.cls_token"].shape[-1] == 768
    assert len(teacher.report.dropped) == 175
    with pytest.raises(ValueError, match="no key starts with tch_model"):
        convert({k: x for k, x in official.items() if "tch_" not in k}, part="teacher")


def test_official_swin_file__must_say_where_its_norm_is():
    official = load_file(
        golden_folder("localmim/finetune_swin") / "weights.safetensors"
    )
    with pytest.raises(ValueError, match="--from localmim or --from timm"):
        convert(official)
    after = convert(official, "localmim").state
    before = convert(official, "timm").state
    assert torch.equal(after["neck.norm.weight"], official["norm.weight"])
    last = max(key for key in before if key.startswith("backbone.norm"))
    assert torch.equal(before[last], official["norm.weight"])
    # All but the norm is alike; an encoder alone needs no word.
    encoder = {k: x for k, x in official.items() if k[:5] not in ("norm.", "head.")}
    assert same(
        convert(encoder).state,
        {k: x for k, x in after.items() if k[:5] not in ("neck.", "head.")},
    )


def test_segmentor__keeps_its_heads():
    official = load_file(golden_folder("deepmim/seg_backbone") / "weights.safetensors")
    segmentor = {f"backbone.{key}": x for key, x in official.items()}
    segmentor["decode_head.conv_seg.weight"] = torch.ones(3, 4, 1, 1)
    converted = convert(segmentor).state
    assert converted.pop("decode_head.conv_seg.weight").sum() == 12
    assert same(converted, convert(official).state)
    assert "neck.upsample_4x.1.running_mean" in converted


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.weight": 1}, "in no known layout .*conv1.weight"),
        (
            {"decoder_embed1.weight": 1, "decoder_blocks1.0.attn.rel_bias": 1},
            "DeepMIM's official layout, but does not fit it: 1 keys .*rel_bias",
        ),
        ({"blocks.0.attn.qkv.weight": 1, "box_head.x": 1}, "accounted for.*box_head"),
    ],
)
def test_unaccounted_keys__are_an_error(state, message):
    with pytest.raises(ValueError, match=message):
        convert({key: torch.ones(2, 2) for key in state})


def test_unknown_layout_name__is_refused():
    with pytest.raises(ValueError, match="choose auto, mmpretrain, "):
        convert({"blocks.0.attn.qkv.weight": torch.ones(1, 1)}, "paddle")


def test_partly_transposed_file__is_refused():
    """One converter missed a matrix: shapes show it where they are oblong."""
    official = load_file(golden_folder("mirl/pretrain_b48like") / "weights.safetensors")
    convert(official)
    key = "blocks.1.mlp.fc1.weight"
    official[key] = official[key].t().contiguous()
    with pytest.raises(ValueError, match="converted in part.*pdparams"):
        convert(official)


def test_heads__are_known_where_layout_or_table_tells():
    def heads(width, layout, **tensors):
        state = {"cls_token": torch.zeros(1, 1, width), **tensors}
        return layouts()[layout].num_heads(state)

    decoder = {"decoder_embed.weight": torch.zeros(1)}
    assert heads(192, "mae", **decoder) == 12
    assert heads(384, "mirl") == 12
    assert heads(1024, "deepmim") == 16
    # DeiT-Tiny has the keys and shapes of MAE-Lite's encoder, and 3 heads.
    assert heads(192, "timm") is None
    assert "DeiT-Tiny has 3" in str(convert(tensors_of_timm()).report)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("deepmim/pretrain_pixel_vit_base_p16_derived", "deepmim/mae_vitb_1600e.py"),
        ("localmim/pretrain_swin_base_patch4_win7_hog", "localmim/swinb_hog_400e.py"),
        ("mirl/vit_s54_pretrain", "mirl/vits54_800e.py"),
        ("maelite/mae_tiny_pretrain", "distilled/mae_vitt_400e.py"),
    ],
)
def test_converted__has_every_key_of_the_config(name, config):
    if name not in key_lists():
        pytest.skip("full set absent")
    with laid_out_only():
        model = MODELS.build(Config.fromfile(ROOT / "configs" / config).model)
    state = convert(random_state(name)).state
    own = {k: v.shape for k, v in model.state_dict().items() if "data_prep" not in k}
    assert {key: value.shape for key, value in state.items()} == own


CLIP_PREFIXES = ["", "visual.", "clip.visual."]


@pytest.mark.parametrize("prefix", CLIP_PREFIXES)
def test_clip__known_parts_are_left_out_and_others_refused(prefix):
    tower = {f"{prefix}{key}": x for key, x in clip_state_dict().items()}
    parent = prefix.removesuffix("visual.")
    beside = ["logit_scale", "text_projection", "transformer.resblocks.0.ln_1.weight"]
    beside = [parent + key for key in beside if prefix]
    state = {**tower, **{key: torch.ones(1) for key in beside}}
    dropped = convert(state, source="clip.pth").report.dropped
    assert set(dropped) == {*beside, f"{prefix}proj"}
    for junk in ("optimizer_junk.weight", "backbone2.layer.weight"):
        message = "clip.pth.*" + ("of no part of a CLIP" if prefix else "accounted for")
        with pytest.raises(ValueError, match=f"{message}.*{junk}"):
            convert({**state, junk: torch.ones(3)}, source="clip.pth")


def test_mirl_in_torchs_order__says_what_cannot_be_checked():
    paddle = {key: x.t() if x.ndim == 2 else x for key, x in tensors_of_timm().items()}
    assert "cannot be checked" in str(convert(tensors_of_timm(), "mirl").report)
    assert "cannot be checked" not in str(convert(paddle, source="x.pdparams").report)
