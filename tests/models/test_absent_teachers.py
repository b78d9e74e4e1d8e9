"""Models whose teacher's file does not exist: everything but training works."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, clip_state_dict, laid_out_only, tiny_model

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)

# What each released recipe with a teacher says when the teacher's file is missing.
RECIPES = {
    "deepmim/mae-clip_vitb_300e": "no CLIP checkpoint .*ViT-B-16.pt: give the",
    "deepmim/mae-hybrid_vitb_300e": (
        "no teacher checkpoint .*epoch_1600.pth: set target_generator.checkpoint to a "
        "trained MAE.*; or train on pixels"
    ),
    "distilled/mae-lite_vitt_400e": (
        "no teacher checkpoint .*mae_base_1600e.pth.tar: set teacher_checkpoint to"
    ),
    "distilled/d2-mae_vitt_400e": (
        "no teacher checkpoint .*mae_base_1600e.pth.tar: set teacher_checkpoint to"
    ),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No teacher's file happens to lie where the configs expect it."""
    monkeypatch.chdir(tmp_path)


def tiny(recipe):
    """The model of a config file, tiny."""
    cfg = Config.fromfile(ROOT / "configs" / f"{recipe}.py").model
    for model in (cfg, cfg.target_generator.get("teacher")):
        if model is not None:
            shrink(model.backbone)
            model.neck.update(embed_dims=16, depth=1, num_heads=2)
    if "teacher" in cfg:
        shrink(cfg.teacher)
    return cfg


def shrink(encoder):
    encoder.update(arch=dict(TINY_ARCH, num_layers=12), img_size=32, patch_size=8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe__makes_features_and_refuses_to_be_trained(recipe):
    model = MODELS.build(tiny(recipe))
    with torch.no_grad():
        assert model.extract_feat(IMAGES)[-1].shape == (2, 24)
    wanted = f"without its teacher and cannot be trained: there is {RECIPES[recipe]}"
    # Before a runner's first step, and in that of a loop which initialises nothing.
    with pytest.raises(FileNotFoundError, match=wanted):
        model.init_weights()
    with pytest.raises(FileNotFoundError, match=wanted):
        model.loss(IMAGES, None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe__with_loaded_weights_refuses_too(recipe, tmp_path):
    """mmengine stops at a Pretrained ``init_cfg``, before any part is asked."""
    model = MODELS.build(tiny(recipe))
    path = str(tmp_path / "checkpoint.pth")
    torch.save(model.state_dict(), path)
    model = MODELS.build(tiny(recipe) | dict(pretrained=path))
    with pytest.raises(FileNotFoundError, match="without its teacher"):
        model.init_weights()


@pytest.mark.parametrize("recipe", RECIPES)
def test_state_dict__is_that_of_a_model_with_its_teacher(recipe, tmp_path):
    cfg = tiny(recipe)
    absent = MODELS.build(cfg).state_dict()
    save_teacher(cfg, tmp_path / "teacher.pth")
    model = MODELS.build(cfg)
    model.load_state_dict(absent, strict=True)
    model.init_weights()
    assert all(loss.isfinite() for loss in model.loss(IMAGES).values())


def save_teacher(cfg, path):
    """Writes a teacher's file that fits, and names it in the config."""
    target = cfg.target_generator
    if target.type == "CLIPTarget":
        torch.save(clip_state_dict(patch=8, size=32, out=512), path)
        target.checkpoint = path
    elif target.type == "HybridTarget":
        torch.save(MODELS.build(target.teacher).state_dict(), path)
        target.checkpoint = path
    else:
        torch.save(MODELS.build(cfg.teacher).state_dict(), path)
        cfg.teacher_checkpoint = path


def test_copy__is_absent_too():
    model = copy.deepcopy(MODELS.build(tiny("distilled/mae-lite_vitt_400e")))
    with pytest.raises(FileNotFoundError, match="without its teacher"):
        model.init_weights()


def test_hybrid__shows_pictures_as_with_its_teacher():
    model = MODELS.build(tiny("deepmim/mae-hybrid_vitb_300e"))
    pictures = model.reconstruct(IMAGES)["levels"]
    assert [picture.shape for picture in pictures] == [IMAGES.shape] * 4
    # Features are no pictures.
    model = MODELS.build(tiny("deepmim/mae-clip_vitb_300e"))
    assert model.reconstruct(IMAGES)["levels"] == [None] * 4


def test_clip__without_dims_the_file_is_needed_to_build():
    target = dict(type="CLIPTarget", checkpoint="ViT-B-16.pt")
    with pytest.raises(FileNotFoundError, match="OpenAI CLIP ViT-B/16 weights"):
        MODELS.build(tiny_model() | dict(target_generator=target))


@pytest.mark.parametrize("input_size", [None, 64])
def test_clip__other_channels_are_refused_all_the_same(input_size):
    target = dict(type="CLIPTarget", checkpoint="x.pt", dims=24, input_size=input_size)
    cfg = tiny_model(backbone=dict(in_channels=4)) | dict(data_preprocessor=None)
    with pytest.raises(ValueError, match="images of 3 channels, the student's have 4"):
        MODELS.build(cfg | dict(target_generator=target))


def test_timm__widths_are_the_models():
    pytest.importorskip("timm")
    tiny_vit = dict(img_size=32, patch_size=8, depth=1, embed_dim=24, num_heads=2)
    target = dict(
        type="TimmFeatureTarget",
        model_name="vit_tiny_patch16_224",
        checkpoint="nowhere.pth",
        model_kwargs=tiny_vit,
    )
    model = MODELS.build(tiny_model() | dict(target_generator=target))
    assert model.neck.out_dims == [24] * 3
    with pytest.raises(
        FileNotFoundError,
        match="no teacher checkpoint nowhere.pth: set .* or pretrained=True",
    ):
        model.init_weights()


def test_list_of_targets__one_absent_teacher_is_enough():
    pixels = dict(type="PixelTarget", norm_pix=True)
    clip = dict(type="CLIPTarget", checkpoint="absent.pt", dims=16)
    model = MODELS.build(tiny_model() | dict(target_generator=[pixels, clip, pixels]))
    assert model.neck.out_dims == [192, 16, 192]
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        model.init_weights()


@pytest.mark.parametrize("teacher_checkpoint", ["nowhere.pth", None])
def test_classifier__is_built_without_its_teacher(teacher_checkpoint):
    """A teacher that would be downloaded is not, until training starts."""
    recipe = "d2-mae_vitt_finetune-distilled-300e_in1k"
    path = ROOT / "configs" / "distilled" / "benchmarks" / f"{recipe}.py"
    cfg = Config.fromfile(path).model
    cfg.teacher_checkpoint = teacher_checkpoint
    cfg.teacher.pretrained = teacher_checkpoint is None
    with laid_out_only():
        model = MODELS.build(cfg)
    assert not any(key.startswith("teacher") for key in model.state_dict())
    if teacher_checkpoint is None:
        assert model.teacher is None
        return
    wanted = "nowhere.pth: set teacher_checkpoint to a trained classifier"
    with pytest.raises(FileNotFoundError, match=wanted):
        model.init_weights()
    with pytest.raises(FileNotFoundError, match=wanted):
        model.loss(IMAGES, [])
