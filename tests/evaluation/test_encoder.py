"""Encoders with their weights: what they give, and what they do not take."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import golden_folder, tiny_model
from small_run import DATA, ENCODERS, normalised, pictures, saved

from mim_plugins.evaluation.embed import embed
from mim_plugins.evaluation.encoder import Encoder, load_encoder


@pytest.mark.parametrize("name", list(ENCODERS))
def test_classifiers__mean_is_what_their_head_gets(tmp_path, name):
    model, tokens = ENCODERS[name]
    network, config, checkpoint = saved(model, tmp_path / "run")
    encoder = load_encoder(config, checkpoint).eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    inputs = normalised(encoder, images)
    with torch.no_grad():
        features = encoder.image_features(inputs)
        head_gets = network.extract_feat(normalised(network, images))[-1]
    assert features.patch.shape == (2, tokens, 24)
    assert features.grid[0] * features.grid[1] == tokens
    if name == "vit cls":
        torch.testing.assert_close(features.cls, head_gets)
        torch.testing.assert_close(features.mean, features.patch.mean(dim=1))
    elif name == "deit":
        torch.testing.assert_close(features.cls, head_gets[0])
    else:
        torch.testing.assert_close(features.mean, head_gets)
        assert (features.cls is None) == (tokens == 1)
    # The encoder is as it was.
    own, theirs = (getattr(x.backbone, "out_type", None) for x in (encoder, network))
    assert own == theirs


def test_pretraining__needs_neither_decoder_nor_teacher(tmp_path, photos):
    network, _, checkpoint = saved(tiny_model(), tmp_path / "run")
    absent = dict(type="CLIPTarget", checkpoint="nowhere.pt")
    (tmp_path / "clip.py").write_text(
        f"model = {tiny_model(target_generator=absent)!r}"
    )
    embed(
        str(photos),
        tmp_path / "x.npz",
        model=str(tmp_path / "clip.py"),
        checkpoint=checkpoint,
    )
    with torch.no_grad():
        mean = network.patch_mean(normalised(network, pictures(photos)))
    np.testing.assert_allclose(np.load(tmp_path / "x.npz")["mean"], mean, atol=1e-5)


def test_official_checkpoint__is_converted(tmp_path):
    weights = load_file(golden_folder("deepmim/mae_pixel") / "weights.safetensors")
    torch.save({"model": weights}, tmp_path / "official.pth")
    width = weights["cls_token"].shape[-1]
    patch = weights["patch_embed.proj.weight"].shape[-1]
    side = round((weights["pos_embed"].shape[1] - 1) ** 0.5) * patch
    blocks = {key.split(".")[1] for key in weights if key.startswith("blocks.")}
    hidden = len(weights["blocks.0.mlp.fc1.bias"])
    arch = dict(
        embed_dims=width,
        num_layers=len(blocks),
        num_heads=2,
        feedforward_channels=hidden,
    )
    model = tiny_model(
        backbone=dict(arch=arch, img_size=side, patch_size=patch, taps=())
    )
    (tmp_path / "official.py").write_text(f"model = {model!r}\n")
    encoder = load_encoder(None, str(tmp_path / "official.pth"))
    own = encoder.backbone.layers[0].attn.qkv.weight
    assert torch.equal(own, weights["blocks.0.attn.qkv.weight"])


def test_wrong_weights__are_refused(tmp_path, tiny):
    network, config, _ = tiny
    state = network.state_dict()
    torch.save(
        {k: x for k, x in state.items() if "layers.3.attn" not in k},
        tmp_path / "part.pth",
    )
    with pytest.raises(ValueError, match="4 .*layers.3.attn.proj.bias"):
        load_encoder(config, str(tmp_path / "part.pth"))
    # The norm after the mean, which pre-training does not have.
    _, config, _ = saved(ENCODERS["vit"][0], tmp_path / "finetuned")
    with pytest.raises(ValueError, match="ln2.*Use the config it was trained with"):
        load_encoder(config, tiny[2])


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        (dict(base_channels=32), r"a ResNet here.*layer1.0.bn1.bias \[32\] instead"),
        (dict(stem_channels=32), "other sizes than the model"),
    ],
)
def test_other_widths__are_refused_of_encoders_with_other_keys(
    tmp_path, widths, message
):
    resnet = dict(type="ResNet", depth=18)
    head = dict(type="LinearClsHead", num_classes=3, in_channels=512)
    model = dict(type="ImageClassifier", data_preprocessor=DATA, head=head)
    config = tmp_path / "resnet.py"
    steps = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
    config.write_text(
        f"model = {model | dict(backbone=resnet)!r}\ntest_pipeline = {steps!r}\n"
    )
    narrow = MODELS.build(resnet | widths)
    state = {f"backbone.{key}": x for key, x in narrow.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=message):
        load_encoder(str(config), str(tmp_path / "narrow.pth"))


def test_class_token_of_a_swin__is_refused(tmp_path, photos):
    saved(ENCODERS["swin"][0], tmp_path / "run")
    options = dict(data=str(photos), checkpoint=str(tmp_path / "run/tiny.pth"))
    with pytest.raises(ValueError, match="no class token.*take 'mean' or 'patch'"):
        embed(**options, out=tmp_path / "x.npz", features=["mean", "cls"])
    embed(**options, out=tmp_path / "x.npz")
    assert "cls" not in np.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(test_pipeline=[dict(type="PackInputs")]), "loads no files.*as CIFAR"),
        (dict(model=dict(type="MaskFormer", backbone={})), "of type 'MaskFormer'"),
        (dict(model=dict(type="DeepMIM")), "pre-training and classification"),
    ],
)
def test_configs_without_features_of_files__are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Encoder(Config({"model": tiny_model(), **changes}))
