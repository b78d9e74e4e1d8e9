"""Leaves out steps whose loss or gradient is not a finite number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...checkpoints.files.state_dicts import non_finite_keys
from ..running.kept_batches import (
    Iteration,
    describe_paths,
    remember,
    write_batches,
    write_weights,
)
from .periodic import unwrapped
from .runtime_info import logger_interval

# Optimisers whose fused step leaves itself out where ``found_inf`` is 1.
_LEAVE_OUT = (torch.optim.Adam, torch.optim.AdamW)


class NonFiniteError(ValueError):
    """A loss, a gradient or a weight became NaN or infinite."""


class NonFiniteStepsError(NonFiniteError):
    """Several steps in a row were left out; the weights are those before them.

    Args:
        message: What happened.
        before: Iterations that were complete before the first of these steps.
    """

    def __init__(self, message: str, before: int) -> None:
        super().__init__(message)
        self.before = before


@dataclass
class _Step:
    """A step of the optimiser whose numbers were not looked at yet."""

    iterations: list[Iteration]  # whose gradients it is of
    norm: Tensor | None  # of the gradient, ()
    bad: Tensor  # (2,): whether a loss and the gradient are not finite, on any process


@HOOKS.register_module()
class StopNonFiniteHook(Hook):
    """Skips steps with a non-finite loss or gradient, and stops if they do not end.

    Where a loss or the gradient's norm is NaN or infinite on any process, no process
    takes the optimiser's step: weights, the optimiser's state and the statistics of
    batch norm stay as they were, and what was accumulated for it is dropped. Schedules
    count the iteration as any other. The log names the loss, level by level, and the
    images; the batch and the weights are kept in ``non_finite/`` of the work dir, for
    ``tools/replay.py``.

    On a CPU, numbers are looked at in every iteration. On a GPU reading one would make
    the host wait for the device in every step: there the fused AdamW decides on the
    device, and the numbers are read together when a log line is due, at the end of an
    epoch, before a validation and before a checkpoint. Other optimisers do wait.

    With float16 and a loss scaler, which skips steps by itself, an infinite gradient is
    part of the method: only losses count.

    Weights are checked before a checkpoint as well.

    Args:
        interval: Iterations between two reads on a GPU; None is the interval of the
            run's ``LoggerHook``.
        max_in_a_row: Skipped steps in a row that end the training. ``tools/train.py``
            then goes back to the newest checkpoint, once to each, and goes on with the
            images in another order.
        keep: Skipped steps of which files are kept; the first ones of the run.

    Raises:
        ValueError: If ``max_in_a_row`` is not positive.
    """

    # Before evaluations (LOW) and CheckpointHook (VERY_LOW).
    priority = "ABOVE_NORMAL"

    def __init__(
        self, interval: int | None = None, max_in_a_row: int = 3, keep: int = 3
    ) -> None:
        if max_in_a_row < 1:
            raise ValueError(
                "StopNonFiniteHook: max_in_a_row is the number of skipped steps in a "
                f"row that end the training, at least 1; got {max_in_a_row}"
            )
        self.interval = interval
        self.max_in_a_row = max_in_a_row
        self.keep = keep
        self._every = 1
        self._deferred = False
        self._in_a_row = self._before_row = 0
        self._kept = 0
        self._device: torch.device | None = None
        self._current: list[Iteration] = []
        self._steps: list[_Step] = []
        self._handles: list[Any] = []
        self._statistics: list[Tensor] = []
        self._before: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses and the optimiser's steps.

        Args:
            runner: The runner of the training process.
        """
        self.after_train(runner)
        model = unwrapped(runner.model)
        self._every = self.interval or logger_interval(runner)
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._deferred = self._device.type != "cpu"
        self._in_a_row = 0
        self._statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]

        def look_at_losses(module: nn.Module, args: Any, output: Any) -> None:
            # Others are of forward passes outside the loop.
            if module.training and isinstance(output, Mapping) and self._current:
                self._current[-1].values += [
                    # A clone survives CUDA graphs and changes in place.
                    (name, value.detach().float().sum().clone())
                    for name, value in _losses(output)
                ]

        def look_at_gradient(optimizer: Any, args: Any, kwargs: Any) -> None:
            if self._current:
                self._check_step(optimizer)

        self._handles.append(model.register_forward_hook(look_at_losses))
        if _skips_here(runner):
            optimizer = runner.optim_wrapper.optimizer
            self._handles.append(optimizer.register_step_pre_hook(look_at_gradient))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Remember the images of the iteration, and the state before a step's first.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: The batch as the loader gave it.
        """
        if _starts_sum(runner):
            # What is left was dropped at the end of an epoch.
            self._current = []
            self._before = [buffer.clone() for buffer in self._statistics]
        self._current.append(remember(runner, data_batch, keep=not self._deferred))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at what is due.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: Not used.
            outputs: Not used.

        Raises:
            NonFiniteError: If too many steps in a row were skipped.
        """
        wrapper = runner.optim_wrapper
        if self._current and not _skips_here(runner):
            if not hasattr(wrapper, "should_update") or wrapper.should_update():
                self._steps.append(self._judge(None))
                self._current = []
        saves = self.is_last_train_iter(runner) or any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and self.every_n_train_iters(runner, hook.interval)
            for hook in runner.hooks
        )
        due = saves or self.every_n_train_iters(runner, self._every)
        if due or not self._deferred:
            self._look(runner)
        if saves:
            self._check_weights(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at everything before a checkpoint is written.

        Args:
            runner: The runner of the training process.

        Raises:
            NonFiniteError: If too many steps in a row were skipped, or a weight is not
                finite.
        """
        self._look(runner)
        self._check_weights(runner)

    def before_val(self, runner: Runner) -> None:
        """Look at everything before a validation within a run by iterations.

        Args:
            runner: The runner of the validation process.

        Raises:
            NonFiniteError: If too many steps in a row were skipped.
        """
        self._look(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimiser as they were.

        Args:
            runner: The runner of the training process.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._current, self._steps = [], []
        optimizer: Any = getattr(runner.optim_wrapper, "optimizer", None)
        if hasattr(optimizer, "found_inf"):
            del optimizer.found_inf

    def _judge(self, norm: Tensor | None) -> _Step:
        """Whether the step of all that was summed has to be skipped, on all alike."""
        numbers = [value for at in self._current for _, value in at.values]
        bad = torch.zeros(2, device=self._device)
        if numbers:
            bad[0] = ~torch.stack(numbers).isfinite().all()
        if norm is not None:
            bad[1] = ~norm.isfinite()
        if get_world_size() > 1:
            # A loss need not show in the gradient, nor a shard's gradient in others'.
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        return _Step(self._current, norm, bad)

    def _check_step(self, optimizer: Any) -> None:
        """Skips the step that is about to be taken, if something is not finite."""
        groups = optimizer.param_groups
        params = [x for group in groups for x in group["params"] if x.grad is not None]
        step = self._judge(_norm([x.grad for x in params]) if params else None)
        self._steps.append(step)
        self._current = []
        found = step.bad.amax()
        fused = all(group.get("fused") for group in groups)
        if self._deferred and fused and type(optimizer) in _LEAVE_OUT:
            # What torch's loss scaler sets: read by the fused step on the device.
            optimizer.found_inf = found
            for buffer, before in zip(self._statistics, self._before, strict=True):
                buffer.copy_(torch.where(found > 0, before, buffer))
        elif found > 0:
            # Optimisers pass over parameters without a gradient.
            for param in params:
                param.grad = None
            for buffer, before in zip(self._statistics, self._before, strict=True):
                buffer.copy_(before)

    def _look(self, runner: Runner) -> None:
        """Looks at the steps since the last time, in one copy to the host."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        found = torch.stack([step.bad for step in steps]).tolist()
        for step, (loss, gradient) in zip(steps, found, strict=True):
            if not loss and not gradient:
                self._in_a_row = 0
                continue
            if not self._in_a_row:
                self._before_row = step.iterations[0].number - 1
            self._in_a_row += 1
            self._report(runner, step, any_loss=bool(loss))

    def _report(self, runner: Runner, step: _Step, any_loss: bool) -> None:
        """Logs a skipped step, on all processes; the last of a row ends the training.

        Raises:
            NonFiniteError: If so.
        """
        suspects = [at for at in step.iterations if at.non_finite()]
        last = step.iterations[-1]
        keep = self._kept < self.keep
        if keep:
            self._kept += 1
            write_weights(runner, last.number, self.keep)
        message = ""
        if suspects or not any_loss:
            message = self._describe(runner, step, suspects, keep)
        messages = [text for text in all_gather_object(message) if text]
        where = f"iteration {last.number} (epoch {last.epoch + 1}): "
        where += " ".join(messages)
        if not _skips(runner):
            raise NonFiniteError(f"training stopped at {where} {_remedy(runner)}")
        if self._in_a_row >= self.max_in_a_row:
            raise NonFiniteStepsError(
                f"training stopped after {self._in_a_row} skipped step(s) in a row, at "
                f"{where} {_remedy(runner)}",
                self._before_row,
            )
        runner.logger.warning(
            f"step skipped ({self._in_a_row} in a row, {self.max_in_a_row} end the "
            f"training): {where}"
        )

    def _describe(
        self, runner: Runner, step: _Step, suspects: Sequence[Iteration], keep: bool
    ) -> str:
        """Names levels and images of this process, and keeps the batch if asked to."""
        values = {name: value for at in suspects for name, value in at.non_finite()}
        if not values and step.norm is not None:
            values["the gradient norm"] = step.norm.item()
        # A gradient is of all that was accumulated.
        iterations = suspects or step.iterations
        batches = [at.batch_of(runner) for at in iterations]
        paths = [path for batch in batches for path in batch.paths]
        message = f"{', '.join(f'{name} is {x}' for name, x in values.items())}."
        if broken := [path for batch in batches for path in batch.broken]:
            message += (
                f" Not all values of {', '.join(broken)} are finite: repair or remove."
            )
        if keep:
            message += write_batches(
                runner, step.iterations[-1].number, batches, values
            )
        return message + describe_paths(runner, paths)

    def _check_weights(self, runner: Runner) -> None:
        """Checks what a checkpoint would hold."""
        model = unwrapped(runner.model)
        trained = {k: x for k, x in model.named_parameters() if x.requires_grad}
        bad = non_finite_keys(trained | dict(model.named_buffers()))
        if bad:
            raise NonFiniteError(
                f"training stopped after iteration {runner.iter + 1} (epoch "
                f"{runner.epoch + 1}): the weights are not finite, {bad[0]} first; no "
                f"checkpoint was written. {_remedy(runner)}"
            )


def _skips_here(runner: Runner) -> bool:
    """Whether the hook itself keeps the optimiser from taking a step."""
    wrapper = runner.optim_wrapper
    return isinstance(wrapper, OptimWrapper) and not hasattr(wrapper, "loss_scaler")


def _skips(runner: Runner) -> bool:
    """Whether steps are skipped at all: not by several optimisers, nor by DeepSpeed."""
    return isinstance(runner.optim_wrapper, OptimWrapper)


def _starts_sum(runner: Runner) -> bool:
    """Whether an iteration is the first of those that a step sums up."""
    wrapper = runner.optim_wrapper
    count = getattr(wrapper, "_accumulative_counts", 1)
    return getattr(wrapper, "_inner_count", 0) % count == 0


def _norm(gradients: list[Tensor]) -> Tensor:
    """The norm of gradients, on their device."""
    norms = list(torch._foreach_norm(gradients))
    if len({(x.dtype, x.device) for x in norms}) > 1:
        norms = [x.float().to(norms[0].device) for x in norms]
    return torch.linalg.vector_norm(torch.stack(norms))


def _remedy(runner: Runner) -> str:
    """What helps if the images are fine."""
    rates = [rate for group in runner.optim_wrapper.get_lr().values() for rate in group]
    return (
        f"The learning rate is {max(rates, default=0):g}: train with a lower "
        "optim_wrapper.optimizer.lr, a longer warm-up, gradient clipping "
        "(optim_wrapper.clip_grad.max_norm=1) or --precision fp32, from the start or "
        "with load_from= from the last checkpoint."
    )


def _losses(output: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """What a model adds up: tensors, or lists of them, named as losses."""
    found = []
    for key, value in output.items():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if "loss" in key and isinstance(part, Tensor):
                found.append((key, part))
    return found
