"""Stops a run at its first loss or gradient that is not a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ...checkpoints.files.state_dicts import non_finite_keys
from ...datasets.epoch_sampler import find_seeded_dataset
from .periodic import unwrapped
from .runtime_info import logger_interval

# Images that the message names; a file lists all of the batch.
_NAMED = 64


class NonFiniteError(ValueError):
    """A loss, a gradient or a weight became NaN or infinite."""


@dataclass
class _Iteration:
    """What is remembered of an iteration until its numbers were looked at."""

    number: int  # from 1, as in the log
    epoch: int  # from 0
    samples: list[Any]  # index in the data set or path of every image
    values: list[tuple[str, Tensor]] = field(default_factory=list)


@HOOKS.register_module()
class StopNonFiniteHook(Hook):
    """Ends training at the first non-finite loss or gradient norm.

    On a CPU every loss is checked before its backward pass, and the gradient before the
    optimiser's step, which is not taken. On a GPU reading a number would make the host
    wait for the device in every step: losses and norms stay there, and are read
    together when a log line is due, at the end of an epoch, before a validation and
    before a checkpoint, so that none is written, or removed, after the first of them.
    Weights are checked before a checkpoint as well.

    The gradient of float16 with a loss scaler is not checked: there, steps with an
    infinite one are part of the method, and left out by the scaler.

    Args:
        interval: Iterations between two reads on a GPU; None is the interval of the
            run's ``LoggerHook``.
    """

    # Before evaluations (LOW) and CheckpointHook (VERY_LOW).
    priority = "ABOVE_NORMAL"

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self._every = 1
        self._pending: list[_Iteration] = []
        self._deferred = False
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses and the optimiser's steps.

        Args:
            runner: The runner of the training process.
        """
        model = unwrapped(runner.model)
        self._every = self.interval or logger_interval(runner)
        device = next((p.device.type for p in model.parameters()), "cpu")
        self._deferred = device != "cpu"

        def look_at_losses(module: nn.Module, args: Any, output: Any) -> None:
            if module.training and isinstance(output, Mapping):
                self._add(runner, _losses(output))

        def look_at_gradient(optimizer: Any, args: Any, kwargs: Any) -> None:
            params = [
                param
                for group in optimizer.param_groups
                for param in group["params"]
                if param.grad is not None
            ]
            # Clipping at infinity changes nothing, and gives the norm.
            if params:
                norm = nn.utils.clip_grad_norm_(params, math.inf)
                self._add(runner, [("the gradient norm", norm)])

        self._handles.append(model.register_forward_hook(look_at_losses))
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not hasattr(wrapper, "loss_scaler"):
            optimizer = wrapper.optimizer
            self._handles.append(optimizer.register_step_pre_hook(look_at_gradient))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Remember which images the iteration sees.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: The batch as the loader gave it.
        """
        if not self._deferred:
            self._forget(runner)
        samples = _samples(data_batch)
        self._pending.append(_Iteration(runner.iter + 1, runner.epoch, samples))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Check what is due.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: Not used.
            outputs: Not used.

        Raises:
            NonFiniteError: If something is not finite.
        """
        saves = self.is_last_train_iter(runner) or any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and self.every_n_train_iters(runner, hook.interval)
            for hook in runner.hooks
        )
        if saves or self.every_n_train_iters(runner, self._every):
            self._flush(runner)
        if saves:
            self._check_weights(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check everything before a checkpoint is written.

        Args:
            runner: The runner of the training process.

        Raises:
            NonFiniteError: If something is not finite.
        """
        self._flush(runner)
        self._check_weights(runner)

    def before_val(self, runner: Runner) -> None:
        """Check everything before a validation within a run by iterations.

        Args:
            runner: The runner of the validation process.

        Raises:
            NonFiniteError: If something is not finite.
        """
        self._flush(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimiser as they were.

        Args:
            runner: The runner of the training process.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _add(self, runner: Runner, values: Sequence[tuple[str, Tensor]]) -> None:
        """Takes values of the iteration, and looks at them if that costs nothing."""
        if not self._pending:  # a forward pass outside the loop
            return
        for name, value in values:
            # A clone survives CUDA graphs and changes in place.
            value = value.detach().float().sum().clone()
            self._pending[-1].values.append((name, value))
        if not self._deferred:
            self._look(runner)

    def _flush(self, runner: Runner) -> None:
        """Looks at all values, and forgets their iterations."""
        self._look(runner)
        self._forget(runner)

    def _forget(self, runner: Runner) -> None:
        """Keeps those iterations only that the next gradient may be of."""
        keep = _accumulated(runner) - 1
        self._pending = self._pending[-keep:] if keep else []

    def _look(self, runner: Runner) -> None:
        """Looks at all values, in one copy to the host."""
        found = [(at, *value) for at in self._pending for value in at.values]
        if not found:
            return
        numbers = torch.stack([value for _, _, value in found]).tolist()
        for (at, name, _), number in zip(found, numbers, strict=True):
            if not math.isfinite(number):
                raise NonFiniteError(self._message(runner, at, name, number))
        for at in self._pending:
            at.values.clear()

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

    def _message(self, runner: Runner, at: _Iteration, name: str, number: float) -> str:
        """Names level, iteration and images."""
        # A gradient is of all that was accumulated.
        group = [at]
        if name == "the gradient norm":
            last = next(i for i, x in enumerate(self._pending) if x is at) + 1
            group = self._pending[max(0, last - _accumulated(runner)) : last]
        dataset = runner.train_dataloader.dataset
        samples = [(x.epoch, sample) for x in group for sample in x.samples]
        paths = [_path(dataset, sample) for _, sample in samples]
        message = (
            f"training stopped at iteration {at.number} (epoch {at.epoch + 1}): {name} "
            f"is {number}; no checkpoint was written since. "
        )
        broken = [
            path
            for path, (epoch, sample) in zip(paths, samples, strict=True)
            if not _finite(dataset, epoch, sample)
        ]
        if broken:
            message += (
                f"Not all values of {', '.join(broken)} are finite: repair or remove. "
            )
        else:
            message += f"{_remedy(runner)} "
        if not paths:
            return message.rstrip()
        message += f"The images of the batch: {', '.join(paths[:_NAMED])}"
        if len(paths) > _NAMED:
            file = Path(runner.work_dir, f"non_finite_batch_rank{runner.rank}.txt")
            file.write_text("\n".join(paths) + "\n", errors="surrogateescape")
            message += f" and {len(paths) - _NAMED} more, listed in {file}"
        return message


def _accumulated(runner: Runner) -> int:
    """How many iterations the gradient of a step is of."""
    return getattr(runner.optim_wrapper, "_accumulative_counts", 1)


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


def _samples(data_batch: Any) -> list[Any]:
    """The path, or else the index, of every sample of a batch."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    if isinstance(samples, Mapping):
        return list(torch.as_tensor(samples.get("sample_idx", [])).tolist())
    found = [
        sample.get("sample_idx", sample.get("img_path"))
        for sample in (samples if isinstance(samples, (list, tuple)) else [])
        if hasattr(sample, "get")
    ]
    return [x for x in found if x is not None]


def _path(dataset: Any, sample: Any) -> str:
    """The path of a sample of a data set."""
    if isinstance(sample, str) or not hasattr(dataset, "get_data_info"):
        return str(sample)
    return str(dataset.get_data_info(sample).get("img_path", f"sample {sample}"))


def _finite(dataset: Any, epoch: int, sample: Any) -> bool:
    """Whether a sample, loaded once more, holds finite numbers only."""
    if isinstance(sample, str):
        return True
    if find_seeded_dataset(dataset) is not None:
        sample += epoch * len(dataset)
    try:
        item = dataset[sample]
    except Exception:  # it could be read before; this is no place to fail
        return True
    image = item.get("inputs") if isinstance(item, dict) else None
    return not isinstance(image, Tensor) or bool(image.isfinite().all())
