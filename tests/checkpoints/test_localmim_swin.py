"""LocalMIM's Swin layouts: complete, reversible, and plain about their geometry."""

import json

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import golden_folder, laid_out_only

from mim_plugins.checkpoints import convert_file, read
from mim_plugins.checkpoints.files import Checkpoint
from mim_plugins.checkpoints.layouts.localmim import convert_official, to_official
from mim_plugins.checkpoints.loading import Target, state_for

# One of each size, target and task; that all come back, test_convert.py shows.
PRETRAIN = [
    "pretrain_swin_base_patch4_win7_pixel",
    "pretrain_swin_large_patch4_win14_hog",
]
FINETUNE = ["finetune_swin_base_patch4_win7"]


def key_list(name):
    return json.loads(golden_folder(f"localmim/keys/{name}.json").read_text())


def official_state(name):
    with torch.device("meta"):
        return {k: torch.empty(v) for k, v in key_list(name)["tensors"].items()}


def build(name):
    size = "large" if "large" in name else "base"
    encoder = dict(
        type="MIMSwinTransformer", arch=size, window_size=14 if "win14" in name else 7
    )
    if name in FINETUNE:
        width = 1536 if size == "large" else 1024
        cfg = dict(
            type="ImageClassifier",
            backbone=dict(norm_cfg=None, **encoder),
            neck=dict(type="PooledNorm", in_channels=width),
            head=dict(type="LinearClsHead", in_channels=width, num_classes=1000),
        )
    else:
        target = dict(type="HOGTarget", nbins=18, bias=True)
        cfg = dict(
            type="LocalMIM",
            mask_sampler=dict(type="SharedPatchMask", mask_ratio=0.75),
            backbone=encoder,
            neck=dict(
                type="MultiScaleDecoder", embed_dims=(64, 128, 128, 128), num_heads=4
            ),
            target_generator=dict(type="PixelTarget") if "pixel" in name else target,
            head=dict(type="ReconstructionHead"),
        )
    with laid_out_only():
        return MODELS.build(cfg)


@pytest.mark.parametrize("name", PRETRAIN + FINETUNE)
def test_full_size_keys__are_the_models_with_nothing_missing_or_left_over(name):
    model = build(name)
    ours = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    ours = {k: v for k, v in ours.items() if not k.startswith("data_preprocessor.")}
    official = official_state(name)
    converted = convert_official(official)
    assert {k: tuple(v.shape) for k, v in converted.items()} == ours
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    wanted = {k: official[k] for k in key_list(name)["frozen_parameters"]}
    if wanted:
        # Frozen tensors alone do not tell the layout.
        wanted["encoder.layers.3.blocks.0.norm1.weight"] = official[
            "encoder.norm.3.bias"
        ]
        assert frozen == set(convert_official(wanted)) - {
            "backbone.stages.3.blocks.0.norm1.weight"
        }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == key_list(name)["n_trainable"]


def merge_weights(pretraining):
    prefix = "encoder." if pretraining else ""
    state = {
        f"{prefix}layers.0.downsample.reduction.weight": torch.randn(6, 12),
        f"{prefix}layers.0.downsample.norm.bias": torch.randn(12),
        f"{prefix}layers.0.blocks.0.norm1.bias": torch.randn(3),
    }
    return state, f"{prefix}layers.0.downsample."


@pytest.mark.parametrize(
    ("pretraining", "merge_order", "offsets"),
    [
        # (row, column) of the four tokens of a quad, as the official code joins them.
        (True, "trained", [(0, 0), (0, 1), (1, 0), (1, 1)]),
        (True, "official_transfer", [(0, 0), (1, 0), (0, 1), (1, 1)]),
        (False, "trained", [(0, 0), (1, 0), (0, 1), (1, 1)]),
    ],
)
def test_merge_weights__do_what_they_did(pretraining, merge_order, offsets):
    state, key = merge_weights(pretraining)
    ours = convert_official(state, merge_order)
    quad = torch.randn(3, 2, 2)  # (C, rows, columns): mmpretrain's order
    theirs = torch.cat([quad[:, row, col] for row, col in offsets])
    weight = ours["backbone.stages.0.downsample.reduction.weight"]
    bias = ours["backbone.stages.0.downsample.norm.bias"]
    wanted = state[key + "reduction.weight"] @ (theirs + state[key + "norm.bias"])
    torch.testing.assert_close(weight @ (quad.flatten() + bias), wanted)


@pytest.mark.parametrize("case", ["swin_hog", "finetune_swin"])
def test_round_trip__gives_the_official_values_back(case):
    folder = golden_folder(f"localmim/{case}")
    official = load_file(folder / "weights.safetensors")
    size = json.loads((folder / "case.json").read_text())["model"]["img_size"]
    back = to_official(convert_official(official), img_size=size)
    assert set(back) == set(official)
    for key, value in official.items():
        assert torch.equal(back[key], value), key


def test_other_layouts_and_orders__are_named():
    state, _ = merge_weights(True)
    with pytest.raises(ValueError, match="merge_order is one of"):
        convert_official(state, "trane")
    with pytest.raises(KeyError, match=r"encoder\.extra"):
        convert_official(state | {"encoder.extra": torch.zeros(1)})
    with pytest.raises(KeyError, match="not a Swin Transformer of LocalMIM"):
        convert_official({"blocks.0.norm1.weight": torch.zeros(1)})


def tiny(merge_coordinates):
    return MODELS.build(
        dict(
            type="LocalMIM",
            mask_sampler=dict(type="SharedPatchMask", mask_ratio=0.75),
            backbone=dict(
                type="MIMSwinTransformer",
                arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 1]),
                img_size=56,
                merge_coordinates=merge_coordinates,
            ),
            neck=dict(type="MultiScaleDecoder", embed_dims=8, num_heads=2),
            target_generator=dict(type="HOGTarget", nbins=4),
            head=dict(type="ReconstructionHead"),
        )
    )


def plain_swin(**kwargs):
    return MODELS.build(
        dict(
            type="SwinTransformer",
            arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 1]),
            img_size=56,
            out_indices=(1,),
            **kwargs,
        )
    )


@pytest.fixture
def log(monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: lines.append(str(message))
    )
    return lines


def said(lines):
    return any("LocalMIM's official token coordinates" in line for line in lines)


@pytest.mark.parametrize("geometry", ["official", "correct"])
def test_geometry__is_in_the_checkpoint_and_named_on_every_way_into_a_plain_swin(
    geometry, tmp_path, log
):
    path = str(tmp_path / "epoch_1.pth")
    # As mmengine's Runner does.
    state = weights_to_cpu(get_state_dict(tiny(geometry)))
    save_checkpoint({"meta": {}, "state_dict": state}, path)
    assert read(path).merge_coordinates == geometry
    told = geometry == "official"
    classifier = torch.nn.ModuleDict({"backbone": plain_swin()})
    loaded = state_for(Target.of(classifier), read(path))
    classifier.load_state_dict(loaded, strict=False)
    weight = "patch_embed.projection.weight"
    assert torch.equal(
        classifier.state_dict()[f"backbone.{weight}"], state[f"backbone.{weight}"]
    )
    assert said(log) is told
    log.clear()
    init_cfg = dict(type="Pretrained", checkpoint=path, prefix="backbone.")
    loaded = plain_swin(init_cfg=init_cfg)
    loaded.init_weights()
    assert torch.equal(loaded.state_dict()[weight], state[f"backbone.{weight}"])
    assert said(log) is told
    convert_file(path, tmp_path / "encoder.safetensors", encoder_only=True)
    assert read(tmp_path / "encoder.safetensors").merge_coordinates == geometry


def test_geometry__converted_checkpoints_are_official_files_without_it_say_nothing(
    tmp_path, log
):
    official = load_file(golden_folder("localmim/swin_hog") / "weights.safetensors")
    converted = Checkpoint.of(convert_official(official))
    assert converted.merge_coordinates == "official"
    other = Checkpoint.of({"weight": torch.zeros(1)})
    assert state_for(Target.of(torch.nn.Linear(1, 1)), other).keys() == {"weight"}
    assert not said(log)
