"""Tests of accumulating to the recipe's batch: the same as one large batch."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from samples import ROOT
from toy_run import TINY_MODEL, loader, make_runner

from mim_plugins.engine import training_config
from mim_plugins.engine.config.accumulation import accumulate, count_steps
from mim_plugins.engine.config.schedules import check_length, check_schedule
from mim_plugins.engine.config.settings import global_batch


class Steps(Hook):
    """Learning rate and weight decay of every step of the optimiser."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train(self, runner) -> None:
        runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"])
        )


def schedule(by_epoch: bool) -> list[dict[str, Any]]:
    if by_epoch:
        convert = dict(by_epoch=True, convert_to_iter_based=True)
        return [
            dict(type="LinearLR", start_factor=0.1, begin=0, end=1, **convert),
            dict(type="CosineAnnealingLR", begin=1, **convert),
        ]
    return [
        dict(type="LinearLR", start_factor=0.1, begin=0, end=3, by_epoch=False),
        dict(type="CosineAnnealingLR", begin=3, by_epoch=False),
    ]


def settings(batch_size: int, by_epoch: bool = True, drop_last: bool = True) -> dict:
    data = loader(batch_size, count=26)
    data["drop_last"] = drop_last
    train_cfg = dict(by_epoch=True, max_epochs=3)
    if not by_epoch:
        data["sampler"] = dict(type="InfiniteSampler", shuffle=False)
        train_cfg = dict(by_epoch=False, max_iters=7, val_interval=7)
    wrapper = dict(
        type="OptimWrapper",
        optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.05),
        clip_grad=dict(max_norm=0.1),
    )
    ema = dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.1)
    return dict(
        train_dataloader=data,
        train_cfg=train_cfg,
        optim_wrapper=wrapper,
        param_scheduler=schedule(by_epoch),
        auto_scale_lr=dict(base_batch_size=8),
        default_scope="mmpretrain",
        custom_hooks=[ema, dict(type="StopNonFiniteHook")],
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", by_epoch=by_epoch, interval=1)
        ),
    )


def trained(folder: Path, config: dict, keep_batch: bool = True):
    """Train as mim_plugins.engine.train does, and return runner and rates."""
    cfg = Config(dict(model=TINY_MODEL, **config))
    accumulate(cfg, 1, keep_batch)
    torch.manual_seed(0)
    runner = make_runner(folder, **cfg.to_dict())
    steps = Steps()
    runner.register_hook(steps)
    count_steps(runner)
    runner.train()
    return runner, steps.rates


def averages(runner) -> dict[str, torch.Tensor]:
    (hook,) = (hook for hook in runner.hooks if hasattr(hook, "ema_model"))
    return hook.ema_model.state_dict()


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_accumulated__equals_one_large_batch(
    tmp_path: Path, batch_size: int, by_epoch: bool, drop_last: bool
) -> None:
    """26 images make 3 steps of 8 an epoch, and a rest of 2."""
    large, rates = trained(tmp_path / "a", settings(8, by_epoch, drop_last))
    small, same = trained(tmp_path / "b", settings(batch_size, by_epoch, drop_last))
    count = 8 // batch_size
    assert small.optim_wrapper._accumulative_counts == count
    assert len(rates) == (7 if not by_epoch else 9 if drop_last else 12)
    assert same == pytest.approx(rates, rel=1e-6)
    assert max(rates) > 5 * min(rates)
    wanted = large.model.state_dict()
    for key, value in small.model.state_dict().items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-6)
    theirs = averages(large)
    for key, value in averages(small).items():
        if key != "steps":
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-6)
    if not by_epoch:
        assert small.iter == 7 * count
        kept = sorted(int(x.stem[5:]) for x in Path(small.work_dir).glob("iter_*.pth"))
        assert kept == [count * step for step in range(1, 8)]


def test_accumulated__stopped_and_resumed_equals_one_run(tmp_path: Path) -> None:
    """The rest of an epoch, less than a step, is no part of the next one's."""
    whole, _ = trained(tmp_path / "whole", settings(2))
    changes = dict(resume=True, load_from=str(tmp_path / "whole/work/epoch_2.pth"))
    resumed, rates = trained(tmp_path / "part", settings(2) | changes)
    assert len(rates) == 3
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[key]), key


def test_count_that_the_config_sets__counts_steps_too(tmp_path: Path) -> None:
    config = settings(2)
    config["optim_wrapper"]["accumulative_counts"] = 4
    _, rates = trained(tmp_path / "a", config, keep_batch=False)
    _, large = trained(tmp_path / "b", settings(8))
    assert rates == pytest.approx(large, rel=1e-6)


def test_data_of_less_than_a_step__scale_the_rate(tmp_path: Path) -> None:
    config = settings(2)
    config["auto_scale_lr"] = dict(base_batch_size=64)
    runner, rates = trained(tmp_path, config)
    assert runner.optim_wrapper._accumulative_counts == 1
    assert len(rates) == 3 * 13 and max(rates) == pytest.approx(0.1 * 2 / 64)
    explicit = settings(2)
    explicit["optim_wrapper"]["accumulative_counts"] = 32
    with pytest.raises(ValueError, match="13 iterations, too few for a single step"):
        trained(tmp_path / "explicit", explicit)


RECIPE = "deepmim/mae_vitb_300e.py"


def noted(
    path: str, processes: int, monkeypatch: pytest.MonkeyPatch, **arguments: Any
) -> tuple[Config, list[str], list[str]]:
    monkeypatch.setattr("mim_plugins.engine.prepare.world_size", lambda _: processes)
    cfg, notes = training_config(ROOT / "configs" / path, **arguments)
    said = [note.message for note in notes]
    return cfg, said, [x.message for x in notes if x.level == logging.WARNING]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (RECIPE, "128 per GPU × 8 × 4 accumulated = 4096, as the recipe"),
        (
            "localmim/vitl_hog_800e.py",
            "128 per GPU × 8 × 4 accumulated = 4096, as the recipe",
        ),
    ],
)
def test_recipe__keeps_its_batch(
    path: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Config.fromfile(ROOT / "configs" / path).optim_wrapper.optimizer.lr
    cfg, said, warned = noted(path, 8, monkeypatch)
    assert line in said and not warned
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert cfg.optim_wrapper.optimizer.lr == before


def test_every_command__gives_the_batch_of_its_head() -> None:
    """What follows "Command:" trains with what follows "Global batch size:"."""
    found = 0
    for path in sorted((ROOT / "configs").rglob("*.py")):
        head = re.match(r"(#.*\n)+", path.read_text())
        command = head and re.search(r"# Command: ((?:.*\\\n)*.*)", head[0])
        wanted = head and re.search(r"# Global batch size: (\d+)", head[0])
        if not command or not wanted or "_test" in command[1]:
            continue
        gpus = re.search(r"GPUS=(\d+)|dist_train.sh[\s\\#]+\S+\.py (\d+)", command[1])
        cfg = Config.fromfile(path)
        if given := re.search(r"train_dataloader.batch_size=(\d+)", command[1]):
            cfg.train_dataloader.batch_size = int(given[1])
        processes = int(gpus[1] or gpus[2]) if gpus else 1
        accumulate(cfg, processes)
        batch = global_batch(cfg, processes)
        assert batch is not None and batch.size == int(wanted[1]), path
        assert cfg.auto_scale_lr.base_batch_size == batch.size, path
        found += 1
    assert found > 120


def test_recipe__scales_where_it_cannot_accumulate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lr = 1.5e-4 * 4096 / 256
    whole = dict(cfg_options={"train_dataloader.batch_size": 100})
    for processes, arguments, factor in [
        (8, whole, 800 / 4096),
        (8, dict(accumulate_batch=False), 1024 / 4096),
        (8, dict(auto_scale_lr=False), 1),
        (64, {}, 8192 / 4096),
        (32, {}, 1),
    ]:
        cfg, said, _ = noted(RECIPE, processes, monkeypatch, **arguments)
        assert "accumulative_counts" not in cfg.optim_wrapper
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr * factor)
        assert not any("as the recipe" in line for line in said)


def test_recipe_by_iterations__sees_as_many_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "deepmim/detection/mae_vitb_mask-rcnn_coco.py"
    plain = Config.fromfile(ROOT / "configs" / path)
    batch = plain.train_dataloader.batch_size
    cfg, said, warned = noted(path, 8, monkeypatch)
    count = 64 // (8 * batch)
    assert count > 1 and not warned
    line = f"{batch} per GPU × 8 × {count} accumulated = 64, as the recipe"
    assert any(x.startswith(line) and f"{184375 * count} iter" in x for x in said)
    assert cfg.train_cfg.max_iters == 184375 * count
    assert cfg.train_cfg.val_interval == 20000 * count
    assert cfg.default_hooks.checkpoint.interval == 5000 * count
    # Schedulers count steps.
    assert cfg.param_scheduler[0].end == 250
    assert cfg.param_scheduler[1].end == 184375
    assert cfg.param_scheduler[1].milestones == [163889, 177546]
    # The config stored with the run says the same when it is run again.
    again = Config(cfg.to_dict())
    assert accumulate(again, 8) is None and again.to_dict() == cfg.to_dict()
    assert check_length(again) is None and check_schedule(again, 8) is None


@pytest.mark.parametrize(
    "path",
    [
        "deepmim/segmentation/mae_vitb_upernet_ade20k.py",
        "deepmim/benchmarks/mae_vitb_linear-90e_in1k.py",
        "localmim/segmentation/swinb_hog_400e_upernet_ade20k.py",
        "distilled/segmentation/mae_vitt_semantic-fpn_ade20k.py",
    ],
)
def test_batch_norm__keeps_scaling(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, said, warned = noted(path, 2, monkeypatch)
    assert "accumulative_counts" not in cfg.optim_wrapper
    assert any("takes its statistics from single iterations" in line for line in said)
    assert any("x factor 0.25" in line for line in said)
    if "segmentation" in path:
        assert any("sees 4 times fewer images" in line for line in warned)


def test_batch_norm__of_a_default_is_found() -> None:
    resnet = dict(type="mmpretrain.ResNet", depth=18)
    cfg = Config(
        dict(
            model=dict(type="ImageClassifier", backbone=resnet),
            train_dataloader=dict(batch_size=4),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
            auto_scale_lr=dict(base_batch_size=8),
            default_scope="mmpretrain",
            train_cfg=dict(max_epochs=2),
        )
    )
    note = accumulate(cfg, 1)
    assert note is not None and "BN of mmpretrain.ResNet" in note.message
    resnet["norm_cfg"] = dict(type="GN", num_groups=4)
    cfg.model.backbone = resnet
    assert "2 accumulated = 8" in accumulate(cfg, 1).message
