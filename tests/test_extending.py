"""The examples of docs/extending.md, run exactly as they stand in the page."""

import re
import sys

import cv2
import numpy as np
import pytest
from mmpretrain.registry import MODELS
from samples import ROOT

from mim_plugins.engine import train

PAGE = (ROOT / "docs" / "extending.md").read_text()
# The first line of every block of code names its file.
FILES = dict(
    re.findall(r"```python\n# (my_project/\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
)
CONFIGS = [name for name, content in FILES.items() if "_base_" in content]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with the files of the page, and some digits of noise."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "configs").symlink_to(ROOT / "configs")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    images = root / "work_dirs" / "demo" / "data" / "train" / "0"
    images.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for index in range(4):
        noise = draw.integers(0, 255, (16, 16), dtype=np.uint8)
        cv2.imwrite(str(images / f"{index}.png"), noise)
    registered, imported = dict(MODELS._module_dict), set(sys.modules)
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    MODELS._module_dict.clear()
    MODELS._module_dict.update(registered)
    for name in set(sys.modules) - imported:
        if name.startswith("my_project"):
            del sys.modules[name]


def test_page__every_block_of_code_names_its_file_and_every_config_a_command():
    assert len(FILES) == PAGE.count("```python")
    commands = re.findall(r"^PYTHONPATH=\. python tools/train\.py (\S+)$", PAGE, re.M)
    assert commands == CONFIGS


@pytest.mark.usefixtures("unformatted")
@pytest.mark.parametrize("config", CONFIGS)
def test_example__trains(config, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    runner = train(
        config,
        precision="fp32",
        cfg_options={
            "train_cfg.max_epochs": 1,
            "train_dataloader.batch_size": 2,
            "train_dataloader.num_workers": 0,
            "train_dataloader.persistent_workers": False,
        },
    )
    assert runner.iter == 2
    scalars = runner.message_hub.log_scalars
    losses = {name for name in scalars if "loss" in name}
    wanted = {
        "my_project/momentum_mim.py": {"loss_reconstruction", "loss_momentum"},
        "my_project/deepmim_torch_vit.py": {"loss_0", "loss_1", "loss_2"},
    }.get(config, set())
    assert losses == {f"train/{name}" for name in {"loss", *wanted}}
    assert all(np.isfinite(scalars[name].data[0]).all() for name in losses)
    assert list(checkout.rglob(f"{config.split('/')[1][:-3]}/*.pth"))
    # As the package's own: features, and pictures of what is predicted.
    model = runner.model
    images = model.data_preprocessor(next(iter(runner.train_dataloader)))["inputs"]
    assert model.patch_mean(images).shape == (2, 96)
    levels = model.reconstruct(images)["levels"]
    assert all(level.shape == images.shape for level in levels)
