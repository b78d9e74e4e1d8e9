"""MAE-Lite's official layouts: every key, of every file, and the heads nobody sees."""

import json

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, golden_folder, laid_out_only, stand_in_teachers

from mim_plugins.checkpoints.layouts.mae_lite import (
    convert_official,
    convert_teacher,
    num_heads_of,
    parts_of,
    rules_for,
)

# The official model of a key file, and the config it is here.
MODELS_OF = {
    "mae_tiny_pretrain": "mae_vitt_400e",
    "mae_small_pretrain": "mae_vits_400e",
    "mae_lite_distill_tiny_wrapper": "mae-lite_vitt_400e",
    "mae_lite_distill_small_wrapper": "mae-lite_vits_400e",
    "d2_mae_tiny_wrapper": "d2-mae_vitt_400e",
    "vit_tiny_finetune": "benchmarks/mae_vitt_finetune-300e_in1k",
    "vit_small_finetune": "benchmarks/mae_vits_finetune-300e_in1k",
    "vit_tiny_finetune_rpe": "benchmarks/mae_vitt_finetune-rpe-1000e_in1k",
    "vit_tiny_finetune_rpe_qkvbias": "benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k",
}


def official_tensors(name: str) -> dict[str, torch.Tensor]:
    file = golden_folder(f"maelite/keys/{name}.json")
    shapes = json.loads(file.read_text())["tensors"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture
def laid_out(tmp_path):
    """Builds the model of a config without values."""

    def _laid_out(config):
        cfg = Config.fromfile(ROOT / "configs" / "distilled" / f"{config}.py").model
        if "init_cfg" in cfg.backbone:
            cfg.backbone.init_cfg = None
        stand_in_teachers(cfg, tmp_path)
        with laid_out_only():
            return MODELS.build(cfg)

    return _laid_out


pytestmark = pytest.mark.filterwarnings("ignore:.*non-meta parameter")


@pytest.mark.parametrize("file", MODELS_OF)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_convert__full_size_files_fill_the_configs_models(file, prefix, laid_out):
    official = official_tensors(file)
    state = convert_official({prefix + key: value for key, value in official.items()})
    assert shapes(state) == shapes(laid_out(MODELS_OF[file]).state_dict())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ("mae-lite_vitt_400e", 5_691_888),
        ("d2-mae_vitt_400e", 5_803_440),
        ("benchmarks/mae_vitt_finetune-300e_in1k", 5_717_416),
        ("benchmarks/mae_vitt_finetune-rpe-1000e_in1k", 5_820_520),
        ("benchmarks/d2-mae_vitt_finetune-rpe-1000e_in1k", 5_822_824),
    ],
)
def test_models__have_as_many_trainable_parameters_as_the_official(
    config, count, laid_out
):
    parameters = laid_out(config).parameters()
    assert sum(p.numel() for p in parameters if p.requires_grad) == count


def test_convert__the_teacher_is_taken_by_its_exact_prefix(laid_out):
    official = official_tensors("d2_mae_tiny_wrapper")
    network = laid_out("d2-mae_vitt_400e").teacher.network.encoder
    wanted = {f"backbone.{k}": s for k, s in shapes(network.state_dict()).items()}
    assert shapes(convert_teacher(official)) == wanted
    whole = convert_official(official_tensors("mae_base_teacher_full"))
    encoder = {k: s for k, s in shapes(whole).items() if k.startswith("backbone.")}
    assert encoder == wanted
    with pytest.raises(KeyError, match="no teacher in this checkpoint"):
        convert_teacher(official_tensors("mae_tiny_pretrain"))


def test_convert__d2s_last_block_leaves_the_encoder():
    official = official_tensors("d2_mae_tiny_wrapper")
    state = convert_official(official)
    assert not any(key.startswith("backbone.layers.12.") for key in state)
    extra = {key for key in state if key.startswith("extra_block.")}
    assert extra == {
        f"extra_block.{layer}.{name}"
        for layer in ("ln1", "attn.qkv")
        for name in ("weight", "bias")
    }
    student = parts_of(official)["model"]
    rules = rules_for(student)
    there = rules.convert(student)
    assert rules.convert(there, to="official").keys() == student.keys()


def test_convert__adapters_in_the_order_of_their_numbers():
    adapters = {
        f"{part}.adapter{number}.weight": torch.full((1,), float(number))
        for part in ("attn_adapter", "hidden_adapter")
        for number in (11, 3)
    }
    student = {"model.patch_embed.proj.weight": torch.zeros(1)}
    state = convert_official(student | adapters)
    for quantity in ("attention", "hidden"):
        ours = [state[f"distillation.{quantity}.adapters.{k}.weight"] for k in (0, 1)]
        assert [value.item() for value in ours] == [3, 11]


def test_convert__unknown_keys_are_named():
    state = {"model.cls_token": 0, "teacher.norm.weight": 0}
    with pytest.raises(KeyError, match="no part of a MAE-Lite.*teacher.norm.weight"):
        convert_official(state)
    state = official_tensors("vit_tiny_finetune_rpe") | {"blocks.0.attn.k_bias": 0}
    with pytest.raises(KeyError, match="1 keys are not accounted for.*k_bias"):
        convert_official(state)


@pytest.mark.parametrize("file", [f for f in MODELS_OF if "tiny" in f])
def test_heads__twelve_are_told_by_the_file(file):
    # A file of a multi-GPU run, as the released ones are.
    prefix = "module." if "wrapper" in file else "module.model."
    official = {prefix + k: v for k, v in official_tensors(file).items()}
    assert num_heads_of(official) == 12


def test_heads__a_bare_classifier_may_be_timms_with_three():
    assert num_heads_of(official_tensors("vit_tiny_finetune")) is None
