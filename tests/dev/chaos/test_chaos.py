"""A small campaign: killed runs, damaged files, a full disk, failing processes."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from dev.chaos import render, run_chaos
from dev.chaos.faults import damaged_images, full_disk
from dev.chaos.scene import Scene, differing, final_weights

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="forked processes cannot use the GPU"
)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_runs__end_with_the_same_weights(processes: int) -> None:
    reports = list(run_chaos(1, processes, parts=["kills"], ballast=40))
    assert [report["ok"] for report in reports] == [True], reports
    assert reports[0]["kills"]
    assert "1 of 1" in render(reports)


def test_damaged_checkpoints__are_never_loaded() -> None:
    reports = list(run_chaos(5, parts=["damage"]))
    assert [report["trials"] for report in reports] == [20, 10, 2]
    assert all(report["ok"] for report in reports), reports


@pytest.mark.parametrize(
    "fault",
    [full_disk, partial(damaged_images, damaged=2), partial(damaged_images, damaged=8)],
    ids=["full disk", "0.5 % damaged", "2 % damaged"],
)
def test_fault__ends_as_it_should(tmp_path: Path, fault: Callable[..., str]) -> None:
    """Workers that fail at a set moment: tests/engine/test_loading_processes.py."""
    why = fault(tmp_path, random.Random(1))
    if why.startswith("skipped"):
        pytest.skip(why)
    assert not why


def test_comparison__notices_a_bit(tmp_path: Path) -> None:
    """Or the campaign would find nothing, whatever happens."""
    weights = {"state_dict.a": torch.ones(3), "state_dict.ballast": torch.ones(1)}
    changed = {**weights, "state_dict.a": torch.ones(3)}
    changed["state_dict.a"].view(torch.int32)[1] ^= 1
    assert differing(weights, {**weights, "state_dict.ballast": torch.zeros(9)}) == []
    assert differing(weights, changed) == ["state_dict.a"]
    assert differing(weights, {}) == ["state_dict.a"]
    with pytest.raises(FileNotFoundError):
        final_weights(Scene.make(tmp_path, 1).folder)
