"""Frozen networks that make targets, kept out of training and of checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from ...checkpoints.files import read
from ...checkpoints.loading import Target, state_for

# The teacher of most methods, for messages.
TRAINED_MAE = (
    "a trained MAE, with its decoder if the teacher has one, such as "
    "work_dirs/mae/vitb_1600e/epoch_1600.pth of configs/mae/vitb_1600e.py"
)


class FrozenTeacher(nn.Module):
    """A trained network that is not a registered part of the model that uses it.

    The network moves with the model between devices. It has no entry in the state dict,
    so that checkpoints stay small and a resumed run builds the teacher again from its
    own file; its parameters reach no optimiser, distributed wrapper or moving average;
    it is always in eval mode and never records gradients.

    Args:
        network: The trained network.
    """

    network: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Bypasses nn.Module.__setattr__, which would register it as a child.
        self.__dict__["network"] = network.eval().requires_grad_(False)
        self._shared = False

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network without autograd, on tensors of its own type."""
        return self.network(*map(self.cast, args), **kwargs)

    def cast(self, x: Any) -> Any:
        """A floating-point tensor in the network's type, all else as it is.

        Fully sharded training casts the inputs of registered modules only, and the
        teacher is not registered.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        types = (p.dtype for p in self.network.parameters() if p.is_floating_point())
        return x.to(next(types, torch.get_default_dtype()))

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenTeacher:
        """Called by ``to``, ``cuda``, ``half`` and the like."""
        super()._apply(fn)
        if self._shared and self._changes(fn):
            self.__dict__["network"] = copy.deepcopy(self.network)
            self._shared = False
        self.network._apply(fn)
        return self

    @torch.no_grad()
    def _changes(self, fn: Callable) -> bool:
        """Whether a function replaces any tensor of the network."""
        tensors = chain(self.network.parameters(), self.network.buffers())
        return any(fn(tensor) is not tensor for tensor in tensors)

    def __deepcopy__(self, memo: dict) -> FrozenTeacher:
        """A copy of the model, such as a moving average, shares the teacher.

        Until one of them goes elsewhere, to another device or type, alone.
        """
        result = FrozenTeacher(self.network)
        result._shared = self._shared = True
        return result


class AbsentTeacher(nn.Module):
    """Takes the place of a teacher whose file does not exist.

    The model makes features and loads checkpoints, and refuses to be trained: the
    runner calls ``init_weights`` before training starts, where :func:`require_teachers`
    raises; any other training loop fails in its first step.

    Args:
        reason: Which file is missing, and what to do about it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.why = reason
        self.reason = (
            f"the model was built without its teacher and cannot be trained: {reason}"
        )
        MMLogger.get_current_instance().warning(self.reason)

    def refuse(self) -> NoReturn:
        """Refuses to be trained with.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(self.reason)

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises FileNotFoundError."""
        self.refuse()


def require_teachers(model: nn.Module) -> None:
    """Checks, before training, that a model was built with all its teachers.

    Raises:
        FileNotFoundError: If the file of one does not exist.
    """
    for module in model.modules():
        if isinstance(module, AbsentTeacher):
            module.refuse()


def load_teacher(
    network: nn.Module,
    checkpoint: str | Path | None,
    option: str,
    otherwise: str,
    trained: str = TRAINED_MAE,
    reader: nn.Module | None = None,
) -> FrozenTeacher | AbsentTeacher:
    """Loads every tensor of a model, or of an encoder alone, and freezes it.

    Args:
        network: The model the teacher was trained as, or its encoder; for the latter
            the rest of the checkpoint is left out.
        checkpoint: A checkpoint of this package, or an official one.
        option: Where a config names the checkpoint, for the messages.
        otherwise: What to do without a teacher, likewise.
        trained: What the checkpoint is of, likewise.
        reader: A module that holds ``network`` and is called instead of it.

    Returns:
        The teacher, which is absent if there is no such file.

    Raises:
        FileNotFoundError: If no path is given.
        ValueError: If a tensor is missing, left over or of another shape, or the
            teacher had another number of attention heads.
    """
    missing = (
        f"there is no teacher checkpoint {checkpoint}: set {option} to {trained}; "
        f"or {otherwise}, which needs no teacher"
    )
    if not isinstance(checkpoint, str | Path):
        raise FileNotFoundError(missing)
    if not Path(checkpoint).is_file():
        return AbsentTeacher(missing)
    state = state_for(Target.of(network), read(checkpoint), exact=True)
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
    return FrozenTeacher(reader or network)


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
