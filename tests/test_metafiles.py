"""The model index: every config that makes or fine-tunes a model is in it, by its name.

The figures are the papers'; parameters and multiply-adds are computed again.
"""

import re
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

import mmpretrain
import pytest
import yaml
from mmengine.config import Config
from samples import ROOT

from dev.benchmarks.complexity import complexity, laid_out_only

FOLDERS = sorted(path.parent for path in (ROOT / "configs").glob("*/metafile.yml"))
MODELS = {
    model["Name"]: model
    for folder in FOLDERS
    for model in yaml.safe_load((folder / "metafile.yml").read_text())["Models"]
}

# Recipes for one's own data, which the model index does not list.
STUDIES = {"_base_", "cifar10", "demo"}


KINDS = ("benchmarks", "detection", "segmentation", "tracking")


def hub_stem(config: Path) -> str:
    """The stem with its first underscore as a hyphen."""
    return config.stem.replace("_", "-", 1)


def hub_name(config: Path) -> str:
    """Folder, then the stem."""
    return f"{config.parent.name}_{hub_stem(config)}"


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
    listed = {ROOT / model["Config"] for model in models.values()}
    for kind in KINDS:
        assert set(folder.glob(f"{kind}/*.py")) <= listed
    assert collection["Code"]["URL"].startswith("https://github.com/")
    for name, model in models.items():
        assert model["In Collection"] == collection["Name"]
        config = ROOT / model["Config"]
        cfg = read(config)
        if config.parent == folder:
            assert name == hub_name(config)
        elif "pretrained" not in cfg:  # trained from nothing
            assert f"{name}_in1k" == f"{folder.name}_{hub_stem(config)}"
        else:  # the name of what it starts from, then the recipe (and data)
            assert config.parent.name in KINDS
            *_, recipe, data = config.stem.split("_")
            recipe += "" if data == "in1k" else f"-{data}"
            before = name.removesuffix(f"_{recipe}")
            assert before != name and name in models[before]["Downstream"]
            start = ROOT / models[before]["Config"]
            run = Path(cfg.pretrained).parent.relative_to("work_dirs")
            if config.parent.name != "benchmarks":  # which may serve several
                assert ROOT / "configs" / f"{run}.py" == start
        metadata = model["Metadata"]
        if "max_iters" in cfg.train_cfg:
            assert metadata["Iterations"] == cfg.train_cfg.max_iters
        else:
            assert metadata["Epochs"] == cfg.train_cfg.max_epochs
        assert metadata["Batch Size"] == cfg.auto_scale_lr.base_batch_size
        assert set(model.get("Downstream", ())) <= models.keys()
        metrics = [m for r in model["Results"] or () for m in r["Metrics"]]
        # Nothing was trained to the end by us.
        assert all(metric.endswith("(paper)") for metric in metrics)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("deepmim_mae-clip-vitb_1600e_finetune-100e", [85.6]),
        ("deepmim_mae-clip-vitb_1600e_upernet-ade20k", [53.1]),
        # Of its 52.8 box AP neither detector nor recipe is known.
        ("deepmim_mae-clip-vitb_1600e_mask-rcnn-coco", []),
        ("mae_vitb-1600e_finetune-100e", [83.6]),
        ("mae_vitb-1600e_linear-90e", [68.0]),
        ("mae_vitl-1600e_finetune-50e", [85.9]),
        ("mae_vitb-1600e_mask-rcnn-coco", [51.6, 45.9]),
        ("mae_vitb-1600e_cascade-mask-rcnn-coco", [54.0, 46.7]),
        ("mae_vitb-1600e_upernet-ade20k", [48.1]),
        ("mirl_vitb48-800e_finetune-60e", [86.2]),
        ("localmim_vitl-hog_800e_finetune-50e", [85.8]),
        ("distilled_vitt-scratch-300e", [75.8]),
        ("distilled_vits-scratch-300e", [80.2]),
        ("distilled_mae-vitt_400e_mask-rcnn-coco", [39.9, 35.4]),
        ("distilled_vitt-scratch-300e_mask-rcnn-coco", [40.4, 35.5]),
        ("distilled_mae-lite-vitt_400e_mask-rcnn-coco", [42.3, 37.3]),
        ("distilled_d2-mae-vitt_400e_mask-rcnn-coco", [42.5, 37.5]),
        ("distilled_vitt-scratch-300e_semantic-fpn-ade20k", [38.0]),
        ("distilled_d2-mae-vitt_400e_semantic-fpn-ade20k", [39.0]),
        ("distilled_vitt-scratch-rpe-1000e_semantic-fpn-ade20k", [41.5]),
        (
            "distilled_d2-mae-vitt_400e_finetune-rpe-1000e_semantic-fpn-rpe-ade20k",
            [42.8],
        ),
        ("distilled_mae-lite-vitt_400e_lasot-300e", [65.8]),
        ("distilled_d2-mae-vitt_400e_lasot-300e", [66.1]),
        ("distilled_d2-mae-vitt_400e_lasot-only-300e", []),
    ],
)
def test_results__are_the_papers(name, figures):
    results = MODELS[name]["Results"] or ()
    assert [v for r in results for v in r["Metrics"].values()] == figures


def test_papers__of_d2_hiera_and_swin_is_the_extension():
    source = "https://arxiv.org/abs/2404.12210"
    for name in MODELS:
        if not name.startswith("distilled_"):
            continue
        theirs = any(part in name for part in ("_d2-", "hierat", "swint"))
        dense = name.endswith(("-coco", "-ade20k", "-camvid")) or "_lasot" in name
        paper = MODELS[name].get("Paper", {}).get("URL")
        assert paper == (source if theirs or dense else None), name


@pytest.mark.parametrize("name", sorted(n for n, m in MODELS.items() if m["Weights"]))
def test_weights__are_files_the_authors_released(name):
    model = MODELS[name]
    address = urlparse(model["Weights"])
    assert address.scheme == "https"
    code = urlparse(model["Converted From"]["Code"])
    # The file's name says of which model it is.
    if name.startswith("mae_"):
        assert address.netloc == "dl.fbaipublicfiles.com"
        tuned, size = "_finetune" in name, {"b": "base", "l": "large"}[name[7]]
        assert address.path == (
            f"/mae/finetune/mae_finetuned_vit_{size}.pth"
            if tuned
            else f"/mae/pretrain/mae_pretrain_vit_{size}.pth"
        )
        return
    assert address.netloc == "github.com"
    assert address.path.startswith(f"{code.path}/releases/download/")
    # localmim_vitb-hog_1600e
    size, target, epochs = name.removeprefix("localmim_").replace("-", "_").split("_")
    kind = {"b": "base", "l": "large"}[size[-1]]
    assert Path(address.path).name == (
        f"{size[:-1]}_{kind}_localmim_{target}_{epochs}p_pretrain.pth"
    )


def test_weights__are_those_of_the_released_models():
    folders = [n.split("_")[0] for n, m in MODELS.items() if m["Weights"]]
    assert sorted(folders) == ["localmim"] * 5 + ["mae"] * 4


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names__are_those_mmpretrain_lists(folder):
    names = {name for name in MODELS if name.startswith(f"{folder.name}_")}
    listed = set(mmpretrain.list_models(f"{folder.name}_*"))
    # mmpretrain has a MAE, too.
    theirs = [name for name in listed if name.startswith("mae_vit-")]
    assert names == listed - set(theirs)
    assert bool(theirs) == (folder.name == "mae")


COUNTED: dict[str, tuple[int, int]] = {}


# One config serves the fine-tuning of several models.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", sorted({model["Config"]: name for name, model in MODELS.items()}.values())
)
def test_name__builds_its_config_without_any_file(name, tmp_path, monkeypatch):
    """Of the size and cost that the metafile says."""
    entry = MODELS[name]
    if "/detection/" in entry["Config"]:
        pytest.importorskip("mmdet")
        pytest.importorskip("mmcv._ext")
    if "/segmentation/" in entry["Config"]:
        pytest.importorskip("mmseg")
    monkeypatch.chdir(tmp_path)
    with laid_out_only():
        model = mmpretrain.get_model(name)
    cfg = model._config
    assert Path(cfg.filename).samefile(ROOT / entry["Config"])
    assert type(model).__name__ == cfg.model.type.rpartition(".")[-1]
    assert not model.training
    same = re.sub(r"work_dirs/[^']*", "", str(cfg.model))
    parameters, flops = COUNTED.get(same) or complexity(model, cfg)
    COUNTED[same] = parameters, flops
    assert entry["Metadata"]["Parameters"] == parameters
    assert entry["Metadata"]["FLOPs"] == pytest.approx(flops, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        # The official code's counts, and multiply-adds by formula.
        ("mae_vitb-1600e", 111_907_840, 17.56e9),
        ("deepmim_mae-clip-vitb_1600e", 138.97e6, 17.56e9),
        ("deepmim_mae-vitb_300e_finetune-100e", 86_567_656, 17.56e9),
        ("localmim_swinb-hog_400e", 87.8e6, 15.4e9),
        ("mirl_vits54-800e", 113.7e6, 20.5e9),
        ("mirl_vitb24-300e_finetune-100e", 171.6e6, 35.0e9),
        ("mirl_vitb48-800e", 397.2e6, 69.9e9),
        ("mae_vitl-1600e_finetune-50e", 304.3e6, 61.6e9),
        ("distilled_mae-vitt_400e", 5.75e6, 1.25e9),
        ("distilled_mae-vitt_400e_finetune-300e", 5_717_416, 1.25e9),
        ("distilled_mae-hierat_400e_finetune-300e", 6_694_966, 1.20e9),
        ("distilled_simmim-swint_400e_finetune-300e", 7_299_634, 1.16e9),
    ],
)
def test_size_and_cost__are_those_known(name, parameters, flops):
    metadata = MODELS[name]["Metadata"]
    assert metadata["Parameters"] == pytest.approx(parameters, rel=1e-3)
    assert metadata["FLOPs"] == pytest.approx(flops, rel=5e-3)


def test_readme__links_every_pretraining_config():
    for folder in FOLDERS:
        readme = (folder / "README.md").read_text()
        for path in folder.glob("*_vitb_*.py"):
            assert f"]({path.name})" in readme, path.name
