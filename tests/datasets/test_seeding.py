"""Tests of keeping random state apart."""

import random

import numpy as np
import pytest
import torch

from mim_plugins.datasets.seeding import preserve_rng_state


def draws() -> tuple[float, ...]:
    values = [random.random(), np.random.random(), torch.rand(()).item()]
    if torch.cuda.is_available():
        values.append(torch.rand((), device="cuda").item())
    return tuple(values)


def test_preserve_rng_state__seeds_inside_and_restores_outside() -> None:
    draws()  # starts CUDA where there is one
    with preserve_rng_state():
        expected = draws()
    with preserve_rng_state(seed=3):
        seeded = draws()
    assert draws() == expected
    with preserve_rng_state(seed=3):
        assert draws() == seeded
    assert seeded != expected


def test_preserve_rng_state__covers_the_gpu_once_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = {"state": 7}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: gpu["state"])
    for name in ("set_rng_state", "manual_seed"):
        monkeypatch.setattr(torch.cuda, name, lambda state: gpu.update(state=state))
    with preserve_rng_state(seed=3):
        assert gpu["state"] == 3
    assert gpu["state"] == 7
