"""Names of models: each has a recipe, and what it writes can be built."""

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS
from own_images import write_images
from samples import laid_out_only

from mim_plugins.simple import models
from mim_plugins.simple.pretraining import _Plan

GIVEN = dict(
    patch_size=None,
    epochs=2,
    batch_size=None,
    channels=None,
    teacher=None,
    workers=None,
    seed=0,
)


def plan(data, model, img_size=(96, 96), **given):
    return _Plan(
        {**GIVEN, "data": str(data), "model": model, "img_size": img_size} | given
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 2)


@pytest.mark.parametrize("name", models.RECIPES)
def test_model__is_built_for_other_images_than_its_recipe(name, data, tmp_path):
    recipe = models.RECIPES[name]
    cfg = Config.fromfile(models.config_path(recipe.config))
    given = {}
    if recipe.teacher:
        with pytest.raises(ValueError, match="learns from .* give its file as teacher"):
            plan(data, name)._model(cfg)
        (tmp_path / "teacher.pth").touch()
        given = dict(teacher=str(tmp_path / "teacher.pth"))
    cfg.merge_from_dict(dict(model=plan(data, name, **given)._model(cfg)))
    for part in (cfg.model, cfg.model.get("target_generator", {})):
        for key in ("teacher_checkpoint", "checkpoint"):
            if key in part:
                part[key] = "work_dirs/absent.pth"  # can be built without
    with laid_out_only():
        model = MODELS.build(cfg.model)
    assert model.backbone.image_size == (96, 96)


@pytest.mark.parametrize("name", ["mae_vitt", "deepmim_vits", "mirl_vitt"])
@pytest.mark.parametrize("size", [(16, 16), (28, 28), (64, 160)])
def test_vit__is_built_for_small_and_oblong_images(name, size, data):
    cfg = Config.fromfile(models.config_path(models.RECIPES[name].config))
    cfg.merge_from_dict(dict(model=plan(data, name, size)._model(cfg)))
    with laid_out_only():
        assert MODELS.build(cfg.model).backbone.image_size == size


@pytest.mark.parametrize(
    ("wrong", "similar"),
    [
        ("deepmim_vit_s", "deepmim_vits"),
        ("maevitb", "mae_vitb"),
        ("MIRL-vitb", "mirl_vitb"),
    ],
)
def test_typo__is_answered_with_similar_names(wrong, similar):
    with pytest.raises(ValueError, match=f"did you mean .*{similar}"):
        models.find_recipe(wrong)


def test_swin__says_which_sizes_fit(data):
    cfg = Config.fromfile(models.config_path("localmim/swinb_hog_400e.py"))
    with pytest.raises(ValueError, match="multiple of 32, from 96 on.*img_size=96"):
        plan(data, "localmim_swinb", (80, 80))._model(cfg)
    with pytest.raises(ValueError, match="leave out patch_size"):
        plan(data, "localmim_swinb", patch_size=4)._model(cfg)


def test_localmim__says_which_patches_have_its_cells(data):
    cfg = Config.fromfile(models.config_path("localmim/vits_hog_1600e.py"))
    with pytest.raises(ValueError, match="patch_size is a multiple of 4"):
        plan(data, "localmim_vits", patch_size=6)._model(cfg)


def test_needless_teacher__is_refused(data):
    cfg = Config.fromfile(models.config_path("distilled/mae_vitt_400e.py"))
    with pytest.raises(ValueError, match="mae_vitt learns from no teacher"):
        plan(data, "mae_vitt", teacher="a.pth")._model(cfg)
