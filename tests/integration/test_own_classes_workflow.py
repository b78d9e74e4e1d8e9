"""README's fine-tuning on one's own classes, from folders to a name."""

import pickle
import shlex
import sys
from importlib import util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, tiny_model

from mim_plugins.engine import train

CLASSES = ("ant", "bee", "cat", "traffic light")
SIZE = 16
# The config as it is, of a size that takes seconds; images dark to bright by class.
SMALL = (
    f"model.backbone.img_size={SIZE}",
    "model.backbone.patch_size=8",
    "model.head.in_channels=24",
    f"train_pipeline.1.scale={SIZE}",
    f"test_pipeline.1.scale={SIZE}",
    f"test_pipeline.2.crop_size={SIZE}",
    "train_dataloader.num_workers=0",
    "val_dataloader.num_workers=0",
    "train_dataloader.batch_size=4",
    "train_cfg.max_epochs=1",
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Class folders, with what a notebook leaves in them, and a pre-training."""
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for number, name in enumerate((*CLASSES, ".ipynb_checkpoints")):
            path = tmp_path / "my_classes" / part / name
            path.mkdir(parents=True)
            for index in range(3):
                image = draw.integers(0, 40, (SIZE, SIZE, 3)) + 40 * number
                cv2.imwrite(str(path / f"{index}.png"), image.astype(np.uint8))
    backbone = dict(img_size=SIZE)
    pretrained = tmp_path / "work_dirs/deepmim/mae_vitb_300e/epoch_300.pth"
    pretrained.parent.mkdir(parents=True)
    model = MODELS.build(tiny_model(backbone=backbone))
    torch.save(dict(state_dict=model.state_dict()), pretrained)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def readme() -> list[str]:
    """The code blocks of the section."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## Your own classes\n")[1].split("\n## ")[0]
    return [block.partition("\n")[2] for block in section.split("```")[1::2]]


def run(command: str, monkeypatch, *options: str) -> None:
    """Runs a command line of the tools in this process."""
    words = shlex.split(command.replace("\\\n", " "))
    script = ROOT / words[1]
    arguments = [
        str(ROOT / word) if word.startswith("configs/") else word for word in words[2:]
    ]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, *options])
    spec = util.spec_from_file_location(script.stem + "_tool", script)
    tool = util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        tool.main()


def test_readme__trains_tests_and_names(folder, monkeypatch):
    commands, python = readme()
    fine_tune, test = commands.replace("epoch_100", "epoch_1").split("\npython ")
    base = ROOT / "configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py"
    # The recipe's architecture has a name, of which no part can be set by an option.
    child = folder / "configs" / base.name
    child.parent.mkdir()
    arch = dict(TINY_ARCH, _delete_=True)
    child.write_text(
        f"_base_ = {str(base)!r}\nmodel = dict(backbone=dict(arch={arch}))\n"
    )
    fine_tune = fine_tune.replace(
        "configs/deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py", str(child)
    )
    run(fine_tune, monkeypatch, *SMALL)
    work_dir = folder / "work_dirs/mine"
    log = next(work_dir.glob("*/*.log")).read_text()
    assert "12 images of 4 classes (ant, bee, cat and 1 more)" in log
    assert "left out: hidden folders .ipynb_checkpoints" in log
    assert "model.head.num_classes=4 (was 1000)" in log
    checkpoint = torch.load(work_dir / "epoch_1.pth", weights_only=False)
    assert tuple(checkpoint["meta"]["dataset_meta"]["classes"]) == CLASSES
    assert checkpoint["state_dict"]["head.fc.weight"].shape == (4, 24)

    run(f"python {test}", monkeypatch)
    found = pickle.loads((folder / "predictions.pkl").read_bytes())
    assert len(found) == 12 and found[0]["pred_score"].shape == (4,)
    drawn = {path.parent.name for path in (folder / "pictures").rglob("*.png")}
    assert drawn == set(CLASSES)

    image = folder / "my_classes/val/ant/0.png"
    image.rename(folder / "photo.jpg")
    names: dict = {}
    exec(python.replace("epoch_100", "epoch_1"), names)
    assert names["name"] in CLASSES


def test_knn_example__on_the_same_folders(folder):
    """README's hook, in a pre-training on the same folders without labels."""
    _, text = (ROOT / "README.md").read_text().split("```python\ncustom_hooks", 1)
    base = ROOT / "configs/deepmim/mae_vitb_300e.py"
    (folder / "knn.py").write_text(
        f"_base_ = {str(base)!r}\ncustom_hooks{text.split('```')[0]}"
    )
    cfg = Config.fromfile(folder / "knn.py")
    cfg.model = tiny_model(backbone=dict(img_size=SIZE))
    cfg.dump(folder / "knn.py")
    hook = f"custom_hooks.{len(cfg.custom_hooks) - 1}"
    loaders = [f"{hook}.{part}_dataloader" for part in ("train", "val")]
    options = {
        "data_root": "my_classes",
        "train_cfg.max_epochs": 1,
        "train_pipeline.1.scale": SIZE,
        "train_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 4,
        "test_pipeline.1.scale": SIZE,
        "test_pipeline.2.crop_size": SIZE,
        **{f"{loader}.num_workers": 0 for loader in loaders},
    }
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        train(folder / "knn.py", work_dir="work_dirs/knn", cfg_options=options)
    log = next((folder / "work_dirs/knn").glob("*/*.log")).read_text()
    assert "12 images of 4 classes" in log
    assert "of 12 images (k=20, 12 images to compare with)" in log
