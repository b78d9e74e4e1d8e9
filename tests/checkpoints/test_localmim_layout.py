"""LocalMIM's official ViT layouts: complete, reversible, loud about the rest."""

import json

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import golden_folder

from dev.parity.localmim import official_taps
from mim_plugins.checkpoints.layouts.localmim import convert_official, rules_for

PRETRAIN = ["pretrain_vit_base_patch16_hog", "pretrain_vit_large_patch16_hog"]
FINETUNE = ["finetune_vit_base_patch16", "finetune_vit_large_patch16"]


def key_list(name):
    return json.loads(golden_folder(f"localmim/keys/{name}.json").read_text())


def build(name):
    args = key_list(name)["model"]
    arch = "large" if "large" in name else "base"
    if name in FINETUNE:
        cfg = dict(
            type="ImageClassifier",
            backbone=dict(
                type="VisionTransformer",
                arch=arch,
                out_type="avg_featmap",
                final_norm=False,
            ),
            head=dict(
                type="LinearClsHead",
                in_channels=1024 if arch == "large" else 768,
                num_classes=args["num_classes"],
            ),
        )
    else:
        cfg = dict(
            type="LocalMIM",
            mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
            backbone=dict(
                type="MIMVisionTransformer",
                arch=arch,
                taps=official_taps(args["depth"]),
            ),
            neck=dict(
                type="MultiScaleDecoder",
                embed_dims=args["decoder_embed_dim"],
                depth=args["decoder_depth"],
                num_heads=args["decoder_num_heads"],
            ),
            target_generator=dict(
                type="HOGTarget", nbins=args["hog_nbins"], bias=args["hog_bias"]
            ),
            head=dict(type="ReconstructionHead"),
        )
    with torch.device("meta"):
        return MODELS.build(cfg)


@pytest.mark.parametrize("name", PRETRAIN + FINETUNE)
def test_full_size_keys__convert_with_nothing_missing_or_left_over(name):
    official = key_list(name)
    model = build(name)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    ours = {k: v for k, v in ours.items() if not k.startswith("data_preprocessor.")}
    converted = convert_official(official["tensors"])
    assert converted == ours
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    to_ours = rules_for(official["tensors"]).to_ours
    assert frozen == {to_ours(key) for key in official["frozen_parameters"]}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == official["n_trainable"]


@pytest.mark.parametrize("name", PRETRAIN + FINETUNE)
def test_round_trip__gives_the_official_keys_back(name):
    official = key_list(name)["tensors"]
    rules = rules_for(official)
    assert rules.convert(rules.convert(official), to="official") == official


def test_norms__the_last_is_the_encoders_own_the_others_the_necks():
    convert = rules_for({"decoder.3.norm.weight": 0, "patch_embed.proj.weight": 0})
    assert convert.to_ours("norm.3.bias") == "backbone.ln1.bias"
    assert convert.to_ours("norm.0.bias") == "neck.decoders.0.latent_norm.bias"
    # The released encoder has no norm without a number.
    assert convert.to_ours("norm.bias") is None


def test_other_layouts__are_named():
    with pytest.raises(KeyError, match="not an official checkpoint of a LocalMIM"):
        convert_official({"encoder.patch_embed.proj.weight": 0})
    with pytest.raises(KeyError, match=r"decoder.0.extra"):
        convert_official({"patch_embed.proj.weight": 0, "decoder.0.extra": 1})
