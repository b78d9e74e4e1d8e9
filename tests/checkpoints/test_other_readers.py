"""Paths are taken in every form, and encoders of other packages are warned of."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state
from mim_plugins.checkpoints.loading import ConvertCheckpointHook

VIT = dict(type="MIMVisionTransformer", arch=TINY_ARCH, img_size=32, patch_size=8)


@pytest.fixture
def official(tmp_path) -> Path:
    state, _ = to_official(MODELS.build(tiny_model()).state_dict())
    save_state(state, tmp_path / "official.pth", wrapper="model")
    return tmp_path / "official.pth"


def by_init_cfg(path):
    encoder = MODELS.build(
        VIT | dict(init_cfg=dict(type="Pretrained", checkpoint=path))
    )
    encoder.init_weights()
    return encoder


def test_path_objects__are_taken(official):
    wanted = torch.load(official, weights_only=True)["model"]["cls_token"]
    assert torch.equal(by_init_cfg(official).cls_token, wanted)


@pytest.fixture
def log(monkeypatch):
    lines: list[str] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: lines.append(str(message))
    )
    return lines


SIZES = dict(embed_dims=24, num_layers=4, num_heads=2, img_size=(32, 32), patch_size=8)
SWIN = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("package", "name", "settings"),
    [
        ("mmseg", "MAE", SIZES),
        ("mmseg", "SwinTransformer", SWIN),
        ("mmdet", "SwinTransformer", SWIN),
    ],
)
def test_encoders_that_load_for_themselves__warn(
    official, log, package, name, settings
):
    module = pytest.importorskip(f"{package}.models.backbones")
    init_cfg = ConfigDict(type="Pretrained", checkpoint=str(official))
    encoder = getattr(module, name)(init_cfg=init_cfg, **settings)
    hook = ConvertCheckpointHook()
    hook.before_run(SimpleNamespace(model=torch.nn.ModuleDict({"backbone": encoder})))
    (line,) = [line for line in log if "may load nothing of" in line]
    assert f"which {package}.{name} does not convert" in line
    assert "mmpretrain.VisionTransformer" in line
    log.clear()
    hook.before_run(SimpleNamespace(model=by_init_cfg(str(official))))
    assert not log or not any("may load nothing of" in line for line in log)
