"""Models by name: with weights of any origin, with and without their teachers."""

import shutil
import warnings

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, clip_state_dict, laid_out_only, tiny_model

from mim_plugins import compat, model_index
from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)

DECODER = dict(embed_dims=16, depth=1, num_heads=2)


def tiny_encoder():
    """What makes an encoder of the zoo tiny; merging into a config uses it up."""
    arch = dict(TINY_ARCH, num_layers=12, _delete_=True)
    return dict(arch=arch, img_size=32, patch_size=8)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No teacher's file happens to lie where the configs expect it."""
    monkeypatch.chdir(tmp_path)


def pretraining_model(name, **changes):
    return mmpretrain.get_model(
        name, backbone=tiny_encoder(), neck=dict(DECODER), **changes
    )


def features(model):
    with torch.no_grad():
        return model.extract_feat(IMAGES)[-1]


def saved(folder, model, official):
    """A checkpoint of random weights, as our runs or as official code writes it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    path = folder / "checkpoint.pth"
    if official:
        save_state(to_official(model.state_dict())[0], path, wrapper="model")
    else:
        torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return str(path)


@pytest.mark.parametrize("official", [False, True], ids=["ours", "official"])
@pytest.mark.parametrize(
    "name",
    [
        "deepmim_mae-vitb_800e",
        "deepmim_mae-clip-vitb_1600e",
        "deepmim_mae-hybrid-vitb_300e",
        "localmim_vitb-hog_1600e",
        "mae_vitb-1600e",
    ],
)
def test_pretraining__every_tensor_of_a_file_arrives(tmp_path, name, official):
    trained = pretraining_model(name)
    path = saved(tmp_path, trained, official)
    model = pretraining_model(name, pretrained=path)
    own, wanted = model.state_dict(), trained.state_dict()
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[key], wanted[key]) for key in own)
    torch.testing.assert_close(features(model), features(trained))


@pytest.mark.parametrize("official", [False, True], ids=["ours", "official"])
def test_finetuned__encoder_of_a_pretraining_file_arrives(tmp_path, official):
    trained = pretraining_model("deepmim_mae-vitb_800e")
    path = saved(tmp_path, trained, official)
    model = mmpretrain.get_model(
        "deepmim_mae-vitb_800e_finetune-100e",
        pretrained=path,
        backbone=tiny_encoder(),
        head=dict(in_channels=24),
    )
    own, wanted = model.backbone.state_dict(), trained.backbone.state_dict()
    shared = [key for key in own if key.startswith(("layers.", "patch_embed."))]
    assert len(shared) > 100
    assert all(torch.equal(own[key], wanted[key]) for key in shared)


def test_readme__its_example_runs_at_full_size():
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Models by name") :]
    code = section.split("```python\n")[1].split("\n# Weights")[0]
    found: dict = {}
    with torch.no_grad():
        exec(code, found)
    assert found["features"].shape == (1, 192)
    assert found["model"].head.fc.weight.shape == (1000, 192)


def distilled(name, **changes):
    """A student and the teacher that its adapters are built for, both tiny."""
    return pretraining_model(name, teacher=tiny_encoder(), **changes)


def classifier(name):
    return mmpretrain.get_model(
        name,
        backbone=tiny_encoder() | dict(init_cfg=None),
        head=dict(in_channels=24, num_classes=5),
    )


TAUGHT = {
    "deepmim_mae-clip-vitb_300e": (pretraining_model, "ViT-B-16.pt"),
    "deepmim_mae-hybrid-vitb_300e": (pretraining_model, "epoch_1600.pth"),
    "distilled_mae-lite-vitt_400e": (distilled, "mae_base_1600e.pth.tar"),
    "distilled_d2-mae-vitt_400e": (distilled, "mae_base_1600e.pth.tar"),
    "distilled_d2-mae-vitt_400e_finetune-distilled-300e": (classifier, "itself"),
}


@pytest.mark.parametrize("name", TAUGHT)
def test_absent_teacher__features_are_there_and_training_is_refused(name):
    get, source = TAUGHT[name]
    model = get(name)
    assert features(model).shape == (2, 24) or "finetune" in name
    wanted = f"{source}.: it makes features, and cannot be trained. (Give|Set) "
    # A runner's first step, and that of a loop which initialises nothing.
    with pytest.raises(FileNotFoundError, match=wanted):
        model.init_weights()
    with pytest.raises(FileNotFoundError, match=wanted):
        model.loss(IMAGES, None)


@pytest.mark.parametrize("name", [name for name in TAUGHT if "finetune" not in name])
def test_absent_teacher__the_config_itself_is_refused_at_build(name):
    cfg = Config.fromfile(ModelHub.get(name).config.filename)
    with laid_out_only(), pytest.raises(FileNotFoundError):
        MODELS.build(cfg.model)


def test_absent_teacher__what_distillation_trains_arrives_too(tmp_path):
    name = "distilled_d2-mae-vitt_400e"
    trained = distilled(name)
    assert any(key.startswith("extra_block.") for key in trained.state_dict())
    path = saved(tmp_path, trained, official=False)
    own = distilled(name, pretrained=path).state_dict()
    assert all(torch.equal(own[k], x) for k, x in trained.state_dict().items())


def test_teacher__is_taken_where_its_file_is(tmp_path):
    name = "deepmim_mae-clip-vitb_300e"
    assert ModelHub.get(name).config.model.target_generator.type == "AbsentTarget"
    path = tmp_path / "checkpoints" / "ViT-B-16.pt"
    path.parent.mkdir()
    torch.save(clip_state_dict(patch=8, size=32, out=20), path)
    model = pretraining_model(name)
    assert model.target_generator.dims == 20
    assert set(model.loss(IMAGES)) == {f"loss_{level}" for level in range(4)}


def test_absent_target__shows_pictures_as_the_teacher_would():
    model = pretraining_model("deepmim_mae-hybrid-vitb_300e")
    pictures = model.reconstruct(IMAGES)["levels"]
    assert [picture.shape for picture in pictures] == [IMAGES.shape] * 4
    model = pretraining_model("deepmim_mae-clip-vitb_300e")
    assert model.reconstruct(IMAGES)["levels"] == [None] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(), "needs dims.*got dims=None and like=None"),
        (dict(dims=4, like=dict(type="PixelTarget")), "needs dims"),
        (dict(dims=4, checkpoint="there.pt"), "there.pt is there: .* path of the conf"),
    ],
)
def test_absent_target__refuses_what_it_cannot_stand_for(tmp_path, options, message):
    (tmp_path / "there.pt").touch()
    cfg = dict(type="AbsentTarget", checkpoint="absent.pt") | options
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_targets_of_a_list__are_looked_at_one_by_one():
    here = dict(type="PixelTarget", norm_pix=True)
    clip = dict(type="mmpretrain.CLIPTarget", checkpoint="absent.pt")
    model = tiny_model() | dict(target_generator=[here, clip, here])
    cfg = Config(dict(model=model, clip_dims=16))
    model_index.leave_out_absent_teachers(cfg)
    kinds = [target["type"] for target in cfg.model.target_generator]
    assert kinds == ["PixelTarget", "AbsentTarget", "PixelTarget"]


@pytest.fixture
def hub(monkeypatch):
    """A hub of its own, which knows no names yet."""

    class Hub(ModelHub):
        _models_dict: dict = {}

        @classmethod
        def _register_mmpretrain_models(cls):
            pass

        @classmethod
        def get(cls, model_name):
            return cls._models_dict[model_name]

    monkeypatch.setattr(compat, "model_hub", lambda: Hub)
    return Hub


def test_register__every_name_of_the_index(hub):
    model_index.register()
    assert "mirl_vits54-300e" in hub._models_dict
    assert hub._models_dict.keys() <= set(mmpretrain.list_models())


def test_register__without_an_index_or_a_hub_is_silent(hub, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(model_index, "find_index", lambda: None)
        model_index.register()
        monkeypatch.setattr(compat, "model_hub", lambda: None)
        model_index.register()
    assert not hub._models_dict


@pytest.mark.parametrize("content", ["{", "", "- 3", "x: 1"])
def test_register__of_a_damaged_index_warns(hub, monkeypatch, tmp_path, content):
    index = tmp_path / "model-index.yml"
    index.write_text(content)
    monkeypatch.setattr(model_index, "find_index", lambda: index)
    with pytest.warns(UserWarning, match="do not know all names of .*model-index.yml"):
        model_index.register()


def test_hub_of_another_stack__is_none(monkeypatch):
    monkeypatch.delattr(ModelHub, "register_model_index")
    assert compat.model_hub() is None


def test_index__is_found_in_a_checkout_and_in_a_package_and_nowhere_else(tmp_path):
    package = tmp_path / "mim_plugins"
    package.mkdir()
    beside, inside = tmp_path / model_index.INDEX, package / ".mim" / model_index.INDEX
    shutil.copy(ROOT / model_index.INDEX, beside)
    assert (
        model_index.find_index(package) is None
    )  # in site-packages it may be anybody's
    (tmp_path / "setup.py").touch()
    assert model_index.find_index(package) == beside
    inside.parent.mkdir()
    shutil.copy(beside, inside)
    assert model_index.find_index(package) == inside
