"""Mixed precision on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..running.deferred import DeferredScalars


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An optimiser wrapper that trains under autocast, on CUDA and on the CPU.

    mmengine's ``AmpOptimWrapper`` refuses to run on a CPU and always carries a
    gradient scaler. bfloat16 has the range of float32 and needs no scaler, so this
    wrapper opens the autocast context and leaves everything else to its parent.

    With ``clip_grad`` it also logs the gradient norm without reading it from the device
    in every step, once ``DeferredRuntimeInfoHook`` is there. Of the wrappers only this
    one does: mmengine's ``OptimWrapper`` (``--precision fp32``) and ``AmpOptimWrapper``
    read the norm as they clip, for which the host waits in every step.

    Args:
        dtype: ``"bfloat16"`` or ``torch.bfloat16``.
        kwargs: What :class:`mmengine.optim.OptimWrapper` takes: the optimiser,
            ``accumulative_counts`` and ``clip_grad``.

    Raises:
        ValueError: If ``dtype`` is not bfloat16.
    """

    def __init__(self, dtype: str | torch.dtype = "bfloat16", **kwargs: Any) -> None:
        if dtype not in ("bfloat16", torch.bfloat16):
            raise ValueError(
                f"AutocastOptimWrapper computes in bfloat16, but got dtype={dtype!r}. "
                "float16 needs a gradient scaler: use mmengine's AmpOptimWrapper "
                "(--precision fp16); for float32 use OptimWrapper (--precision fp32)."
            )
        super().__init__(**kwargs)
        self.dtype = torch.bfloat16
        self.deferred: DeferredScalars | None = None
        """Set by DeferredRuntimeInfoHook; then the gradient norm is logged through it
        and the host does not wait for the device in every step."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Open the autocast context on the device that holds the model.

        Args:
            model: The model about to run its forward pass.
        """
        device = next((p.device.type for p in model.parameters()), "cpu")
        with super().optim_context(model), torch.autocast(device, dtype=self.dtype):
            yield

    def _clip_grad(self) -> None:
        """Clip the gradients, and log their norm without waiting for it."""
        if self.deferred is None:
            super()._clip_grad()
            return
        params = [
            param
            for group in self.optimizer.param_groups
            for param in group["params"]
            if param.requires_grad and param.grad is not None
        ]
        if not params:
            return
        norm = self.clip_func(params, **self.clip_grad_kwargs)
        if norm is not None:  # clipping by value returns nothing
            self.deferred.add(f"train/{self.grad_name}", norm)
