"""Frozen networks that make targets, kept out of training and of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class FrozenTeacher(nn.Module):
    """A trained network that is used, and is no part of the model that uses it.

    The network follows the model from device to device, and nothing else: it has no
    entry in the state dict, so that checkpoints stay small and a resumed run builds
    the teacher anew from its own file; its parameters reach no optimiser, no
    distributed wrapper and no moving average; it is always in eval mode, and never
    records gradients.

    Args:
        network: The trained network.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Past nn.Module.__setattr__, which would register it as a child.
        self.__dict__["network"] = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network without autograd."""
        return self.network(*args, **kwargs)

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        """What ``to``, ``cuda``, ``half`` and the like go through."""
        super()._apply(fn)
        self.network._apply(fn)
        return self

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        """A copy of the model, such as a moving average, shares the teacher."""
        return FrozenTeacher(self.network)
