"""Frozen networks that make targets, kept out of training and of checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mim_plugins.checkpoints.detect import strip_wrappers
from mim_plugins.checkpoints.loading import read_file, tensors_of
from mim_plugins.checkpoints.on_load import converted_for

# The teacher of most methods, for messages.
TRAINED_MAE = (
    "a trained MAE, with its decoder if the teacher has one, such as "
    "work_dirs/mae/vitb_1600e/epoch_1600.pth of configs/mae/vitb_1600e.py"
)


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
        self._shared = False

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network without autograd, on tensors of its own type."""
        return self.network(*map(self.cast, args), **kwargs)

    def cast(self, x: Any) -> Any:
        """A floating-point tensor in the network's type, all else as it is.

        Fully sharded training casts the inputs of the modules it knows, of which the
        teacher is none.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        types = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return x.to(next(types, torch.get_default_dtype()))

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        """What ``to``, ``cuda``, ``half`` and the like go through."""
        super()._apply(fn)
        if self._shared and self._changes(fn):
            self.__dict__["network"] = copy.deepcopy(self.network)
            self._shared = False
        self.network._apply(fn)
        return self

    @torch.no_grad()
    def _changes(self, fn: Callable) -> bool:
        """Whether a function gives any tensor of the network anew."""
        tensors = chain(self.network.parameters(), self.network.buffers())
        return any(fn(tensor) is not tensor for tensor in tensors)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        """A copy of the model, such as a moving average, shares the teacher.

        Until one of them goes elsewhere, to another device or type, alone.
        """
        result = FrozenTeacher(self.network)
        result._shared = self._shared = True
        return result


def load_teacher(
    network: nn.Module,
    checkpoint: str | Path | None,
    option: str,
    otherwise: str,
    trained: str = TRAINED_MAE,
) -> None:
    """Loads every tensor of a model, or of an encoder alone, from a file.

    Args:
        network: The model the teacher was trained as, or its encoder; for the latter
            the rest of the checkpoint is left out.
        checkpoint: A checkpoint of this package, or an official one.
        option: Where a config names the checkpoint, for the messages.
        otherwise: What to do without a teacher, likewise.
        trained: What the checkpoint is of, likewise.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a tensor is missing, left over or of another shape, or the
            teacher had another number of attention heads.
    """
    if not isinstance(checkpoint, str | Path) or not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"there is no teacher checkpoint {checkpoint}: set {option} to {trained}; "
            f"or {otherwise}, which needs no teacher"
        )
    content = read_file(checkpoint)
    state: Mapping[str, Tensor] | None = converted_for(
        network, content, str(checkpoint), exact=True
    )
    if state is None:
        state = strip_wrappers(tensors_of(content))
        if not hasattr(network, "backbone"):
            state = _encoder_of(state)
    own = network.state_dict()
    if problems := _differences(own, state):
        raise ValueError(
            f"{checkpoint} does not hold the teacher's weights ({problems}): give that "
            f"of the {type(network).__name__} that `teacher` describes, {trained}"
        )
    network.load_state_dict(state)
    MMLogger.get_current_instance().info(
        f"Teacher {type(network).__name__}: all {len(own)} tensors of {checkpoint} "
        "loaded"
    )


def _encoder_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The encoder's tensors of a model of ours; of an encoder all."""
    prefix = "backbone."
    inside = {k[len(prefix) :]: x for k, x in state.items() if k.startswith(prefix)}
    return inside or state


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Names the tensors that two state dicts do not share; empty if all are alike."""
    problems = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": sorted(
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own.keys() & given.keys()
            if own[key].shape != given[key].shape
        ),
    }
    return "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:5])}" + (" ..." if keys[5:] else "")
        for what, keys in problems.items()
        if keys
    )
