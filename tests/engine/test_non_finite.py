"""Tests of skipping steps that are not finite, and of stopping after a few."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from toy_run import ToyImages, loader, make_runner

from mim_plugins.checkpoints.files import read_content
from mim_plugins.compat import supports_fused_optimizer
from mim_plugins.engine.hooks.non_finite import NonFiniteError, StopNonFiniteHook
from mim_plugins.engine.prepare import add_hook


@DATASETS.register_module(force=True)
class FloatImages(ToyImages):
    """Float images with paths, of which one has a NaN."""

    def __init__(self, bad: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bad = bad

    def get_data_info(self, index: int) -> dict[str, Any]:
        return dict(img_path=f"images/{index}.tif")

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        item["inputs"] = item["inputs"].float()
        if index == self.bad:
            item["inputs"][0, 0, 0] = torch.nan
        return item


def runner_of(folder: Path, bad: int | None = None, limit: int = 3, **changes: Any):
    data = loader()
    data["dataset"] = dict(type="FloatImages", bad=bad)
    changes = dict(
        dict(
            train_dataloader=data,
            custom_hooks=[dict(type="StopNonFiniteHook", max_in_a_row=limit)],
            default_hooks=dict(
                runtime_info=dict(type="DeferredRuntimeInfoHook"),
                logger=dict(type="LoggerHook", interval=2),
                checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=1),
            ),
        ),
        **changes,
    )
    return make_runner(folder, **changes)


@pytest.fixture(params=["immediate", "deferred"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Looks in every step as on a CPU, or at the log line as on a GPU."""
    if request.param == "deferred":
        before = StopNonFiniteHook.before_train

        def deferred(self, runner) -> None:
            before(self, runner)
            self._deferred = True

        monkeypatch.setattr(StopNonFiniteHook, "before_train", deferred)
    return request.param


def adamw(mode: str, fused: bool = True, **changes: Any) -> dict[str, Any]:
    """An optimiser's config; where nobody waits for it, its fused step skips itself."""
    fused = fused and mode == "deferred" and supports_fused_optimizer("cpu")
    optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.1, fused=fused)
    return {**dict(type="OptimWrapper", optimizer=optimizer), **changes}


def logged(folder: Path) -> str:
    (file,) = (folder / "work").glob("*/*.log")
    return file.read_text()


def state_of(runner) -> dict[str, torch.Tensor]:
    """Weights and state of the optimiser, by name."""
    state = {key: value.clone() for key, value in runner.model.state_dict().items()}
    for index, entry in runner.optim_wrapper.state_dict()["state"].items():
        state.update({f"{index}.{key}": value.clone() for key, value in entry.items()})
    return state


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


@pytest.mark.parametrize(
    ("kind", "fused"),
    [("OptimWrapper", True), ("OptimWrapper", False), ("AutocastOptimWrapper", True)],
)
def test_nan_in_one_image__skips_the_step_and_names_levels_and_images(
    tmp_path: Path, mode: str, kind: str, fused: bool
) -> None:
    runner = runner_of(tmp_path, bad=6, optim_wrapper=adamw(mode, fused, type=kind))
    states = []
    runner.model.register_forward_pre_hook(lambda *_: states.append(state_of(runner)))
    runner.train()
    # Of six steps the second of each epoch was not taken: nothing has changed.
    assert_equal(states[1], states[2])
    assert_equal(states[4], states[5])
    assert all(value.isfinite().all() for value in state_of(runner).values())
    assert not torch.equal(states[2]["0.exp_avg"], states[3]["0.exp_avg"])
    assert float(states[5]["0.step"]) == 3
    for number, epoch in ((2, 1), (5, 2)):
        file = tmp_path / "work" / "non_finite" / f"iter_{number}_rank0.pth"
        assert (
            "step skipped (1 in a row, 3 end the training): iteration "
            f"{number} (epoch {epoch}): loss_0 is nan, loss_1 is nan. Not all values "
            "of images/6.tif are finite: repair or remove. To run the batch again: "
            f"python tools/replay.py {file}. The images of the batch: images/4.tif, "
            "images/5.tif, images/6.tif, images/7.tif"
        ) in logged(tmp_path)


def test_skipped_step__is_the_run_without_it(tmp_path: Path, mode: str) -> None:
    """Schedules count the iteration; weights and momenta are as if it was not there."""
    schedule = dict(type="CosineAnnealingLR", T_max=6, by_epoch=False)
    runner = runner_of(
        tmp_path / "skips",
        bad=6,
        optim_wrapper=adamw(mode),
        param_scheduler=schedule,
    )
    runner.train()
    plain = runner_of(
        tmp_path / "plain",
        optim_wrapper=adamw(mode),
        param_scheduler=schedule,
        custom_hooks=[],
    )
    # The same, by hand.
    iteration = iter(range(6))
    update = plain.model.train_step

    def train_step(data, optim_wrapper):
        if next(iteration) in (1, 4):
            optim_wrapper._inner_count += 1
            return {}
        return update(data, optim_wrapper)

    plain.model.train_step = train_step
    plain.train()
    assert_equal(state_of(runner), state_of(plain))
    assert runner.optim_wrapper.get_lr() == plain.optim_wrapper.get_lr()


def test_steps_in_a_row__stop_and_leave_the_last_checkpoint(
    tmp_path: Path, mode: str
) -> None:
    runner_of(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1)).train()
    good = (tmp_path / "work" / "epoch_1.pth").read_bytes()
    runner = runner_of(
        tmp_path,
        resume=True,
        load_from=str(tmp_path / "work" / "epoch_1.pth"),
        train_cfg=dict(by_epoch=True, max_epochs=40),
        optim_wrapper=adamw(mode),
    )
    # Finite weights of which the losses are not.
    with torch.no_grad():
        runner.model.register_forward_pre_hook(
            lambda *_: (
                runner.model.neck.requires_grad_().apply(
                    lambda m: [p.data.fill_(1e30) for p in m.parameters(recurse=False)]
                )
                and None
            )
        )
    with pytest.raises(NonFiniteError, match=r"after 3 skipped step\(s\)") as error:
        runner.train()
    assert re.search(r"iteration 6 \(epoch 2\): loss_0 is (inf|nan)", str(error.value))
    assert "The learning rate is 0.001: train with a lower" in str(error.value)
    assert (tmp_path / "work" / "epoch_1.pth").read_bytes() == good
    assert not (tmp_path / "work" / "epoch_2.pth").exists()


def test_one_step__may_be_enough_to_stop(tmp_path: Path, mode: str) -> None:
    with pytest.raises(NonFiniteError, match=r"iteration 2 \(epoch 1\): loss_0 is nan"):
        runner_of(tmp_path, bad=6, limit=1, optim_wrapper=adamw(mode)).train()
    assert not list((tmp_path / "work").glob("*.pth"))
    with pytest.raises(ValueError, match="max_in_a_row .* at least 1; got 0"):
        StopNonFiniteHook(max_in_a_row=0)


def test_gradient__alone_drops_what_was_accumulated(tmp_path: Path, mode: str) -> None:
    """The loss is finite; its derivative, of a square root at zero, is not."""
    runner = runner_of(
        tmp_path,
        limit=10,
        optim_wrapper=adamw(mode, accumulative_counts=2, clip_grad=dict(max_norm=1.0)),
    )
    loss, states = runner.model.loss, []

    def with_root(*args, **kwargs):
        states.append(state_of(runner))
        losses = loss(*args, **kwargs)
        weight = next(p for p in runner.model.parameters() if p.requires_grad)
        if len(states) == 1:  # the second iteration of the sum is sound
            losses["loss_0"] = losses["loss_0"] + (weight.sum() * 0).abs().sqrt()
        return losses

    runner.model.loss = with_root
    runner.train()
    for key, value in states[0].items():
        assert torch.equal(states[2][key], value), key
        assert states[4][key].isfinite().all()
    # The next sum makes a step.
    assert float(states[4]["0.step"]) == 1
    (message,) = re.findall("step skipped.*", logged(tmp_path))
    assert "iteration 2 (epoch 1): the gradient norm is nan. To run" in message
    # Of both batches that were accumulated.
    assert "images/0.tif" in message and "images/7.tif" in message


def test_batch_norm__keeps_no_statistics_of_a_skipped_step(
    tmp_path: Path, mode: str
) -> None:
    runner = runner_of(tmp_path, bad=6, optim_wrapper=adamw(mode))
    norm = torch.nn.BatchNorm2d(3)
    runner.model.norm = norm
    preprocess = runner.model.data_preprocessor.forward

    def normalise(data, training=False):
        data = preprocess(data, training)
        return {**data, "inputs": norm(data["inputs"])}

    runner.model.data_preprocessor.forward = normalise
    runner.train()
    assert norm.running_mean.isfinite().all()
    assert int(norm.num_batches_tracked) == 4


def test_kept_files__hold_the_batch_and_are_few(tmp_path: Path, mode: str) -> None:
    earlier = tmp_path / "work" / "non_finite"
    earlier.mkdir(parents=True)
    for name in ("iter_7_weights.pth", "iter_7_rank3.pth"):
        (earlier / name).touch()
        os.utime(earlier / name, (0, 0))
    runner_of(
        tmp_path,
        bad=6,
        optim_wrapper=adamw(mode),
        train_cfg=dict(by_epoch=True, max_epochs=4),
    ).train()
    names = {x.name for x in (tmp_path / "work" / "non_finite").iterdir()}
    assert names == {
        f"iter_{number}_{kind}.pth"
        for number in (2, 5, 8)
        for kind in ("rank0", "weights")
    }
    content = read_content(tmp_path / "work" / "non_finite" / "iter_2_rank0.pth")
    (batch,) = content["batches"]
    assert batch["samples"] == [4, 5, 6, 7]
    assert batch["data"]["inputs"].shape == (4, 3, 8, 8)
    assert batch["data"]["inputs"][2].isnan().sum() == 1
    assert "FloatImages" in content["config"]


def test_weights__are_checked_before_a_checkpoint(tmp_path: Path, mode: str) -> None:
    runner = runner_of(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))
    runner.model.register_buffer("counter", torch.tensor(torch.inf))
    with pytest.raises(NonFiniteError, match="weights are not finite, counter first"):
        runner.train()
    assert not list((tmp_path / "work").glob("*.pth"))


def test_checkpoints_by_iteration__are_checked_before(
    tmp_path: Path, mode: str
) -> None:
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=1)
    with pytest.raises(NonFiniteError, match=r"iteration 3 \(epoch 1\): loss_"):
        runner_of(
            tmp_path,
            bad=11,
            limit=1,
            optim_wrapper=adamw(mode),
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=100), checkpoint=checkpoint
            ),
        ).train()
    assert sorted(x.name for x in (tmp_path / "work").glob("*.pth")) == [
        "iter_1.pth",
        "iter_2.pth",
    ]


def test_long_batches__are_listed_in_a_file(tmp_path: Path) -> None:
    data = loader(batch_size=70)
    data["dataset"] = dict(type="FloatImages", bad=0, count=70)
    with pytest.raises(NonFiniteError, match="and 6 more, listed in ") as error:
        runner_of(tmp_path, limit=1, train_dataloader=data).train()
    listed = Path(str(error.value).split("listed in ")[1].split()[0]).read_text()
    assert listed.split() == [f"images/{i}.tif" for i in range(70)]


def test_full_disk__does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    kept = "mim_plugins.engine.running.kept_batches"
    monkeypatch.setattr(f"{kept}.write_atomically", full)
    monkeypatch.setattr(f"{kept}.save_state", full)
    runner_of(tmp_path, bad=6).train()
    log = logged(tmp_path)
    assert "iter_2_rank0.pth: [Errno 28] No space left" in log
    assert "iter_2_weights.pth: [Errno 28] No space left" in log


def test_a_finite_run__is_the_same_with_and_without(tmp_path: Path, mode: str) -> None:
    states = []
    for hooks in ([], [dict(type="StopNonFiniteHook")]):
        torch.manual_seed(0)
        runner = runner_of(
            tmp_path / str(len(hooks)), custom_hooks=hooks, optim_wrapper=adamw(mode)
        )
        runner.train()
        states.append(runner.model.state_dict())
        assert not runner.model._forward_hooks
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_add_hook__once() -> None:
    cfg = Config(dict(custom_hooks=[dict(type="ThroughputHook")]))
    for _ in range(2):
        add_hook(cfg, "StopNonFiniteHook")
    assert [x.type for x in cfg.custom_hooks] == ["ThroughputHook", "StopNonFiniteHook"]
