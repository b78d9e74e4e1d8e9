"""Activation checkpointing of single modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(module: nn.Module) -> None:
    """Makes a module store its inputs only and recompute its activations in backward.

    The RNG state is preserved, so that drop path and the like repeat their draws
    ("Training Deep Nets with Sublinear Memory Cost", 2016,
    https://arxiv.org/abs/1604.06174). (mmengine's ``activation_checkpointing`` uses
    torch's reentrant variant, which ignores saved-tensor hooks and parameters that are
    used twice under DDP.)

    Args:
        module: Its ``forward`` is replaced; keys and parameters stay as they are.
    """
    # A partial of a bound method follows its module through copy.deepcopy, as an
    # averaged copy of the model needs; a closure would run the original.
    module.forward = partial(_recomputed, module.forward)


def _recomputed(forward: Callable[..., Any], *args: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)
