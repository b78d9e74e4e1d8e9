"""Tests of going back to a checkpoint, with the images in another order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_run import loader, make_runner

from mim_plugins.engine.hooks.non_finite import NonFiniteError
from mim_plugins.engine.resuming.rollback import DataOrderHook, train


class Recorder:
    """Notes the images of every iteration, and spoils the losses of some."""

    def __init__(self, runner: Any, spoilt: Any) -> None:
        self.seen: list[tuple[int, list[int]]] = []
        loss = runner.model.loss

        def spoiling(inputs, data_samples):
            images = data_samples["sample_idx"].tolist()
            self.seen.append((runner.iter + 1, images))
            losses = loss(inputs, data_samples)
            if spoilt(len(self.seen), runner.iter + 1):
                losses["loss_0"] = losses["loss_0"] * torch.nan
            return losses

        runner.model.loss = spoiling


def runner_of(folder: Path, **changes: Any):
    data = loader()
    data["sampler"] = dict(type="DefaultSampler", shuffle=True)
    config = dict(
        train_dataloader=data,
        train_cfg=dict(type="ResumableEpochLoop", max_epochs=4),
        default_hooks=dict(checkpoint=dict(type="AtomicCheckpointHook", interval=1)),
        custom_hooks=[
            dict(type="ConvertCheckpointHook"),
            dict(type="StopNonFiniteHook"),
        ],
        param_scheduler=dict(type="CosineAnnealingLR", T_max=12, by_epoch=False),
    )
    runner = make_runner(folder, **{**config, **changes})
    order = DataOrderHook()
    runner.register_hook(order)
    return runner, order


def meta_of(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)["meta"]


def test_steps_in_a_row__are_repeated_with_another_order(tmp_path: Path) -> None:
    """Epoch 3 fails once; the run goes back to the end of epoch 2, and ends."""
    runner, order = runner_of(tmp_path)
    recorder = Recorder(runner, lambda call, _: call in (7, 8, 9))
    train(runner, order)
    assert [number for number, _ in recorder.seen] == [*range(1, 10), *range(7, 13)]
    first, second = recorder.seen[6:9], recorder.seen[9:12]
    assert first != second
    assert sorted(sum((x for _, x in second), [])) == list(range(12))
    work = tmp_path / "work"
    log = next(work.glob("*/*.log")).read_text()
    assert f"Going back to {work / 'epoch_2.pth'}, with the images in another" in log
    assert "data_order" not in meta_of(work / "epoch_2.pth")
    assert meta_of(work / "epoch_4.pth")["data_order"] == 1
    assert meta_of(work / "epoch_4.pth")["iter"] == 12
    # The schedule is that of the twelve iterations.
    assert runner.param_schedulers[0].last_step == 11


def test_resumed_run__goes_on_with_the_order_of_the_checkpoint(tmp_path: Path) -> None:
    runner, order = runner_of(tmp_path)
    recorder = Recorder(runner, lambda call, _: call in (7, 8, 9))
    train(runner, order)
    checkpoint = tmp_path / "work" / "epoch_3.pth"
    again, order = runner_of(tmp_path, load_from=str(checkpoint), resume=True)
    resumed = Recorder(again, lambda *_: False)
    train(again, order)
    assert resumed.seen == recorder.seen[-3:]
    for key, value in runner.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_failure_that_stays__is_tried_with_older_checkpoints_and_stops(
    tmp_path: Path,
) -> None:
    runner, order = runner_of(tmp_path)
    recorder = Recorder(runner, lambda _, number: number > 6)
    with pytest.raises(NonFiniteError, match="after 3 skipped step.* at iteration 9"):
        train(runner, order)
    log = next((tmp_path / "work").glob("*/*.log")).read_text()
    assert [f"Going back to {tmp_path}/work/epoch_{x}.pth" in log for x in (2, 1)] == [
        True,
        True,
    ]
    assert len(recorder.seen) == 9 + 3 + 6


@pytest.mark.parametrize("change", ["no checkpoint", "no shuffling"])
def test_without_a_way_back__stops(tmp_path: Path, change: str) -> None:
    data = loader()
    data["sampler"] = dict(type="DefaultSampler", shuffle=change == "no checkpoint")
    runner, order = runner_of(tmp_path, train_dataloader=data)
    first = 0 if change == "no checkpoint" else 3
    recorder = Recorder(runner, lambda call, _: call > first)
    with pytest.raises(NonFiniteError, match="loss_0 is nan"):
        train(runner, order)
    assert len(recorder.seen) == first + 3


def test_checkpoints_between_skipped_steps__do_not_count(tmp_path: Path) -> None:
    """They hold the weights that failed."""
    checkpoint = dict(type="AtomicCheckpointHook", by_epoch=False, interval=1)
    runner, order = runner_of(tmp_path, default_hooks=dict(checkpoint=checkpoint))
    recorder = Recorder(runner, lambda call, _: call in (7, 8, 9))
    train(runner, order)
    assert [number for number, _ in recorder.seen] == [*range(1, 10), *range(7, 13)]
    log = next((tmp_path / "work").glob("*/*.log")).read_text()
    assert f"Going back to {tmp_path / 'work' / 'iter_6.pth'}" in log
