"""Models by name: with weights of any origin."""

import shutil
import warnings

import mmpretrain
import pytest
import torch
from mmpretrain.apis.model import ModelHub
from samples import ROOT, TINY_ARCH

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


def test_pretraining__the_encoder_that_maes_authors_released_arrives(tmp_path):
    """Their file, which the metafile names, has no decoder."""
    trained = pretraining_model("mae_vitb-1600e")
    path = saved(tmp_path, trained, official=True)
    state = torch.load(path, weights_only=True)["model"]
    encoder = {key: x for key, x in state.items() if "decoder" not in key}
    del encoder["mask_token"]
    torch.save(dict(model=encoder), path)
    model = pretraining_model("mae_vitb-1600e", pretrained=path)
    own, wanted = model.backbone.state_dict(), trained.backbone.state_dict()
    assert all(torch.equal(own[key], wanted[key]) for key in own)


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


def test_pretrained__without_released_weights_is_refused():
    with pytest.raises(ValueError, match="no weights of deepmim_mae-vitb_800e are"):
        pretraining_model("deepmim_mae-vitb_800e", pretrained=True)
    # Names of mmpretrain's own, and of released weights, are as they were.
    assert model_index.find("resnet50_8xb32_in1k")[1].startswith("https://")
    assert model_index.find("localmim_vitb-hog_1600e")[1].startswith("https://")
    assert model_index.find("mirl_vits54-300e")[1] is None


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("mirl_vits54-300", "mirl_vits54-300e"),
        ("deepmim_vitb_800e", "deepmim_mae-vitb_800e"),
        ("MIRL_vits54_300e", "mirl_vits54-300e"),
        ("nothing like any of them", None),
    ],
)
def test_find__an_unknown_name_gets_suggestions(name, similar):
    with pytest.raises(ValueError, match="no model is named") as caught:
        model_index.find(name)
    assert (similar or "list_models") in str(caught.value)
    assert ("similar names" in str(caught.value)) == (similar is not None)


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
