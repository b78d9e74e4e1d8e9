"""MAE-Lite's optimiser groups and schedules against the official ones."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from samples import ROOT, golden_folder, laid_out_only

from mim_plugins.checkpoints.mae_lite import rules_for

CONFIGS = ROOT / "configs" / "distilled"
RECIPES = {
    "vit_tiny_finetune": "mae_vitt_finetune-300e_in1k",
    "vit_small_finetune": "mae_vits_finetune-300e_in1k",
    "vit_tiny_rpe_finetune": "mae_vitt_finetune-rpe-1000e_in1k",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_groups__equal_the_official_ones(recipe):
    file = golden_folder(f"maelite/lr_groups/{recipe}.json")
    official = json.loads(file.read_text())
    cfg = Config.fromfile(CONFIGS / "benchmarks" / f"{RECIPES[recipe]}.py")
    cfg.model.backbone.init_cfg = None
    with laid_out_only():
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    base_lr = cfg.optim_wrapper.optimizer.lr
    assert base_lr == official["base_lr"]
    assert cfg.auto_scale_lr.base_batch_size == official["batch_size"]
    assert list(cfg.optim_wrapper.optimizer.betas) == official["betas"]
    ours = {
        id(p): (group["lr"] / base_lr, group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }
    to_ours = rules_for(official["params"]).to_ours
    wanted = {
        to_ours(key): (value["lr_scale"], value["weight_decay"])
        for key, value in official["params"].items()
    }
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(wanted) == set(trainable)
    for name, parameter in trainable.items():
        assert ours[id(parameter)] == pytest.approx(wanted[name], rel=1e-9), name


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("pretrain_mae", "d2-mae_vitt_400e.py"),
        ("finetune", "benchmarks/mae_vitt_finetune-300e_in1k.py"),
    ],
)
def test_schedule__equals_the_official_one(kind, path):
    file = golden_folder("maelite/lr_groups/schedules.json")
    official = json.loads(file.read_text())[kind]
    cfg = Config.fromfile(CONFIGS / path)
    peak, warm = cfg.optim_wrapper.optimizer.lr, official["warmup_epochs"]
    assert peak == pytest.approx(official["base_lr"])
    assert cfg.train_cfg.max_epochs == official["epochs"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedulers = []
    for options in map(dict, cfg.param_scheduler):
        assert options.pop("convert_to_iter_based")
        scheduler = PARAM_SCHEDULERS.get(options.pop("type"))
        schedulers.append(
            scheduler.build_iter_from_epoch(optimizer, epoch_length=100, **options)
        )
    # mmengine's warm-up ends one iteration early.
    bound = peak / (warm * 100 - 1)
    optimizer.step()
    for step in range(official["epochs"] * 100):
        if (wanted := official["lr"].get(str(step))) is not None:
            assert abs(optimizer.param_groups[0]["lr"] - wanted) <= bound, step
        for scheduler in schedulers:
            scheduler.step()
