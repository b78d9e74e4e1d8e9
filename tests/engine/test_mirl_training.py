"""MIRL's parameter groups, schedules and average of weights, against official ones."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from samples import ROOT, golden_folder
from toy_run import TINY_MODEL, loader, make_runner

from dev.parity.mirl import build_pretraining
from mim_plugins.checkpoints.layouts.mirl import rules_for
from mim_plugins.engine import WarmupEMA

CONFIGS = ROOT / "configs" / "mirl"
FINETUNE = CONFIGS / "benchmarks"


def official():
    return json.loads((golden_folder("mirl/optim") / "optim.json").read_text())


def settings(model, optim_wrapper):
    """lr scale and weight decay of every trainable parameter."""
    wrapper = build_optim_wrapper(model, optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["lr"] / wrapper.optimizer.defaults["lr"],)
        + (group["weight_decay"],)
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }


def test_groups__pretraining():
    groups = official()["pretrain_groups"]
    model = build_pretraining({"model": {"in_chans": 3, **groups["model"]}})
    cfg = Config.fromfile(CONFIGS / "vitb48_800e.py")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    rules = rules_for(groups["decay"] + groups["no_decay"] + groups["frozen"])
    assert {rules.to_ours(key) for key in groups["frozen"]} == frozen
    wanted = {rules.to_ours(key): (1.0, 0.05) for key in groups["decay"]}
    wanted |= {rules.to_ours(key): (1.0, 0.0) for key in groups["no_decay"]}
    assert settings(model, cfg.optim_wrapper) == wanted
    assert cfg.optim_wrapper.optimizer.betas == (0.9, 0.95)


def test_groups__finetuning():
    groups = official()["finetune_groups"]
    args = groups["model"]
    cfg = Config.fromfile(FINETUNE / "vits54_finetune-100e_in1k.py")
    cfg.model.backbone.update(
        init_cfg=None,
        img_size=args["img_size"],
        patch_size=args["patch_size"],
        arch=dict(
            embed_dims=args["embed_dim"],
            num_layers=args["depth"],
            num_heads=args["num_heads"],
            feedforward_channels=args["embed_dim"] * args["mlp_ratio"],
        ),
    )
    cfg.model.head.update(num_classes=args["class_num"], in_channels=args["embed_dim"])
    model = MODELS.build(cfg.model)
    rules = rules_for(groups["params"])
    wanted = {rules.to_ours(k): tuple(v) for k, v in groups["params"].items()}
    ours = settings(model, cfg.optim_wrapper)
    assert set(ours) == set(wanted)
    for name, value in wanted.items():
        assert ours[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(
    ("path", "index", "epochs"),
    [
        ("vitb48_800e.py", 0, 800),
        ("benchmarks/vits54_finetune-100e_in1k.py", 1, 100),
        ("benchmarks/vitb48_finetune-60e_in1k.py", 2, 60),
    ],
)
def test_schedule__goes_through_the_official_points(path, index, epochs):
    golden = official()["schedules"][index]
    cfg = Config.fromfile(CONFIGS / path)
    peak = cfg.optim_wrapper.optimizer.lr
    warm_up, cosine = (dict(options) for options in cfg.param_scheduler)
    assert peak == pytest.approx(golden["lr"])
    # Without an end it is that of the run.
    assert "end" not in cosine and cfg.train_cfg.max_epochs == epochs
    assert warm_up["end"] == golden["warmup_epochs"]
    # The official pre-training of 800 epochs is called with 801.
    cosine["end"] = golden["epochs"]
    cosine["T_max"] = golden["epochs"] - golden["warmup_epochs"]
    length = 8
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedulers = []
    for options in (warm_up, cosine):
        options.pop("convert_to_iter_based")
        kind = PARAM_SCHEDULERS.get(options.pop("type"))
        schedulers.append(
            kind.build_iter_from_epoch(optimizer, epoch_length=length, **options)
        )
    rates = []
    for _ in range(length * golden["epochs"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    for epoch, lr in golden["points"]:
        step = epoch * length
        lower, upper = int(step), min(int(step) + 1, len(rates) - 1)
        ours = np.interp(step, [lower, lower + 1], [rates[lower], rates[upper]])
        # mmengine's warm-up ends one iteration early.
        assert ours == pytest.approx(lr, abs=peak / (warm_up["end"] * length - 1))


def test_warmup_ema__equals_the_official_average():
    with np.load(golden_folder("mirl/optim") / "ema.npz") as archive:
        values = torch.from_numpy(archive["values"])
        wanted = torch.from_numpy(archive["ema_after_each_update"])
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.zeros_like(values[0]))
    average = WarmupEMA(model)
    for value, result in zip(values, wanted, strict=True):
        model.w.data.copy_(value)
        average.update_parameters(model)
        torch.testing.assert_close(average.module.w.data, result, rtol=0, atol=1e-6)


def test_warmup_ema__decay_stops_growing():
    average = WarmupEMA(torch.nn.Linear(1, 1), momentum=2e-4)
    assert average.decay(0) == 0.1 and average.decay(10**6) == 0.9998
    assert isinstance(average, ExponentialMovingAverage)
    keep, add = average.factors(10**6)
    assert keep == pytest.approx(0.9998) and add == pytest.approx(2e-4)


def test_step_ema_hook__updates_once_per_optimiser_step_and_is_stored(tmp_path):
    """Twelve images of batch 2, so six iterations and three steps in each epoch."""
    runner = make_runner(
        tmp_path,
        train_dataloader=loader(batch_size=2),
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=1e-3),
            accumulative_counts=2,
        ),
        custom_hooks=[
            dict(type="StepEMAHook", ema_type="WarmupEMA", update_buffers=True)
        ],
    )
    runner.train()
    hook = next(h for h in runner.hooks if type(h).__name__ == "StepEMAHook")
    assert int(hook.ema_model.steps) == 6
    checkpoint = torch.load(
        tmp_path / "work" / "epoch_2.pth", map_location="cpu", weights_only=False
    )
    key = "backbone.layers.0.attn.qkv.weight"
    stored, last = checkpoint["state_dict"][key], runner.model.state_dict()[key]
    assert torch.equal(stored, hook.ema_model.module.state_dict()[key])
    assert not torch.equal(stored, last)
    assert torch.equal(checkpoint["ema_state_dict"][f"module.{key}"], last)


def test_reconstructions__three_columns_for_every_pair(tmp_path):
    model = TINY_MODEL | dict(
        type="MIRL",
        backbone=TINY_MODEL["backbone"] | dict(tap_embedding=True),
        neck=dict(type="MIRLDecoder", embed_dims=16, depth=1, num_heads=2),
        head=dict(type="ResidualPairHead"),
    )
    hook = dict(type="ReconstructionHook", interval=2, num_images=2)
    make_runner(tmp_path, model=model, custom_hooks=[hook]).train()
    picture = cv2.imread(str(tmp_path / "work" / "reconstructions" / "epoch_002.png"))
    # Original, masked, main part, residual, sum, pasted: 112 pixels each, 4 apart.
    cells = picture[-2 * 116 : -2 * 116 + 112, 4:].reshape(112, 6, 116, 3)[:, :, :112]
    main, residual, total = cells[7::14, 2:5, 7::14].swapaxes(0, 1).astype(int)
    inside = ((0 < main) & (main < 255)) & ((0 < total) & (total < 255))
    assert inside.any()
    # The residual is drawn around the mean colour, 128 in the toy run.
    assert np.abs((main + residual - 128 - total)[inside]).max() <= 2
