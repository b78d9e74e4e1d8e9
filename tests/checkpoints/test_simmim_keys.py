"""SimMIM's official layouts: complete, reversible, their pixels and merges in order."""

import json

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import ROOT, golden_folder, laid_out_only, stand_in_teachers

from mim_plugins.checkpoints.layouts import mae_lite, simmim
from mim_plugins.checkpoints.layouts.hiera import channels_last
from mim_plugins.checkpoints.layouts.mae_lite import convert_official

CONFIGS = {
    "simmim_swin_tiny_pretrain": "simmim_swint_400e",
    "simmim_distill_tiny_wrapper": "d2-simmim_swint_400e",
    "swin_tiny48_finetune": "benchmarks/simmim_swint_finetune-300e_in1k",
}

# A teacher's weights have nowhere to go in a model that is only laid out.
pytestmark = pytest.mark.filterwarnings("ignore:.*non-meta parameter")


def official(name):
    text = golden_folder(f"maelite/keys/{name}.json").read_text()
    return json.loads(text)["tensors"]


def build(config, folder):
    cfg = Config.fromfile(ROOT / "configs" / "distilled" / f"{config}.py").model
    if "init_cfg" in cfg.backbone:
        cfg.backbone.init_cfg = None
    stand_in_teachers(cfg, folder)
    with laid_out_only():
        return MODELS.build(cfg)


def shapes(model):
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_full_size_keys__convert_with_nothing_missing_or_left_over(name, tmp_path):
    state = official(name)
    model = build(CONFIGS[name], tmp_path)
    assert convert_official(state) == shapes(model)
    # Files of several GPUs have more in front.
    start = "module." if "wrapper" in name else "module.model."
    wrapped = {start + key: value for key, value in state.items()}
    assert convert_official(wrapped) == shapes(model)
    if name == "simmim_distill_tiny_wrapper":
        taught = mae_lite.convert_teacher(state)
        teacher = shapes(model.teacher.network.encoder)
        assert taught == {f"backbone.{key}": value for key, value in teacher.items()}


def test_teacher__a_released_encoder_with_bare_keys():
    prefix = "tch_model.encoder."
    wrapper = official("simmim_distill_tiny_wrapper")
    bare = {k.removeprefix(prefix): v for k, v in wrapper.items() if prefix in k}
    assert "mask_token" in bare
    assert convert_official(bare) == mae_lite.convert_teacher(wrapper)
    assert mae_lite.num_heads_of({k: torch.empty(v) for k, v in bare.items()}) is None


@pytest.mark.parametrize("case", ["simmim", "simmim_distill", "finetune_swin"])
def test_round_trip__gives_every_tensor_back(case):
    folder = golden_folder(f"maelite/{case}")
    weights = mae_lite.parts_of(load_file(folder / "weights.safetensors"))["model"]
    ours = convert_official(weights)
    merged = "backbone.stages.0.downsample.reduction.weight"
    assert not torch.equal(ours[merged], weights[merged_name(weights)])
    back = simmim.convert_to_official(ours, img_size=64)
    assert set(back) == set(weights)
    for key, value in weights.items():
        assert torch.equal(back[key], value), key


def merged_name(weights):
    name = "layers.0.downsample.reduction.weight"
    return name if name in weights else f"encoder.{name}"


def test_prediction__rows_are_pixels_in_our_order():
    # PixelShuffle puts channel c of pixel (i, j) in row (c * 4 + i) * 4 + j.
    rows = torch.arange(48.0)
    image = torch.nn.functional.pixel_shuffle(rows.view(1, 48, 1, 1), 4)
    assert torch.equal(channels_last(rows, 3), image[0].permute(1, 2, 0).flatten())


def test_other_forms__plain_head_and_a_latent_that_ends_early():
    state = {key: list(x) for key, x in official("simmim_swin_tiny_pretrain").items()}
    own = {k: v for k, v in state.items() if not k.startswith("decoder")}
    plain = own | {"decoder.0.weight": [3072, 384, 1, 1], "decoder.0.bias": [3072]}
    assert convert_official(plain)["neck.decoder_pred.weight"] == [3072, 384, 1, 1]
    early = state | {"encoder.norm.weight": [192], "encoder.norm.bias": [192]}
    converted = convert_official(early)
    assert converted["neck.norm.weight"] == [192]
    assert not [key for key in converted if key.startswith("backbone.norm")]


def test_other_layouts__are_named():
    assert not simmim.is_swin(["blocks.0.norm1.weight", "mask_token"])
    with pytest.raises(KeyError, match="not a SimMIM on a Swin Transformer"):
        simmim.convert_official({"blocks.0.norm1.weight": 0})
    state = official("swin_tiny48_finetune")
    with pytest.raises(KeyError, match=r"not accounted for.*layers\.0\.extra"):
        convert_official(state | {"layers.0.extra": 1})
