"""Tests of the optimiser wrapper for mixed precision."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mim_plugins.engine import AutocastOptimWrapper
from mim_plugins.engine.running.deferred import DeferredScalars


class Linear(BaseModel):
    """One layer that remembers in which type it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor, mode: str) -> dict:
        output = self.layer(inputs)
        self.dtype = output.dtype
        return dict(loss=output.float().square().mean())


def wrapper_for(model: nn.Module, **kwargs) -> AutocastOptimWrapper:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = dict(type="AutocastOptimWrapper", optimizer=optimizer, **kwargs)
    return OPTIM_WRAPPERS.build(config)


def test_train_step__computes_in_bfloat16_and_keeps_float32_weights() -> None:
    model = Linear()
    before = model.layer.weight.detach().clone()
    model.train_step(dict(inputs=torch.ones(3, 4)), wrapper_for(model))
    assert model.dtype is torch.bfloat16
    assert model.layer.weight.dtype is torch.float32
    assert not torch.equal(model.layer.weight, before)


def test_clip_grad__clips_and_queues_the_norm() -> None:
    model = Linear()
    nn.init.constant_(model.layer.weight, 100.0)
    wrapper = wrapper_for(model, clip_grad=dict(max_norm=0.5))
    wrapper.deferred = DeferredScalars()
    # Clipping scales .grad in place before the step; look at it there.
    seen = []
    step = wrapper.optimizer.step
    wrapper.optimizer.step = lambda: (
        seen.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()),
        step(),
    )
    model.train_step(dict(inputs=torch.ones(3, 4)), wrapper)
    assert seen[0].item() == pytest.approx(0.5, rel=1e-4)
    (key, norm), *_ = wrapper.deferred._pending
    assert key == "train/grad_norm" and norm.item() > 1


@pytest.mark.parametrize("dtype", ["float16", torch.float32])
def test_dtype__other_than_bfloat16_is_refused(dtype: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="AmpOptimWrapper"):
        wrapper_for(Linear(), dtype=dtype)
