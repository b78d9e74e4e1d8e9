"""Tests of the hook that defers reading the losses."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from toy_run import loader, make_runner

from mim_plugins.engine import DeferredRuntimeInfoHook

HOOKS_WITHOUT_CLOCK = dict(
    timer=None, logger=dict(type="LoggerHook", interval=2), checkpoint=None
)
BY_ITER = dict(by_epoch=False, max_iters=5)


def train_and_read_log(folder: Path, **changes) -> list[dict]:
    runner = make_runner(folder, **changes)
    runner.train()
    scalars = Path(runner.log_dir) / "vis_data" / "scalars.json"
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "memory"} for line in lines]


@pytest.mark.parametrize("train_cfg", [dict(by_epoch=True, max_epochs=2), BY_ITER])
@pytest.mark.parametrize("clip", [False, True])
def test_log__equals_that_of_mmengine(
    tmp_path: Path, train_cfg: dict, clip: bool
) -> None:
    logs = []
    for kind in ("RuntimeInfoHook", "DeferredRuntimeInfoHook"):
        optim_wrapper = dict(
            type="AutocastOptimWrapper",
            optimizer=dict(type="AdamW", lr=1e-3),
            clip_grad=dict(max_norm=1.0) if clip else None,
        )
        logs.append(
            train_and_read_log(
                tmp_path / kind,
                train_cfg=train_cfg,
                train_dataloader=loader(batch_size=3, count=15),
                optim_wrapper=optim_wrapper,
                log_processor=dict(by_epoch=train_cfg["by_epoch"], window_size=2),
                default_hooks=dict(runtime_info=dict(type=kind), **HOOKS_WITHOUT_CLOCK),
            )
        )
    ours, theirs = logs[1], logs[0]
    assert len(theirs) >= 2 and {"loss", "loss_0", "loss_1"} <= set(theirs[0])
    assert ("grad_norm" in theirs[0]) == clip
    assert ours == theirs
    assert [list(line) for line in ours] == [list(line) for line in theirs]


def test_training__reads_the_device_only_when_a_line_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    stack = torch.stack

    def counted(tensors, *args, **kwargs):
        if all(t.dim() == 0 for t in tensors):
            reads.append(len(tensors))
        return stack(tensors, *args, **kwargs)

    runner = make_runner(
        tmp_path,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        train_dataloader=loader(batch_size=1, count=9),
        default_hooks=dict(
            runtime_info=dict(type="DeferredRuntimeInfoHook"),
            logger=dict(type="LoggerHook", interval=4),
            checkpoint=None,
        ),
    )
    monkeypatch.setattr("mim_plugins.engine.running.deferred.torch.stack", counted)
    runner.train()
    # The first step alone, then up to the lines at 4 and 8, then the rest at 9; three
    # losses a step.
    assert reads == [3, 9, 12, 3]
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 9


def test_checkpoint__holds_the_complete_history(
    tmp_path: Path,
) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg=dict(by_epoch=False, max_iters=3),
        default_hooks=dict(
            runtime_info=dict(type="DeferredRuntimeInfoHook", interval=100),
            logger=dict(type="LoggerHook", interval=100),
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
        ),
    )
    saved = {}

    class Spy(Hook):
        priority = "LOWEST"

        def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
            history = checkpoint["message_hub"]["log_scalars"]["train/loss"]
            saved[runner.iter + 1] = len(history.data[0])

    runner.register_hook(Spy())
    runner.train()
    assert saved == {2: 2, 3: 3}


def test_interval__must_be_positive() -> None:
    with pytest.raises(ValueError, match="interval must be at least 1"):
        DeferredRuntimeInfoHook(interval=0)
