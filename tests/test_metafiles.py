"""The model index: every pre-training config is in it under its hub name."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from samples import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "configs").rglob("metafile.yml"))


def hub_name(config: Path) -> str:
    """Folder, then the stem with its first underscore as a hyphen."""
    return f"{config.parent.name}_{config.stem.replace('_', '-', 1)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_metafile__names_every_config_and_says_what_it_says(folder):
    content = yaml.safe_load((folder / "metafile.yml").read_text())
    models = {model["Name"]: model for model in content["Models"]}
    assert len(models) == len(content["Models"])
    collection = content["Collections"][0]
    assert (ROOT / collection["README"]).is_file()
    # Studies on small data sets are no models of a zoo.
    pretraining = [p for p in folder.glob("*.py") if "cifar10" not in p.name]
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
            *_, recipe, data = config.stem.split("_")
            before, _, after = name.rpartition("_")
            assert after == (recipe if data == "in1k" else f"{recipe}-{data}")
            assert before in models
        cfg = Config.fromfile(config)
        assert model["Metadata"]["Epochs"] == cfg.train_cfg.max_epochs
        assert model["Metadata"]["Batch Size"] == cfg.auto_scale_lr.base_batch_size
        assert set(model.get("Downstream", ())) <= models.keys()
        metrics = [m for r in model["Results"] or () for m in r["Metrics"]]
        # Nothing was trained to the end by us.
        assert all(metric.endswith("(paper)") for metric in metrics)


def test_readme__links_every_pretraining_config():
    for folder in FOLDERS:
        readme = (folder / "README.md").read_text()
        for path in folder.glob("*_vitb_*.py"):
            assert f"]({path.name})" in readme, path.name
