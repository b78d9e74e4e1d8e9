"""Tests of schedules that follow the length of the run."""

import logging

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from samples import ROOT
from toy_run import loader, make_runner

from mim_plugins.engine import load_config, training_config
from mim_plugins.engine.config.schedules import (
    check_length,
    check_schedule,
    describe_schedule,
)


def config(**changes) -> Config:
    cfg = dict(
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=2.4e-3)),
        train_dataloader=dict(batch_size=32),
    )
    return Config({**cfg, **changes})


def iterations(batch_size: int) -> Config:
    once = dict(end=900, by_epoch=False)
    return config(
        train_dataloader=dict(batch_size=batch_size),
        auto_scale_lr=dict(base_batch_size=64),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=900),
        param_scheduler=[
            dict(type="LinearLR", begin=0, end=50, by_epoch=False),
            dict(type="MultiStepLR", milestones=[800, 867], **once),
            dict(type="CosineAnnealingLR", begin=50, T_max=850, **once),
            dict(type="PolyLR", begin=0, end=900, by_epoch=True),
        ],
    )


def test_check_schedule__tells_of_images_that_are_not_seen() -> None:
    """8 GPUs of 2 images would train 25 epochs where 100 are meant."""
    cfg = iterations(2)
    cfg.optim_wrapper.accumulative_counts = 4
    caution = check_schedule(cfg, world_size=8)
    assert caution is not None
    assert "900 iterations are meant for a global batch of 64" in caution
    assert "has 16 images in an iteration and sees 4 times fewer images" in caution
    options = caution.split("--cfg-options ")[1]
    assert options == (
        "train_cfg.max_iters=3600 param_scheduler.1.end=3600 "
        "param_scheduler.1.milestones=[3200,3468] param_scheduler.2.end=3600 "
        "param_scheduler.2.T_max=3550"
    )
    caution = check_schedule(iterations(32), world_size=4)
    assert caution is not None and "sees 2 times more images" in caution


def test_check_schedule__is_silent_where_nothing_changes() -> None:
    assert check_schedule(iterations(8), world_size=8) is None
    epochs = config(train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=3))
    assert check_schedule(epochs, world_size=8) is None


RECIPE = "deepmim/mae_vitb_300e.py"


def noted(path: str, **options) -> tuple[Config, list[str]]:
    options = {key.replace("__", "."): value for key, value in options.items()}
    return training_config(ROOT / "configs" / path, cfg_options=options)


def test_schedule__lasts_as_long_as_the_run_and_is_said_in_a_line() -> None:
    cfg, notes = noted(RECIPE, train_cfg__max_epochs=50)
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == 40
    assert (
        "schedule: 50 epochs; LinearLR from epoch 0 to 40; "
        "CosineAnnealingLR from epoch 40 to 50"
    ) in [note.message for note in notes]
    assert {note.level for note in notes} == {logging.INFO}


def test_schedule__of_a_run_within_the_warm_up_says_so() -> None:
    """mmengine refuses a scheduler that begins after the end of the run."""
    cfg, notes = noted(RECIPE, train_cfg__max_epochs=1)
    assert [s.type for s in cfg.param_scheduler] == ["LinearLR"]
    (caution,) = (n.message for n in notes if n.level == logging.WARNING)
    assert "the run ends at epoch 1, within the warm-up of 40 epochs" in caution


def test_milestones__keep_their_shares() -> None:
    cfg, notes = noted(
        "localmim/detection/swinb_hog_400e_mask-rcnn_coco.py", train_cfg__max_epochs=12
    )
    assert cfg.param_scheduler[1].milestones == [9, 11]
    assert any(
        "MultiStepLR from epoch 0 to 12, at 9, 11" in note.message for note in notes
    )
    cfg = load_config(
        ROOT / "configs/deepmim/detection/mae_vitb_mask-rcnn_coco.py",
        {"train_cfg.max_iters": 184375 * 2},
    )
    assert cfg.param_scheduler[1].milestones == [163889 * 2, 177546 * 2]


def test_milestones__that_are_given_are_kept() -> None:
    cfg, _ = noted(
        "localmim/detection/swinb_hog_400e_mask-rcnn_coco.py",
        train_cfg__max_epochs=12,
        param_scheduler__1__milestones=[6, 8],
    )
    assert cfg.param_scheduler[1].milestones == [6, 8]


def cosine(**changes) -> Config:
    warm_up = dict(type="LinearLR", start_factor=1e-3, begin=0, end=5, by_epoch=True)
    then = dict(type="CosineAnnealingLR", begin=5, by_epoch=True)
    return config(
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=50),
        param_scheduler=[warm_up, {**then, **changes}],
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(end=300, T_max=295), "ends at epoch 300, but the run at epoch 50"),
        (dict(end=20), "ends at epoch 20, but the run at epoch 50"),
        (dict(T_max=295), "T_max=295 of CosineAnnealingLR is not the 45 epochs"),
    ],
)
def test_check_length__warns_of_a_schedule_that_ends_elsewhere(
    changes: dict, message: str
) -> None:
    caution = check_length(cosine(**changes))
    assert caution is not None and message in caution
    assert check_length(cosine()) is None
    assert check_length(cosine(end=50, T_max=45)) is None


def test_check_length__counts_iterations_likewise() -> None:
    cfg = iterations(8)
    cfg.train_cfg.max_iters = 450
    caution = check_length(cfg)
    assert (
        caution is not None and "iteration 900, but the run at iteration 450" in caution
    )


def test_describe_schedule__has_words_for_none() -> None:
    cfg = config(train_cfg=dict(by_epoch=True, max_epochs=3))
    assert describe_schedule(cfg) == "schedule: 3 epochs; a constant learning rate"


SHORT = dict(param_scheduler__0__end=4)  # a warm-up of as many iterations


class Rates(Hook):
    """The learning rate of every iteration."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self.seen.append(runner.optim_wrapper.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("recipe", "option", "length", "changes"),
    [
        ("deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py", "max_epochs", 4, {}),
        ("deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py", "max_epochs", 12, {}),
        ("deepmim/segmentation/mae_vitb_upernet_ade20k.py", "max_iters", 40, {}),
        ("deepmim/segmentation/mae_vitb_upernet_ade20k.py", "max_iters", 40, SHORT),
    ],
)
def test_run_cut_short__ends_at_a_low_rate_or_says_that_it_does_not(
    recipe, option, length, changes, tmp_path
):
    """Of the length alone; the schedule is a copy of the recipe's otherwise."""
    cfg, notes = noted(recipe, **{f"train_cfg__{option}": length}, **changes)
    by_epoch = option == "max_epochs"
    rates = Rates()
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": by_epoch, option: length},
        train_dataloader=loader(6),
        param_scheduler=cfg.param_scheduler,
        default_hooks=dict(checkpoint=None, logger=None),
    )
    runner.register_hook(rates)
    runner.train()
    warnings = [n.message for n in notes if n.level == logging.WARNING]
    if not any("but the run at" in x or "within the warm-up" in x for x in warnings):
        assert max(rates.seen) > 0.8e-3
        assert rates.seen[-1] < 0.1 * max(rates.seen)
