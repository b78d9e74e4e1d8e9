"""Tests of placing processes on devices."""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, laid_out_only
from torch import nn

from mim_plugins.engine import InputError, build_runner, environment
from mim_plugins.engine.environment import suitable_threads


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


@pytest.fixture
def four_threads(monkeypatch):
    """A machine with four cores, of which nothing is said in the environment."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("config", "batch", "threads"),
    [
        ("demo/mae_digits", 128, 1),
        ("demo/deepmim_digits", 128, 1),
        ("demo/finetune_digits", 50, 1),
        ("demo/deepmim_images", 64, 2),
        ("mae/vitb_1600e", 128, 4),
        ("mae/vitb_1600e", None, 4),
    ],
)
def test_threads__are_those_that_pay(four_threads, config, batch, threads):
    cfg = Config.fromfile(ROOT / "configs" / f"{config}.py")
    with laid_out_only():
        model = MODELS.build(cfg.model)
    model.parameters = nn.Linear(1, 1).parameters  # on the CPU
    with suitable_threads(model, batch):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


def test_threads__of_the_environment_and_of_other_models_stay(
    four_threads, monkeypatch, build
):
    # The second is a model that a sharded run builds later.
    for model in (nn.Linear(2, 2), dict(type="DeepMIM")):
        with suitable_threads(model, 8):
            assert torch.get_num_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with suitable_threads(build(), 8):
        assert torch.get_num_threads() == 4
