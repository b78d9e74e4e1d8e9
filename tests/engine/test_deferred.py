"""Tests of the queue of scalars."""

import torch
from mmengine.logging import MessageHub

from mim_plugins.engine.running.deferred import DeferredScalars


def test_flush__keeps_order_values_and_types() -> None:
    hub = MessageHub("deferred-order")
    scalars = DeferredScalars()
    loss = torch.tensor(0.1, requires_grad=True) * 1
    for key, value in [
        ("train/a", loss),
        ("train/b", torch.tensor([3])),
        ("train/c", 0.25),
        ("train/a", torch.tensor(0.3, dtype=torch.bfloat16)),
    ]:
        scalars.add(key, value)
    assert not hub.log_scalars
    scalars.flush(hub)
    assert list(hub.log_scalars) == ["train/a", "train/b", "train/c"]
    expected = [loss.item(), torch.tensor(0.3, dtype=torch.bfloat16).item()]
    assert hub.get_scalar("train/a").data[0].tolist() == expected
    assert hub.get_scalar("train/b").current() == 3
    assert hub.get_scalar("train/b").data[0].dtype.kind == "i"
    assert len(scalars) == 0


def test_add__a_later_change_of_the_tensor_is_not_seen() -> None:
    hub = MessageHub("deferred-clone")
    scalars = DeferredScalars()
    value = torch.tensor(1.0)
    scalars.add("train/loss", value)
    value.fill_(7)
    scalars.flush(hub)
    assert hub.get_scalar("train/loss").current() == 1
