"""The examples of docs/extending.md, run exactly as they stand in the page."""

import re
import sys

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import ROOT
from torchvision.models import VisionTransformer

from mim_plugins.checkpoints import convert, convert_file, layouts, to_official
from mim_plugins.engine import train

PAGE = (ROOT / "docs" / "extending.md").read_text()
# The first line of every block of code names its file.
FILES = dict(
    re.findall(r"```python\n# (my_project/\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
)
LAYOUTS = dict(
    re.findall(
        r"```python\n# mim_plugins/checkpoints/layouts/(\w+)\.py\n(.*?)```",
        PAGE,
        re.DOTALL,
    )
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
    assert len(FILES) + len(LAYOUTS) == PAGE.count("```python")
    commands = re.findall(r"^PYTHONPATH=\. python tools/train\.py (\S+)$", PAGE, re.M)
    assert commands == CONFIGS


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


@pytest.fixture
def known_layouts(tmp_path, monkeypatch):
    """The folder of layouts, with the files of the page in it."""
    for name, content in LAYOUTS.items():
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path)])
    layouts.layouts.cache_clear()
    yield
    layouts.layouts.cache_clear()
    for name in LAYOUTS:
        sys.modules.pop(f"{layouts.__name__}.{name}", None)


@pytest.mark.usefixtures("known_layouts")
def test_example__converts_a_torchvision_vit(tmp_path):
    network = VisionTransformer(16, 4, 2, num_heads=2, hidden_dim=32, mlp_dim=64).eval()
    torch.nn.init.normal_(network.encoder.ln.weight)
    path = tmp_path / "vit.pth"
    torch.save(network.state_dict(), path)
    (report,) = convert_file(path, tmp_path / "ours.pth")
    assert report.layout == "the layout of torchvision's Vision Transformers"
    assert set(report.dropped) == {"heads.head.weight", "heads.head.bias"}
    ours = MODELS.build(
        dict(
            type="VisionTransformer",
            arch=dict(
                embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64
            ),
            img_size=16,
            patch_size=4,
            init_cfg=dict(type="Pretrained", checkpoint=str(path)),
        )
    )
    ours.init_weights()
    ours.eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = network.heads(ours(images)[0])
        torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-4)
    conversion = convert(network.state_dict())
    back, _ = to_official(conversion.state, conversion.metadata)
    wanted = {k: x for k, x in network.state_dict().items() if "heads" not in k}
    assert back.keys() == wanted.keys()
