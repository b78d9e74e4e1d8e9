"""Every config builds, and says of itself what the launcher and a reader need."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from samples import ROOT

CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.py")
    if "_base_" not in path.relative_to(ROOT).parts
)


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config__builds_and_is_complete(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmpretrain"
    assert "mim_plugins" in cfg.custom_imports["imports"]
    assert cfg.resume is False
    init_default_scope(cfg.default_scope)
    if "init_cfg" in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.optimizer.param_groups
    # Warm-up and cosine follow each other and end with the training.
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == cosine.end - cosine.T_max
    assert cosine.end == cfg.train_cfg.max_epochs
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "the head comment is missing"
    batch = re.search(r"Global batch size: (\d+)", header[0])
    assert batch and int(batch[1]) == cfg.auto_scale_lr.base_batch_size
    epochs = re.search(r"[-_](\d+)e(\.py|_)", path.name)
    if epochs:
        assert int(epochs[1]) == cfg.train_cfg.max_epochs


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.parent.name == "deepmim"], ids=name
)
def test_deepmim__supervises_four_levels_of_increasing_depth(path):
    cfg = Config.fromfile(path)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    depths = [tap + 1 for tap in model.backbone.taps] + [model.backbone.num_layers]
    relative = [depth / model.backbone.num_layers for depth in depths]
    assert relative == pytest.approx([6 / 12, 8 / 12, 10 / 12, 1])
    assert len(model.neck.decoders[0].decoder_blocks) == 4
