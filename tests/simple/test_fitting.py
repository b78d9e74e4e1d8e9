"""The batch that fits into memory."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import tiny_model

from mim_plugins.simple import fitting


def images(count):
    numbers = torch.arange(count)
    inputs = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return dict(inputs=inputs, data_samples=dict(seed=numbers, sample_idx=numbers))


@pytest.fixture
def cpu(monkeypatch):
    monkeypatch.setattr(fitting, "get_device", lambda: "cpu")


@pytest.mark.usefixtures("cpu")
def test_batch__is_halved_until_it_fits_into_free_memory(monkeypatch):
    model = MODELS.build(tiny_model())
    assert fitting.try_batch(model, images, 64).batch == 64
    sizes = {}
    for free in (2_000_000, 4_000_000, 8_000_000):
        monkeypatch.setattr(fitting, "free_memory", lambda free=free: free)
        sizes[free] = fitting.try_batch(model, images, 64).batch
    small, middle, large = sizes.values()
    assert 1 <= small < middle < large < 64
    monkeypatch.setattr(fitting, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match="not even one image fits into memory"):
        fitting.try_batch(model, images, 64)


@pytest.mark.usefixtures("cpu")
def test_trial__counts_parameters_and_leaves_no_gradients():
    model = MODELS.build(tiny_model())
    trial = fitting.try_batch(model, images, 2)
    assert trial.parameters == sum(x.numel() for x in model.parameters())
    assert trial.seconds > 0
    assert all(x.grad is None for x in model.parameters())


def test_batch__is_halved_until_the_gpu_has_room(monkeypatch):
    model = MODELS.build(tiny_model())
    monkeypatch.setattr(fitting, "get_device", lambda: "cuda")
    monkeypatch.setattr(model, "cuda", lambda: model)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    tried = []

    def step(network, data):
        tried.append(len(data["inputs"]))
        if tried[-1] > 8:
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(fitting, "_step", step)
    assert fitting.try_batch(model, images, 64).batch == 8
    assert tried == [64, 32, 16, 8, 8]
