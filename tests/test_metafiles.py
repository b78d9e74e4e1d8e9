"""The model index: every config that makes or fine-tunes a model is in it, by its name.

The figures are the papers'.
"""

from functools import cache
from pathlib import Path
from urllib.parse import urlparse

import mmpretrain
import pytest
import yaml
from mmengine.config import Config
from samples import ROOT, laid_out_only

FOLDERS = sorted(path.parent for path in (ROOT / "configs").glob("*/metafile.yml"))
MODELS = {
    model["Name"]: model
    for folder in FOLDERS
    for model in yaml.safe_load((folder / "metafile.yml").read_text())["Models"]
}

# Recipes for one's own data, which the model index does not list.
STUDIES = {"_base_", "cifar10", "demo"}


def hub_name(config: Path) -> str:
    """Folder, then the stem with its first underscore as a hyphen."""
    return f"{config.parent.name}_{config.stem.replace('_', '-', 1)}"


@cache
def read(config: Path) -> Config:
    return Config.fromfile(config)


def test_index__imports_the_metafile_of_every_method():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    methods = [p for p in (ROOT / "configs").iterdir() if p.name not in STUDIES]
    wanted = sorted(f"configs/{p.name}/metafile.yml" for p in methods if p.is_dir())
    assert sorted(index["Import"]) == wanted
    assert {"deepmim", "localmim", "mirl", "distilled", "mae"} <= {
        p.name for p in methods
    }
    assert all((ROOT / path).is_file() for path in wanted)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_metafile__names_every_config_and_says_what_it_says(folder):
    content = yaml.safe_load((folder / "metafile.yml").read_text())
    models = {model["Name"]: model for model in content["Models"]}
    assert len(models) == len(content["Models"])
    collection = content["Collections"][0]
    assert (ROOT / collection["README"]).is_file()
    pretraining = [*folder.glob("*.py")]
    assert pretraining
    assert {hub_name(path) for path in pretraining} <= models.keys()
    benchmarks = {ROOT / model["Config"] for model in models.values()}
    assert set(folder.glob("benchmarks/*.py")) <= benchmarks
    for name, model in models.items():
        assert model["In Collection"] == collection["Name"]
        config = ROOT / model["Config"]
        stem = hub_name(config)
        if config.parent == folder:
            assert name == stem
        else:  # a pre-trained model's name, then the recipe (and data but ImageNet)
            assert config.parent == folder / "benchmarks"
            *_, recipe, data = config.stem.split("_")
            before, _, after = name.rpartition("_")
            assert after == (recipe if data == "in1k" else f"{recipe}-{data}")
            assert name in models[before]["Downstream"]
        cfg = read(config)
        assert model["Metadata"]["Epochs"] == cfg.train_cfg.max_epochs
        assert model["Metadata"]["Batch Size"] == cfg.auto_scale_lr.base_batch_size
        assert set(model.get("Downstream", ())) <= models.keys()
        metrics = [m for r in model["Results"] or () for m in r["Metrics"]]
        # Nothing was trained to the end by us.
        assert all(metric.endswith("(paper)") for metric in metrics)


@pytest.mark.parametrize("name", sorted(n for n, m in MODELS.items() if m["Weights"]))
def test_weights__are_files_the_authors_released(name):
    model = MODELS[name]
    address = urlparse(model["Weights"])
    assert address.scheme == "https" and address.netloc == "github.com"
    code = urlparse(model["Converted From"]["Code"])
    assert address.path.startswith(f"{code.path}/releases/download/")
    # The file's name says of which model it is: localmim_vitb-hog_1600e.
    size, target, epochs = name.removeprefix("localmim_").replace("-", "_").split("_")
    kind = {"b": "base", "l": "large"}[size[-1]]
    assert Path(address.path).name == (
        f"{size[:-1]}_{kind}_localmim_{target}_{epochs}p_pretrain.pth"
    )


def test_weights__are_those_of_the_five_released_models():
    assert sum(model["Weights"] is not None for model in MODELS.values()) == 5


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names__are_those_mmpretrain_lists(folder):
    names = {name for name in MODELS if name.startswith(f"{folder.name}_")}
    listed = set(mmpretrain.list_models(f"{folder.name}_*"))
    # mmpretrain has a MAE, too.
    theirs = [name for name in listed if name.startswith("mae_vit-")]
    assert names == listed - set(theirs)
    assert bool(theirs) == (folder.name == "mae")


# One config serves the fine-tuning of several models.
@pytest.mark.parametrize(
    "name", sorted({model["Config"]: name for name, model in MODELS.items()}.values())
)
def test_name__builds_its_config_without_any_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with laid_out_only():
        model = mmpretrain.get_model(name)
    assert Path(model._config.filename).samefile(ROOT / MODELS[name]["Config"])
    assert type(model).__name__ == model._config.model.type.rpartition(".")[-1]
    assert not model.training


def test_readme__links_every_pretraining_config():
    for folder in FOLDERS:
        readme = (folder / "README.md").read_text()
        for path in folder.glob("*_vitb_*.py"):
            assert f"]({path.name})" in readme, path.name
