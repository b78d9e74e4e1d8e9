"""Fixtures shared by all tests."""

import gc
import multiprocessing
import signal
from collections.abc import Iterator

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from samples import tiny_model

import mim_plugins  # noqa: F401  (registers everything)

torch.set_num_threads(1)
MMLogger.get_instance("tests", log_level="WARNING")
# What is imported stays; collecting after every test need not look at it.
gc.collect()
gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Runs end with their test: their loading workers are shut down, not inherited.

    A runner is a cycle, which Python collects at some later time; until then its
    workers are alive, and whatever is forked next inherits them. Collected alive, each
    keeps the collection waiting for 5 s: it no longer hears of its end.
    """
    yield
    if workers := multiprocessing.active_children():
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for worker in workers:
            worker.kill()
            worker.join()
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    gc.collect()


@pytest.fixture(autouse=True)
def scoped() -> Iterator[None]:
    """What a runner names as the scope of types without a prefix ends with its test."""
    before = set(DefaultScope._instance_dict)
    yield
    for name in set(DefaultScope._instance_dict) - before:
        del DefaultScope._instance_dict[name]


@pytest.fixture(autouse=True)
def unformatted(monkeypatch) -> None:
    """Configs are written as they are read, not laid out with yapf.

    mmengine lays one out six times a run, which takes longer than a short run itself.
    """
    for module in ("mmengine.config.config", "yapf.yapflib.yapf_api"):
        monkeypatch.setattr(
            f"{module}.FormatCode", lambda text, **_: (text, False), raising=False
        )


@pytest.fixture
def build():
    """Builds and initialises a tiny model: ``build(taps=..., part=dict(...))``."""

    def _build(**kwargs):
        model = MODELS.build(tiny_model(**kwargs))
        model.init_weights()
        return model

    return _build
