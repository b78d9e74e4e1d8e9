"""Tests of placing processes on devices."""

import pytest
import torch
from mmengine.config import Config

from mim_plugins.engine import InputError, build_runner, environment


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU, as far as torch reports."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(environment, "get_device", lambda: "cuda")


@pytest.mark.parametrize(
    "launcher, variable", [("pytorch", "LOCAL_RANK"), ("slurm", "SLURM_LOCALID")]
)
def test_processes__more_than_gpus_are_refused(
    one_gpu: None, monkeypatch: pytest.MonkeyPatch, launcher: str, variable: str
) -> None:
    cfg = Config(dict(launcher=launcher))
    monkeypatch.setenv(variable, "0")
    environment.prepare_processes(cfg)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InputError, match="Start at most 1 process"):
        build_runner(cfg)
