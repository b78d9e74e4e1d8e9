"""Key conversion: complete, reversible, and loud about what it does not know."""

import json

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, golden_folder

from mim_plugins.checkpoints.layouts.deepmim import pretrain_rules, rules_for
from mim_plugins.checkpoints.layouts.mae_lite import convert_official

FULL_SIZE = {
    "pretrain_pixel_vit_base_p16_derived": "configs/deepmim/mae_vitb_1600e.py",
    "finetune_vit_base_p16_global_pool": (
        "configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py"
    ),
}


def official_keys(name: str) -> dict[str, list[int]]:
    content = json.loads(golden_folder(f"deepmim/keys/{name}.json").read_text())
    return content["tensors"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_keys__convert_with_nothing_missing_or_left_over(name):
    cfg = Config.fromfile(ROOT / FULL_SIZE[name])
    cfg.model.backbone.init_cfg = None
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    ours.pop("data_preprocessor.mean", None), ours.pop("data_preprocessor.std", None)
    assert convert_official(official_keys(name)) == ours


@pytest.mark.parametrize("name", [*FULL_SIZE, "finetune_vit_base_p16_cls_token"])
def test_round_trip__gives_the_official_keys_back(name):
    official = official_keys(name)
    rules = rules_for(official)
    assert rules.convert(rules.convert(official), to="official") == official


def test_mae_layout__has_one_unnumbered_decoder():
    converted = convert_official(
        {"decoder_embed.weight": 1, "mask_token": 2, "decoder_blocks.3.mlp.fc1.bias": 3}
    )
    assert converted == {
        "neck.decoders.0.decoder_embed.weight": 1,
        "neck.decoders.0.mask_token": 2,
        "neck.decoders.0.decoder_blocks.3.ffn.layers.0.0.bias": 3,
    }


def test_unknown_keys__are_named():
    with pytest.raises(KeyError, match="blocks.0.attn.rel_bias"):
        convert_official({"patch_embed.proj.weight": 1, "blocks.0.attn.rel_bias": 2})
    with pytest.raises(KeyError, match="not an official DeepMIM or MAE checkpoint"):
        convert_official({"conv1.weight": 1})
    # A level that the rules do not have is not silently dropped.
    with pytest.raises(KeyError, match="mask_token3"):
        pretrain_rules(2).convert({"mask_token3": 1})
