"""A rehearsal of a run: everything is built, one step taken, and the plan printed."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import CheckpointLoader, Runner
from torch import Tensor, nn

from ..checkpoints.loading import SCHEME
from .config.schedules import plain_schedulers, run_length
from .config.settings import Note, global_batch
from .errors import InputError
from .hooks.accumulation import AccumulationHook, steps_per_epoch
from .hooks.disk_space import most_files
from .hooks.periodic import unwrapped

# Images that are decoded, and of them those of the measured step without a GPU.
_DECODED = 16
_ON_CPU = 2
# Steps, of which the last is measured: the first ones make buffers and choose kernels.
_STEPS = 2
_ON_GPU = 4

# An epoch of the simulated schedule has at most so many steps, which is exact where
# epochs meet and in shape between.
_MOST_STEPS = 200_000
_POINTS = (0.0, 0.25, 0.5, 0.75)

_GB = 1e9


@contextmanager
def rehearsal(cfg: Config, notes: Sequence[Note]) -> Iterator[Callable[[Runner], None]]:
    """Let a run's config write to a temporary folder, which is removed afterwards.

    Args:
        cfg: The config of the run; changed in place.
        notes: Lines that say what was decided for it; they become part of the plan.

    Yields:
        What takes the place of the runner's training.

    Raises:
        InputError: If parameters are sharded.
    """
    if cfg.get("runner_type") == "FlexibleRunner":
        raise InputError(
            "--dry-run is for runs in which every process has the complete model, and "
            "runner_type is FlexibleRunner, which shards it"
        )
    work_dir = Path(cfg.work_dir).absolute()
    # The processes that one launcher has started on a machine share the folder.
    run = os.getpid() if cfg.get("launcher", "none") == "none" else os.getppid()
    folder = work_dir / f".dry_run_{run}"
    made = [path for path in (work_dir, *work_dir.parents) if not path.exists()]
    cfg.work_dir, cfg.log_level = str(folder), "WARNING"
    if cfg.get("visualizer"):
        # Others open a run on a server.
        cfg.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    for hook in cfg.get("custom_hooks") or []:
        if hook.get("at_start"):  # an evaluation on all data
            hook["at_start"] = False
    lines = [note.message for note in notes]
    try:
        yield partial(_rehearse, lines=lines, work_dir=work_dir, temporary=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    if get_rank() == 0:
        print("\n".join(lines))


def _rehearse(
    runner: Runner, lines: list[str], work_dir: Path, temporary: Path
) -> None:
    """Runs what comes before training, and one step."""
    loop: Any = runner.train_loop
    loop.run = partial(_first_step, runner, lines, work_dir, temporary)
    runner.train()


def _first_step(
    runner: Runner, lines: list[str], work_dir: Path, temporary: Path
) -> nn.Module:
    """Decodes, takes a step, saves and reads; adds what it measures to the lines."""
    runner.call_hook("before_train")
    runner.call_hook("before_train_epoch")
    cfg, loop = runner.cfg, runner.train_loop
    device = next(runner.model.parameters()).device
    loader: Any = runner.train_dataloader
    batch = global_batch(cfg, runner.world_size)
    per_process = batch.per_process if batch else 1
    taken = min(per_process, _ON_CPU) if device.type == "cpu" else per_process

    samples, decoding = _decoded(loader.dataset, max(taken, _DECODED))
    total = len(loader.dataset)
    workers = loader.num_workers
    lines.append(
        f"data: {total} images; {len(samples)} were read, {1e3 * decoding:.1f} ms each"
    )

    if runner.val_loop is not None:
        _validate(runner)
    seconds = _step_time(runner, loader.collate_fn(samples[:taken]), device)
    computing = seconds * per_process / taken
    loading = decoding * per_process / max(1, workers)
    iteration = max(computing, loading) if workers else computing + loading
    measured = f"step: {taken} images in {seconds:.2f} s on {device.type}"
    if taken < per_process:
        measured += (
            f", from which the {per_process} of an iteration are taken to need "
            f"{computing:.1f} s (in proportion; not measured)"
        )
    lines.append(measured + f"; loading them, {loading:.2f} s with {workers} workers")

    iterations = loop.max_iters
    lines.append(_length(runner, batch.size if batch else None))
    rate = _learning_rates(runner)
    if rate:
        lines.append(f"learning rate: {rate}")
    left = iterations - loop.iter
    lines.append(
        f"time: {_duration(left * iteration)} on this machine for {left} iterations of "
        f"{iteration:.2f} s, without validation and saving"
    )
    lines.append(f"memory: {_memory(device)} in a step of {taken} images")
    lines.append(_saved_and_read(runner, work_dir, temporary))
    return runner.model


def _decoded(dataset: Any, count: int) -> tuple[list, float]:
    """Samples that are evenly spaced in a data set, and the seconds for one."""
    total = len(dataset)
    indices = [i * total // count for i in range(count)]
    start = time.perf_counter()
    samples = [dataset[index] for index in indices]
    return samples, (time.perf_counter() - start) / count


def _validate(runner: Runner) -> None:
    """Predicts for two images of the validation, which would fail after an epoch."""
    loader: Any = runner.val_loop.dataloader
    samples, _ = _decoded(loader.dataset, min(2, len(loader.dataset)))
    model = runner.model.eval()
    with torch.no_grad(), runner.optim_wrapper.optim_context(model):
        outputs = model.val_step(loader.collate_fn(samples))
    runner.val_loop.evaluator.process(
        data_samples=outputs, data_batch=loader.collate_fn(samples)
    )
    for metric in runner.val_loop.evaluator.metrics:
        metric.results.clear()


def _step_time(runner: Runner, data: Any, device: torch.device) -> float:
    """The seconds of a step of the optimiser on a batch, all of it computed at once."""
    model, wrapper = runner.model, runner.optim_wrapper
    model.train()
    seconds = 0.0
    for _ in range(_STEPS if device.type == "cpu" else _ON_GPU):
        start = time.perf_counter()
        with wrapper.optim_context(model):
            inputs = unwrapped(model).data_preprocessor(data, True)
            losses = (
                model(**inputs, mode="loss")
                if isinstance(inputs, dict)
                else model(*inputs, mode="loss")
            )
        loss, _ = unwrapped(model).parse_losses(losses)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of the first step is {loss.item()}")
        wrapper.backward(loss)
        wrapper.step()
        wrapper.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    return seconds


def _length(runner: Runner, batch_size: int | None) -> str:
    """How many steps and images a run has."""
    loop = runner.train_loop
    count = runner.cfg.optim_wrapper.get("accumulative_counts", 1)
    length, unit = run_length(runner.cfg)
    steps = loop.max_iters // count
    epochs = ""
    if unit == "epoch":
        per_epoch = _steps_per_epoch(runner)
        steps = per_epoch * (length or 0)
        epochs = f"{length} epochs of {per_epoch} steps, "
    images = "" if batch_size is None else f" of {batch_size} images"
    seen = "" if batch_size is None else f": {steps * batch_size:,} images seen"
    done = f"; {loop.iter} iterations are done" if loop.iter else ""
    return f"run: {epochs}{steps} steps{images}{seen}{done}"


def _steps_per_epoch(runner: Runner) -> int:
    loader: Any = runner.train_dataloader
    count = runner.cfg.optim_wrapper.get("accumulative_counts", 1)
    if any(isinstance(hook, AccumulationHook) for hook in runner.hooks):
        return steps_per_epoch(loader, count)
    return max(1, len(loader) // count)


def _learning_rates(runner: Runner) -> str | None:
    """The learning rate at a few points of a run; None where it is not known."""
    optimizer = runner.cfg.optim_wrapper.get("optimizer")
    planned, unit = run_length(runner.cfg)
    if optimizer is None or "lr" not in optimizer:
        return None
    if planned is None or planned > _MOST_STEPS:
        return None
    length, per_epoch = int(planned), 1
    if unit == "epoch":
        per_epoch = _steps_per_epoch(runner)
    else:
        length = max(
            1, length // runner.cfg.optim_wrapper.get("accumulative_counts", 1)
        )
    per_epoch = max(1, min(per_epoch, _MOST_STEPS // length))
    rates = _simulated(runner.cfg, optimizer["lr"], length, unit, per_epoch)
    at = {round(share * length) for share in _POINTS} | {length}
    at |= {
        scheduler["end"]
        for scheduler in plain_schedulers(runner.cfg)
        if scheduler.get("by_epoch", True) == (unit == "epoch")
        and 0 < scheduler.get("end", 0) < length
    }
    points = [
        f"{rates[min(point * per_epoch, len(rates) - 1)]:.3g} at {unit} {point}"
        for point in sorted(at)
    ]
    return ", ".join(points)


def _simulated(
    cfg: Config, base: float, length: int, unit: str, per_epoch: int
) -> list[float]:
    """The learning rate of every step, by the config's schedulers."""
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=base)
    schedulers = []
    for scheduler in plain_schedulers(cfg):
        own = "epoch" if scheduler.get("by_epoch", True) else "iteration"
        settings = dict(scheduler)
        settings.setdefault("end", length * (1 if own == unit else per_epoch))
        given = dict(optimizer=optimizer, epoch_length=per_epoch)
        built = PARAM_SCHEDULERS.build(settings, default_args=given)
        if built.param_name == "lr":
            schedulers.append(built)
    rates = []
    optimizer.step()  # torch warns of schedulers that step before
    for step in range(1, length * per_epoch + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        for built in schedulers:
            if not built.by_epoch or (unit == "epoch" and step % per_epoch == 0):
                built.step()
    return rates


def _saved_and_read(runner: Runner, work_dir: Path, temporary: Path) -> str:
    """Writes a checkpoint and reads it, and compares what a run needs with the disk."""
    hook = (runner.cfg.get("default_hooks") or {}).get("checkpoint") or {}
    with_optimizer = hook.get("save_optimizer", True)
    path = temporary / "dry_run.pth"
    start = time.perf_counter()
    runner.save_checkpoint(
        str(temporary), path.name, save_optimizer=with_optimizer, by_epoch=False
    )
    writing = time.perf_counter() - start
    if get_rank() != 0:
        return ""
    size = path.stat().st_size
    start = time.perf_counter()
    read = CheckpointLoader.load_checkpoint(f"{SCHEME}{path}", map_location="cpu")
    reading = time.perf_counter() - start
    _compare(read["state_dict"], unwrapped(runner.model).state_dict())
    path.unlink()
    most = most_files(runner.cfg, hook)
    kept = most.training + most.best
    free = shutil.disk_usage(temporary).free
    need = f"{kept} of them need {kept * size / _GB:.2f} GB in {work_dir}"
    if kept * size > free:
        raise ValueError(
            f"a checkpoint has {size / _GB:.2f} GB, and {need}, where "
            f"{free / _GB:.2f} GB are free: make space, set another --work-dir, or "
            "keep fewer with default_hooks.checkpoint.max_keep_ckpts"
        )
    return (
        f"checkpoint: {size / _GB:.2f} GB, written in {writing:.1f} s and read in "
        f"{reading:.1f} s; {need}, where {free / _GB:.1f} GB are free"
    )


def _compare(read: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for key, value in state.items():
        if key in read and not torch.equal(read[key], value.cpu()):
            raise ValueError(
                f"{key} was read from a checkpoint with other values than were written "
                "to it: the disk, or its driver, is not to be trusted"
            )


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / _GB:.1f} GB of the GPU"
    # In kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{peak / _GB:.1f} GB at most of this process"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
