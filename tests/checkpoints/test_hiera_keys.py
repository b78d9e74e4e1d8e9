"""Hiera's official layout: complete, reversible, its pixels in our order."""

import json

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import golden_folder

from mim_plugins.checkpoints import convert_file
from mim_plugins.checkpoints.layouts import mae_lite
from mim_plugins.checkpoints.layouts.hiera import (
    channels_last,
    convert_official,
    convert_to_official,
    is_hiera,
)
from mim_plugins.models import MIMHiera
from mim_plugins.models.patches import patchify

TINY = dict(embed_dims=46, depths=(1, 2, 7, 2), num_heads=1)
DECODERS = {
    "hiera_tiny_pretrain": dict(embed_dims=96, depth=1, num_heads=3),
    "hiera_base_teacher_full": dict(embed_dims=512, depth=8, num_heads=16),
}
NAMES = [*DECODERS, "hiera_tiny_finetune"]


def official(name):
    text = golden_folder(f"maelite/keys/{name}.json").read_text()
    return json.loads(text)["tensors"]


def pretraining_cfg(name, **backbone):
    backbone = dict(arch="base" if "base" in name else TINY) | backbone
    return dict(
        type="DeepMIM",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.4),
        backbone=dict(type="MIMHiera", **backbone),
        neck=dict(type="FusionDecoder", **DECODERS[name]),
        target_generator=dict(type="PixelTarget", cell_size=16),
        head=dict(type="ReconstructionHead"),
    )


def build(name, **backbone):
    """A full-size model, or one of the same keys for smaller images."""
    if name in DECODERS:
        return MODELS.build(pretraining_cfg(name, **backbone))
    return MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(type="Hiera", arch=TINY, **backbone),
            head=dict(type="LinearClsHead", num_classes=1000, in_channels=368),
        )
    )


def shapes(model):
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_full_size_keys__convert_with_nothing_missing_or_left_over(name):
    with torch.device("meta"):
        model = build(name)
    assert convert_official(official(name)) == shapes(model)


def test_full_size_distillation__student_teacher_and_adapter():
    state = official("hiera_distill_tiny_wrapper")
    with torch.device("meta"):
        teacher = MIMHiera(arch="base")
        cfg = pretraining_cfg("hiera_tiny_pretrain") | dict(
            type="DistilledMIM",
            teacher=teacher,
            distillation=[
                dict(
                    type="AttentionDistillation",
                    student_layers=[11],
                    teacher_layers=[23],
                )
            ],
        )
        model = MODELS.build(cfg)
    assert mae_lite.convert_official(state) == shapes(model)
    taught = mae_lite.convert_teacher(state)
    wanted = {f"backbone.{key}": shape for key, shape in shapes(teacher).items()}
    # The official teacher keeps what fuses its levels, which nothing reads.
    assert {k: v for k, v in taught.items() if not k.startswith("neck.fus")} == wanted


@pytest.mark.parametrize("name", ["hiera_tiny_pretrain", "hiera_tiny_finetune"])
def test_round_trip__gives_every_tensor_back(name):
    state = build(name, img_size=64).state_dict()
    back = convert_official(convert_to_official(state))
    assert state.keys() == back.keys()
    assert all(torch.equal(value, back[key]) for key, value in state.items())


def test_prediction__rows_are_pixels_in_our_order():
    patch = torch.randn(1, 3, 16, 16)
    # unfold has channel, row, column, as the official target.
    theirs = torch.nn.functional.unfold(patch, 16, stride=16)[0, :, 0]
    assert torch.equal(channels_last(theirs, 3), patchify(patch, (1, 1))[0, 0])
    name, state = "decoder_pred.bias", official("hiera_tiny_pretrain")
    state = {key: torch.zeros(shape) for key, shape in state.items()}
    converted = convert_official(state | {name: theirs})
    row = converted["neck.decoders.0.decoder_pred.bias"]
    assert torch.equal(row, channels_last(theirs, 3))


def test_other_layouts__are_named():
    assert is_hiera(official("hiera_tiny_finetune"))
    assert not is_hiera(["blocks.0.attn.proj.weight", "blocks.0.norm1.weight"])
    with pytest.raises(KeyError, match="not an official Hiera checkpoint"):
        convert_official({"blocks.0.attn.proj.weight": 0})
    with pytest.raises(KeyError, match=r"not accounted for.*blocks\.0\.extra"):
        convert_official(official("hiera_tiny_finetune") | {"blocks.0.extra": 1})


@pytest.mark.parametrize(("width", "heads"), [(46, 1), (112, 2), (144, 2), (256, 4)])
def test_heads__follow_from_the_width_of_the_first_stage(width, heads, tmp_path):
    arch = dict(embed_dims=width, depths=(1, 1), num_heads=heads)
    cfg = dict(type="Hiera", arch=arch, img_size=32, q_pool=1)
    cfg["mask_unit_attn"] = (True, False)
    trained = MODELS.build(cfg)
    state = {f"backbone.{k}": v for k, v in trained.state_dict().items()}
    path, ours = tmp_path / "official.pth", tmp_path / "ours.pth"
    torch.save(dict(model_state=convert_to_official(state)), path)
    convert_file(path, ours)
    for file, prefix in ((path, None), (ours, "backbone.")):
        init = dict(type="Pretrained", checkpoint=str(file), prefix=prefix)
        loaded = MODELS.build(cfg | dict(init_cfg=init))
        loaded.init_weights()
        assert torch.equal(loaded.pos_embed, trained.pos_embed)
        other = cfg | dict(init_cfg=init, arch=arch | dict(num_heads=2 * heads))
        if width % (2 * heads) == 0:
            with pytest.raises(ValueError, match=f"trained with {heads} attention"):
                MODELS.build(other).init_weights()


def test_heads__of_a_distilled_student_show_in_its_adapter():
    state = official("hiera_distill_tiny_wrapper")
    state = {key: torch.empty(shape, device="meta") for key, shape in state.items()}
    # 8 of the last of four stages.
    assert mae_lite.num_heads_of(state) == 1
    name = "attn_adapter.adapter11.weight"
    assert mae_lite.num_heads_of(state | {name: torch.empty(8, 16, 1, 1)}) == 2
    # Nobody's width tells nothing.
    bare = {"patch_embed.proj.weight": torch.empty(64, 3, 7, 7)}
    assert (
        mae_lite.num_heads_of(bare | {"blocks.1.proj.weight": torch.empty(1)}) is None
    )
