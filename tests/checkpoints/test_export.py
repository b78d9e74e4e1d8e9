"""What leaves for timm and transformers computes there what it computed here."""

import json
import re

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, hiera_model, tiny_model

from mim_plugins.checkpoints import convert_file, to_official
from mim_plugins.checkpoints.files import read
from mim_plugins.checkpoints.layouts.export import to_timm
from mim_plugins.checkpoints.layouts.hugging_face import to_hugging_face
from mim_plugins.checkpoints.metadata import IMAGENET_MEAN, image_statistics

timm = pytest.importorskip("timm")

IMAGES = (2, 3, 32, 32)


def shaken(cfg):
    """A model with no two tensors alike, in eval mode."""
    model = MODELS.build(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval()
    return model


def vit_classifier(out_type="avg_featmap", **overrides):
    final = out_type == "cls_token"
    backbone = dict(
        type="VisionTransformer",
        arch=TINY_ARCH,
        img_size=32,
        patch_size=8,
        out_type=out_type,
        final_norm=final,
    )
    head = dict(type="LinearClsHead", num_classes=5, in_channels=24)
    return dict(type="ImageClassifier", backbone=backbone | overrides, head=head)


def printed_model(report, file, more=""):
    """The model of the line that is printed."""
    (call,) = re.findall(r"load it with (timm\.create_model\(.*)\)", str(report))
    call += f", {more})"
    return eval(call, {"timm": timm, "FILE": str(file)}).eval()  # noqa: S307


def saved(model, path):
    torch.save({"meta": {}, "state_dict": model.state_dict()}, path)
    return path


@pytest.mark.parametrize("out_type", ["avg_featmap", "cls_token"])
def test_vit_classifier__has_the_same_logits_in_timm(tmp_path, out_type):
    model = shaken(vit_classifier(out_type))
    (report,) = convert_file(
        saved(model, tmp_path / "x.pth"), tmp_path / "timm.pth", to="timm", num_heads=2
    )
    theirs = printed_model(report, tmp_path / "timm.pth")
    images = torch.randn(IMAGES)
    expected = model(images, mode="tensor")
    if isinstance(expected, tuple):
        expected = model.head(expected)
    torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=0)
    assert theirs.default_cfg["mean"] == IMAGENET_MEAN
    assert theirs.default_cfg["input_size"] == (3, 32, 32)


def test_vit_pretraining__leaves_its_decoder_and_keeps_its_features(tmp_path):
    model = shaken(tiny_model())
    (report,) = convert_file(
        saved(model, tmp_path / "x.pth"), tmp_path / "timm.safetensors", to="timm"
    )
    theirs = printed_model(report, tmp_path / "timm.safetensors")
    images = torch.randn(IMAGES)
    model.backbone.out_type = "raw"
    (ours,) = model.backbone(images)
    torch.testing.assert_close(theirs.forward_features(images), ours, atol=1e-5, rtol=0)
    assert all(key.startswith(("neck.", "data_prep")) for key in report.dropped)


def test_layer_scale__becomes_timms(tmp_path):
    model = shaken(vit_classifier(layer_scale_init_value=0.5))
    saved(model, tmp_path / "x.pth")
    (report,) = convert_file(
        tmp_path / "x.pth", tmp_path / "timm.pth", to="timm", num_heads=2
    )
    theirs = printed_model(report, tmp_path / "timm.pth")
    images = torch.randn(IMAGES)
    expected = model.head(model.extract_feat(images))
    torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=0)


def swin_classifier(**overrides):
    arch = dict(embed_dims=8, depths=(1, 2, 2, 1), num_heads=(1, 2, 2, 4))
    backbone = dict(type="SwinTransformer", arch=arch, img_size=64, window_size=4)
    return dict(
        type="ImageClassifier",
        backbone=backbone | overrides,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=5, in_channels=64),
    )


def test_swin__has_the_same_logits_in_timm_and_comes_back(tmp_path):
    model = shaken(swin_classifier(pad_small_map=False, img_size=128))
    saved(model, tmp_path / "x.pth")
    (report,) = convert_file(tmp_path / "x.pth", tmp_path / "timm.pth", to="timm")
    assert "add img_size=" in str(report)
    theirs = printed_model(report, tmp_path / "timm.pth", "img_size=128")
    images = torch.randn(2, 3, 128, 128)
    expected = model.head(model.extract_feat(images))
    torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=0)
    convert_file(tmp_path / "timm.pth", tmp_path / "back.pth", layout="timm")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    own = model.state_dict()
    assert back.keys() == {k for k in own if not k.endswith(("_index", "mean", "std"))}
    assert all(torch.equal(back[key], own[key]) for key in back)


# Fine-tuned classifiers as wide as the published ones, and of as many heads, with
# timm's names. ViT-Tiny is whole; of the others some blocks stand for all.
VIT_B = dict(embed_dims=768, num_layers=2, num_heads=12, feedforward_channels=3072)
VIT_TINY = dict(embed_dims=192, num_layers=12, num_heads=12, feedforward_channels=768)
SWIN_B = dict(embed_dims=128, depths=[1, 1, 2, 1], num_heads=[4, 8, 16, 32])
POOLED = dict(type="VisionTransformer", out_type="avg_featmap", final_norm=False)
FULL_WIDTH = {
    "vit-base": (
        dict(POOLED, arch=VIT_B),
        ("vit_base_patch16_224", dict(depth=2, global_pool="avg")),
    ),
    "vit-tiny": (
        dict(POOLED, arch=VIT_TINY),
        ("vit_tiny_patch16_224", dict(num_heads=12, global_pool="avg")),
    ),
    "swin-base": (
        dict(type="SwinTransformer", arch=SWIN_B, pad_small_map=False),
        ("swin_base_patch4_window7_224", dict(depths=(1, 1, 2, 1))),
    ),
}


@pytest.mark.parametrize("name", sorted(FULL_WIDTH))
def test_published_sizes__have_the_same_logits_in_timm(tmp_path, name):
    backbone, (family, options) = FULL_WIDTH[name]
    swin = name == "swin-base"
    width = 1024 if swin else backbone["arch"]["embed_dims"]
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(backbone, img_size=224),
            neck=dict(type="GlobalAveragePooling") if swin else None,
            head=dict(type="LinearClsHead", num_classes=1000, in_channels=width),
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.02)
    convert_file(saved(model, tmp_path / "x.pth"), tmp_path / "timm.pth", to="timm")
    theirs = timm.create_model(
        family, num_classes=1000, checkpoint_path=str(tmp_path / "timm.pth"), **options
    ).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        logits = model.head(model.extract_feat(images))
        difference = (theirs(images) - logits).abs().max()
    assert difference <= 1e-5 * min(1, logits.abs().max())


def test_relative_positions__have_the_same_logits_in_timm(tmp_path):
    cfg = vit_classifier(type="RelPosVisionTransformer", bias=True)
    model = shaken(cfg)
    saved(model, tmp_path / "x.pth")
    (report,) = convert_file(tmp_path / "x.pth", tmp_path / "timm.pth", to="timm")
    theirs = printed_model(report, tmp_path / "timm.pth")
    images = torch.randn(IMAGES)
    expected = model.head(model.extract_feat(images))
    torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=0)
    assert "change no attention" in str(report)


def test_hiera__has_the_same_features_in_timm(tmp_path):
    model = shaken(hiera_model())
    saved(model, tmp_path / "x.pth")
    (report,) = convert_file(tmp_path / "x.pth", tmp_path / "timm.pth", to="timm")
    theirs = printed_model(report, tmp_path / "timm.pth")
    state = model.state_dict()
    weight = theirs.state_dict()["blocks.3.attn.qkv.weight"]
    assert torch.equal(weight, state["backbone.layers.3.attn.qkv.weight"])
    assert torch.equal(
        theirs.state_dict()["head.norm.weight"], state["neck.fusion_norm.weight"]
    )


def test_hiera__comes_back_from_timm(tmp_path):
    classifier = dict(
        type="ImageClassifier",
        backbone=hiera_model()["backbone"] | dict(type="Hiera"),
        head=dict(type="LinearClsHead", num_classes=5, in_channels=64),
    )
    model = shaken(classifier)
    saved(model, tmp_path / "x.pth")
    convert_file(tmp_path / "x.pth", tmp_path / "timm.pth", to="timm")
    (report,) = convert_file(tmp_path / "timm.pth", tmp_path / "back.pth")
    back, own = read(tmp_path / "back.pth").tensors, model.state_dict()
    assert "head.fc.weight" in back and "backbone.ln2.weight" in back
    assert back.keys() == own.keys() and not report.unexpected
    assert all(torch.equal(back[key], own[key]) for key in own)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["head.fc.weight"], "no encoder: no key starts with 'backbone.'"),
        (["backbone.stages.0.x", "neck.norm.weight"], "norms after pooling"),
        (["backbone.stages.0.blocks.0.norm1.weight"], "without a norm after"),
        (["backbone.ln1.weight", "backbone.ln2.weight"], "and their mean again"),
        (["backbone.layers.0.attn.rel_pos_h"], "no place for a tensor.*rel_pos_h"),
    ],
)
def test_what_timm_has_no_place_for__is_named(keys, message):
    with pytest.raises(ValueError, match=message):
        to_timm({key: torch.ones(1) for key in keys})


def test_official__refuses_what_it_has_no_place_for():
    model = MODELS.build(tiny_model()).state_dict()
    official, report = to_official(model)
    assert "decoder_pred3.weight" in official
    assert not report.dropped and len(official) == len(model)
    adapter = {"distillation.attention.adapters.0.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="numbered by the teacher's blocks"):
        to_official(model | adapter)
    with pytest.raises(ValueError, match="no place for every tensor.*latent_scale"):
        to_official(model | {"neck.latent_scale": torch.ones(1)})


# transformers.ViTModel's parameters and their shapes, of two blocks of width 24 with an
# MLP of 48, on 32x32 images in patches of 8; written down from transformers 4.57.
BLOCK = {
    **{f"attention.attention.{n}.weight": (24, 24) for n in ("query", "key", "value")},
    **{f"attention.attention.{n}.bias": (24,) for n in ("query", "key", "value")},
    "attention.output.dense.weight": (24, 24),
    "attention.output.dense.bias": (24,),
    "intermediate.dense.weight": (48, 24),
    "intermediate.dense.bias": (48,),
    "output.dense.weight": (24, 48),
    "output.dense.bias": (24,),
    "layernorm_before.weight": (24,),
    "layernorm_before.bias": (24,),
    "layernorm_after.weight": (24,),
    "layernorm_after.bias": (24,),
}
VIT_MODEL = {
    "embeddings.cls_token": (1, 1, 24),
    "embeddings.position_embeddings": (1, 17, 24),
    "embeddings.patch_embeddings.projection.weight": (24, 3, 8, 8),
    "embeddings.patch_embeddings.projection.bias": (24,),
    **{f"encoder.layer.{i}.{k}": s for i in range(4) for k, s in BLOCK.items()},
    "layernorm.weight": (24,),
    "layernorm.bias": (24,),
}


def hugging_face_folder(tmp_path, cfg=None):
    model = shaken(cfg or tiny_model())
    saved(model, tmp_path / "x.pth")
    convert_file(tmp_path / "x.pth", tmp_path / "hf", to="hf", num_heads=2, force=True)
    return model, tmp_path / "hf"


def test_hugging_face_folder__has_the_names_and_shapes_of_vit_model(tmp_path):
    from safetensors import safe_open

    _, folder = hugging_face_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    expected = dict(
        model_type="vit",
        architectures=["ViTModel"],
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_channels=3,
        qkv_bias=True,
        layer_norm_eps=1e-6,
        hidden_act="gelu",
    )
    assert expected.items() <= config.items()
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    assert shapes == VIT_MODEL
    _, folder = hugging_face_folder(tmp_path, vit_classifier("cls_token"))
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["ViTForImageClassification"]
    assert len(config["id2label"]) == 5
    with safe_open(folder / "model.safetensors", "pt") as file:
        named = {f"vit.{key}" for key in VIT_MODEL}
        assert set(file.keys()) == named | {"classifier.weight", "classifier.bias"}


def test_hugging_face_model__has_the_same_features(tmp_path):
    transformers = pytest.importorskip("transformers")
    model, folder = hugging_face_folder(tmp_path)
    theirs, told = transformers.ViTModel.from_pretrained(
        folder, add_pooling_layer=False, output_loading_info=True
    )
    assert not any(told.values())
    images = torch.randn(IMAGES)
    model.backbone.out_type = "raw"
    (ours,) = model.backbone(images)
    features = theirs.eval()(images).last_hidden_state
    torch.testing.assert_close(features, ours, atol=1e-5, rtol=0)
    model, folder = hugging_face_folder(tmp_path, vit_classifier("cls_token"))
    theirs = transformers.ViTForImageClassification.from_pretrained(folder)
    logits = model.head(model.extract_feat(images))
    torch.testing.assert_close(theirs.eval()(images).logits, logits, atol=1e-5, rtol=0)


def test_hugging_face__refusals(tmp_path):
    state = MODELS.build(tiny_model()).state_dict()
    with pytest.raises(ValueError, match="5 heads do not divide the width 24"):
        to_hugging_face(state, 5)
    pooled = MODELS.build(vit_classifier()).state_dict()
    with pytest.raises(ValueError, match="norms the mean of its patch tokens"):
        to_hugging_face(pooled, 2)
    with pytest.raises(ValueError, match="is a Swin Transformer"):
        to_hugging_face({"backbone.stages.0.x": torch.ones(1)}, 2)
    wide = state | {"backbone.pos_embed": torch.zeros(1, 25, 24)}
    with pytest.raises(ValueError, match="24 positions, which are no square grid"):
        to_hugging_face(wide, 2)
    _, config, _ = to_hugging_face(wide, 2, img_size=(32, 48))
    assert config["image_size"] == [32, 48]
    # Of a model that notes no heads.
    torch.save({"state_dict": dict(state)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="give --num-heads"):
        convert_file(tmp_path / "x.pth", tmp_path / "hf", to="hf")
    assert not (tmp_path / "hf").exists()


CONFIG = """
model = dict(
    backbone=dict(type='ViT', mean=[0]),
    data_preprocessor=dict(
        mean=[25.5, 51.0, 76.5], std=[255.0, 127.5, 51.0], to_rgb=True),
    type='ImageClassifier')
"""


def test_mean_and_deviation_are_those_of_the_run():
    found = image_statistics({"meta": {"cfg": CONFIG}})
    assert found.recorded
    assert found.mean == pytest.approx((0.1, 0.2, 0.3))
    assert found.std == pytest.approx((1, 0.5, 0.2))
    own = CONFIG.replace("to_rgb=True", "to_rgb=False")
    assert image_statistics({"meta": {"cfg": own}}).mean == found.mean[::-1]
    for content in ({}, {"meta": None}, {"meta": {"cfg": "dict("}}, {"meta": {}}):
        assert image_statistics(content).mean == IMAGENET_MEAN


def test_folder_of_transformers_prepares_images_as_the_run(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = shaken(vit_classifier("cls_token"))
    meta = dict(cfg=CONFIG, dataset_meta=dict(classes=["ant", "bee", "cat", "d", "e"]))
    content = {"meta": meta, "state_dict": model.state_dict()}
    torch.save(content, tmp_path / "x.pth")
    convert_file(tmp_path / "x.pth", tmp_path / "hf", to="hf", num_heads=2)
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path / "hf")
    image = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
    pixels = processor(image.numpy(), return_tensors="pt")["pixel_values"]
    mean, std = torch.tensor([25.5, 51.0, 76.5]), torch.tensor([255.0, 127.5, 51.0])
    expected = ((image - mean) / std).permute(2, 0, 1)[None]
    torch.testing.assert_close(pixels, expected, rtol=1e-4, atol=1e-4)
    loaded = transformers.ViTForImageClassification.from_pretrained(tmp_path / "hf")
    assert loaded.config.id2label[1] == "bee"
    logits = loaded.eval()(pixels).logits
    expected = model.head(model.extract_feat(pixels))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert "ViTForImageClassification.from_pretrained(FOLDER)" in card
    assert "0.1, 0.2, 0.3" in card
    for path in (tmp_path / "hf").iterdir():
        assert path.stat().st_mode & 0o777 == 0o644
