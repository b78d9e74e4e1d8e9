"""Every tracking config builds as it is, and says what the paper does."""

import re

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from samples import ROOT, laid_out_only

CONFIGS = sorted((ROOT / "configs").glob("*/tracking/*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_tracking_config__builds_and_is_complete(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == "mmpretrain"
    assert "mim_plugins" in cfg.custom_imports["imports"]
    assert cfg.resume is False
    init_default_scope(cfg.default_scope)
    assert cfg.model.backbone.init_cfg.checkpoint == cfg.pretrained
    cfg.model.backbone.init_cfg = None
    with laid_out_only():
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = sorted({group["lr"] for group in wrapper.optimizer.param_groups})
    assert rates == pytest.approx([4e-5, 4e-4])
    assert {g["weight_decay"] for g in wrapper.optimizer.param_groups} == {1e-4}
    assert cfg.param_scheduler[0].milestones == [240]
    assert cfg.train_cfg.max_epochs == 300
    head = "".join(x for x in path.read_text().splitlines(True) if x[0] == "#")
    assert f"Global batch size: {cfg.auto_scale_lr.base_batch_size}" in head
    assert path.name in head
    pairs = cfg.train_dataloader.dataset.dataset
    assert pairs.num_pairs == 60000 and pairs.max_gap == 200
    sources = [source.type for source in pairs.sources]
    if "lasot-only" in path.name:
        assert sources == ["LaSOTSequences"] and "val_dataloader" not in cfg
    else:
        assert len(sources) == 4 and cfg.train_cfg.val_interval == 20
    assert re.search(r"Expected: .+", head)


def test_tracking_configs__are_there():
    names = {path.name for path in CONFIGS}
    for stem in ("mae", "mae-lite", "d2-mae"):
        assert f"{stem}_vitt_lasot_300e.py" in names
        assert f"{stem}_vitt_lasot-only_300e.py" in names


def test_parameters__are_the_official_trackers():
    cfg = Config.fromfile(CONFIGS[0])
    cfg.model.backbone.init_cfg = None
    init_default_scope("mmpretrain")
    with laid_out_only():
        model = MODELS.build(cfg.model)
    count = [
        sum(p.numel() for p in x.parameters()) for x in (model.backbone, model.head)
    ]
    assert [round(x / 1e6, 2) for x in count] == [5.59, 2.49]
