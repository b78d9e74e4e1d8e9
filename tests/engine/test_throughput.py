"""Tests of the images-per-second figure."""

import json
from pathlib import Path

import pytest
import torch
from toy_run import loader, make_runner

from mim_plugins.engine.hooks import throughput


def test_log__holds_images_over_the_time_of_their_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock on which each iteration, loading included, takes half a second, and
    # whatever lies between two epochs ten.
    clock = iter([0.0, 0.5, 1.0, 1.5, 11.5, 12.0, 12.5, 13.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    runner = make_runner(
        tmp_path,
        train_dataloader=loader(batch_size=4, count=10),
        custom_hooks=[dict(type="ThroughputHook")],
    )
    runner.train()
    values = runner.message_hub.get_scalar("train/images_per_s").data[0].tolist()
    # Two full batches a second; the third batch of an epoch has two images only.
    assert values == [8.0, 4.0, 8.0, 4.0]
    lines = (Path(runner.log_dir) / "vis_data" / "scalars.json").read_text()
    logged = [json.loads(line)["images_per_s"] for line in lines.splitlines()]
    assert logged == [8.0, 8.0]
    text = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "images_per_s: 8.0000" in text


@pytest.mark.parametrize(
    "batch",
    [
        dict(inputs=torch.zeros(5, 3, 2, 2), data_samples=None),
        dict(inputs=[torch.zeros(3, 2, 2)] * 5),
        (torch.zeros(5, 3, 2, 2), torch.zeros(5)),
        [dict(inputs=1)] * 5,
    ],
)
def test_batch_size_of__all_kinds_of_batches(batch: object) -> None:
    assert throughput.batch_size_of(batch) == 5
