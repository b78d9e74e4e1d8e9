"""Tests of what a resumed run goes on with."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler
from toy_run import TINY_MODEL, loader, make_runner

from mim_plugins.engine.config.accumulation import accumulate, count_steps
from mim_plugins.engine.resuming.same_run import SameRunHook

LR, DECAY = 1e-2, 0.05


@DATA_SAMPLERS.register_module(force=True)
class UnknownBatches(BatchSampler):
    """Batches in an order of its own."""

    def __init__(self, sampler: Any, batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)


class Rates(Hook):
    """Learning rate and weight decay of every step of the optimiser."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.decays: list[float] = []

    def before_train(self, runner) -> None:
        def note(optimizer, *_: Any) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])
            self.decays.append(optimizer.param_groups[0]["weight_decay"])

        runner.optim_wrapper.optimizer.register_step_pre_hook(note)


def cosine(**changes: Any) -> list[dict]:
    steps = dict(by_epoch=True, convert_to_iter_based=True)
    return [
        dict(type="LinearLR", start_factor=0.1, begin=0, end=1, **steps),
        dict(type="CosineAnnealingLR", begin=1, **steps) | changes,
    ]


def config(epochs: int, images: int = 12, **changes: Any) -> dict[str, Any]:
    optimizer = dict(type="AdamW", lr=LR, weight_decay=DECAY)
    return dict(
        train_dataloader=loader(4, count=images),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        param_scheduler=cosine(),
        optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer),
    ) | dict(changes)


def run(folder: Path, resume: str | None = None, **changes: Any):
    """Train, from ``resume`` if given; return runner, rates and log."""
    if resume:
        changes |= dict(resume=True, load_from=str(folder / "work" / resume))
    runner = make_runner(folder, **changes)
    rates = Rates()
    runner.register_hook(rates)
    runner.register_hook(SameRunHook(resuming=bool(resume)))
    count_steps(runner)
    try:
        runner.train()
    finally:
        for handler in runner.logger.handlers:
            handler.flush()
    log = (Path(runner.log_dir) / f"{Path(runner.log_dir).name}.log").read_text()
    return runner, rates, log


def test_longer_cosine__is_evaluated_at_the_step_reached(tmp_path: Path) -> None:
    _, longer, _ = run(tmp_path / "longer", **config(8))
    run(tmp_path, **config(4))
    runner, resumed, log = run(tmp_path, "epoch_4.pth", **config(8))
    assert runner.iter == 24
    assert resumed.rates == pytest.approx(longer.rates[12:], rel=1e-9)
    # The rate at the start of epoch 5 of 8, one of warm-up.
    expected = LR * 0.5 * (1 + math.cos(math.pi * 3 / 7))
    assert resumed.rates[0] == pytest.approx(expected)
    assert "train_cfg.max_epochs 4 → 8" in log
    assert "resume: epoch 4 of 8 is done; AdamW, learning rate 0.006" in log


def test_nothing_changed__restores_exactly(tmp_path: Path) -> None:
    whole, rates, _ = run(tmp_path, **config(4))
    resumed, rest, log = run(tmp_path, "epoch_2.pth", **config(4))
    assert rest.rates == rates.rates[6:]
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[key]), key
    assert "other settings" not in log
    assert "resume: epoch 2 of 4 is done" in log and "seed 0" in log


@pytest.mark.parametrize("by_iteration", [False, True])
def test_rate_and_decay__are_those_of_the_config(
    tmp_path: Path, by_iteration: bool
) -> None:
    changes: dict[str, Any] = {}
    last = "epoch_2.pth"
    if by_iteration:
        last = "iter_6.pth"
        data = loader(4)
        data["sampler"] = dict(type="InfiniteSampler", shuffle=False)
        changes = dict(
            train_dataloader=data,
            train_cfg=dict(by_epoch=False, max_iters=12, val_interval=100),
            param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False)],
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=6)
            ),
        )
    _, before, _ = run(tmp_path, **config(4, **changes))
    optimizer = dict(type="AdamW", lr=LR / 4, weight_decay=DECAY / 2, betas=(0.9, 0.95))
    changes["optim_wrapper"] = dict(type="OptimWrapper", optimizer=optimizer)
    runner, rates, log = run(tmp_path, last, **config(4, **changes))
    assert rates.rates == pytest.approx([x / 4 for x in before.rates[6:]])
    assert set(rates.decays) == {DECAY / 2}
    assert runner.optim_wrapper.optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert f"optim_wrapper.optimizer.lr {LR} → {LR / 4}" in log
    assert f"weight_decay {DECAY} → {DECAY / 2}" in log
    # The state of the optimiser is the checkpoint's.
    state = next(iter(runner.optim_wrapper.optimizer.state.values()))
    assert int(state["step"]) == 12


def test_other_schedule__is_evaluated_at_the_step_reached(tmp_path: Path) -> None:
    run(tmp_path, **config(4))
    stones = [dict(type="MultiStepLR", milestones=[1, 3], by_epoch=True)]
    _, rates, _ = run(tmp_path, "epoch_2.pth", **config(4, param_scheduler=stones))
    assert rates.rates == pytest.approx([LR * 0.1] * 3 + [LR * 0.01] * 3)


@pytest.mark.parametrize("images", [24, 8])
def test_data_that_grew_or_shrank__keep_the_schedule_in_epochs(
    tmp_path: Path, images: int
) -> None:
    _, wanted, _ = run(tmp_path / "other", **config(4, images))
    run(tmp_path, **config(4))
    runner, rates, log = run(tmp_path, "epoch_2.pth", **config(4, images))
    assert runner.iter == images
    assert rates.rates == pytest.approx(wanted.rates[images // 2 :])
    assert f"training images 12 → {images}" in log


def test_data_that_shrank_in_a_longer_run__keep_the_schedule_in_epochs(
    tmp_path: Path,
) -> None:
    # 4 epochs of 3 iterations become 6 of 2: a schedule of as many iterations.
    _, wanted, _ = run(tmp_path / "other", **config(6, 8))
    run(tmp_path, **config(4))
    _, rates, _ = run(tmp_path, "epoch_4.pth", **config(6, 8))
    assert rates.rates == pytest.approx(wanted.rates[8:])


def test_accumulation__counts_the_steps_reached(tmp_path: Path) -> None:
    def accumulated(epochs: int) -> dict[str, Any]:
        changes = config(epochs, 26, auto_scale_lr=dict(base_batch_size=8))
        cfg = Config(dict(model=dict(type="X"), default_scope="mmpretrain", **changes))
        accumulate(cfg, 1)
        return {key: value for key, value in cfg.to_dict().items() if key != "model"}

    _, longer, _ = run(tmp_path / "longer", **accumulated(6))
    run(tmp_path, **accumulated(3))
    _, rates, _ = run(tmp_path, "epoch_3.pth", **accumulated(6))
    assert len(longer.rates) == 24
    assert rates.rates == pytest.approx(longer.rates[12:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(optim_wrapper=dict(optimizer=dict(type="Adam", lr=LR))),
            "trained with AdamW, and the config says Adam",
        ),
        (dict(randomness=dict(seed=3)), "with seed 0, and the config says 3"),
        (
            dict(train_cfg=dict(by_epoch=True, max_epochs=1), param_scheduler=None),
            "of epoch 2, and the run now ends at 1: nothing is left",
        ),
        (
            dict(train_cfg=dict(by_epoch=True, max_epochs=2)),
            "now ends at 2: nothing is left to train. Set train_cfg.max_epochs to",
        ),
        (
            dict(
                train_cfg=dict(by_epoch=False, max_iters=9, val_interval=99),
                param_scheduler=None,
            ),
            "a run by epochs, and the config counts iterations",
        ),
        (
            dict(
                optim_wrapper=dict(
                    optimizer=dict(type="AdamW", lr=LR, weight_decay=DECAY),
                    paramwise_cfg=dict(norm_decay_mult=0.0),
                )
            ),
            "other groups of parameters",
        ),
    ],
)
def test_what_has_no_clear_meaning__is_refused(
    tmp_path: Path, changes: dict, message: str
) -> None:
    run(tmp_path, **config(4))
    with pytest.raises(ValueError, match=message):
        run(tmp_path, "epoch_2.pth", **config(4, **changes))


def test_finished_run__says_so(tmp_path: Path) -> None:
    run(tmp_path, **config(2))
    runner, rates, log = run(tmp_path, "epoch_2.pth", **config(2))
    assert not rates.rates and "this run is finished, nothing is left" in log


@pytest.mark.parametrize("images", [12, 16])
def test_checkpoint_within_an_epoch__goes_on_there(tmp_path: Path, images: int) -> None:
    loop = dict(type="ResumableEpochLoop", max_epochs=2)
    hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1))
    settings = dict(train_cfg=loop, default_hooks=hooks)
    whole, rates, _ = run(tmp_path, **config(2, **settings))
    changed = config(2, images, **settings)
    resumed, rest, log = run(tmp_path, "iter_5.pth", **changed)
    if images == 12:
        assert rest.rates == rates.rates[5:]
        for key, value in resumed.model.state_dict().items():
            assert torch.equal(value, whole.model.state_dict()[key]), key
    else:
        assert len(rest.rates) == 4
        assert "images 12 → 16; epoch 2 is trained from its start" in log


def test_checkpoint_within_an_epoch__without_an_order_is_refused(
    tmp_path: Path,
) -> None:
    hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2))
    data = loader(4)
    data["batch_sampler"] = dict(type="UnknownBatches")
    changes = dict(default_hooks=hooks, train_dataloader=data)
    run(tmp_path, **config(2, **changes))
    with pytest.raises(ValueError, match="of iteration 2, within an epoch, and "):
        run(tmp_path, "iter_2.pth", **config(2, **changes))


def test_seed__of_the_checkpoint_reaches_the_sampler(tmp_path: Path) -> None:
    data = loader(4)
    data["sampler"] = dict(type="DefaultSampler", shuffle=True)
    changes = dict(train_dataloader=data, randomness=dict(seed=None))
    first, _, _ = run(tmp_path, **config(2, **changes))
    resumed, _, _ = run(tmp_path, "epoch_1.pth", **config(2, **changes))
    assert resumed.train_dataloader.sampler.seed == first.seed == resumed.seed
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[key]), key


def test_checkpoint_without_the_record__goes_on_as_before(tmp_path: Path) -> None:
    run(tmp_path, **config(4))
    path = tmp_path / "work" / "epoch_2.pth"
    saved = torch.load(path, weights_only=False)
    del saved["meta"]["run"]
    torch.save(saved, path)
    _, wanted, _ = run(tmp_path / "b", **config(8))
    _, rates, log = run(tmp_path, "epoch_2.pth", **config(8))
    assert rates.rates == pytest.approx(wanted.rates[6:])
    assert "the schedule" in log


def test_model_of_another_size__is_refused(tmp_path):
    """Its optimiser's state would be of another size than its weights."""
    run(tmp_path, **config(2))
    arch = dict(TINY_MODEL["backbone"]["arch"], feedforward_channels=48)
    model = TINY_MODEL | dict(backbone=TINY_MODEL["backbone"] | dict(arch=arch))
    with pytest.raises(ValueError, match="layers.0.ffn.* 32x16 values .* 48x16 in the"):
        run(tmp_path, "epoch_1.pth", **config(2, model=model))
