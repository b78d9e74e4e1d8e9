"""The benchmark of training steps: ``tools/benchmark.py step``."""

import platform
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmengine
import mmpretrain
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.nn import functional as F

from mim_plugins.engine import load_config

from .agreement import compare_with_reference
from .dims import MIMDims
from .implementations import Implementation, Setting, build_baseline, build_config
from .timing import (
    MIB,
    Stopwatch,
    Summary,
    interleave,
    matmul_rate,
    paired_ratio,
    saved_bytes,
)

PARTS = ("forward", "backward", "optimizer")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run_step(
    config: str,
    baselines: Sequence[str] = (),
    device: str | None = None,
    batch_size: int | None = None,
    dtype: str = "fp32",
    compiled: bool = False,
    rounds: int = 5,
    steps: int | None = None,
    threads: int | None = None,
    cfg_options: dict | None = None,
) -> dict[str, Any]:
    """Time training steps of a config and its baselines, interleaved in one process.

    A step is normalisation of a uint8 batch that lies on the device, masking, targets,
    forward, backward, optimiser step and dropping the gradients.

    Args:
        config: Path of a pre-training config; its model is called ``ours``.
        baselines: ``mmpretrain-mae``, ``reference`` or paths of other configs.
        device: ``cuda`` where there is one by default, else ``cpu``.
        batch_size: Images in a batch; 256 on a GPU and 8 on a CPU by default.
        dtype: ``fp32``, or ``bf16`` for autocast.
        compiled: Whether ``ours`` runs a second time with compiled blocks.
        rounds: Rounds to keep; one more is run first and discarded.
        steps: Steps an implementation runs in each round; 20 on a GPU, 1 on a CPU.
        threads: CPU threads; 1 by default when the device is the CPU.
        cfg_options: Overrides of the config's entries.

    Returns:
        A report that can be written as JSON.

    Raises:
        ValueError: If an argument or the config is not one the benchmark can run.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_cpu = where.type == "cpu"
    batch_size = batch_size or (8 if on_cpu else 256)
    steps = steps or (1 if on_cpu else 20)
    if threads or on_cpu:
        torch.set_num_threads(threads or 1)
    torch.manual_seed(0)

    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    setting = Setting(where, DTYPES[dtype])
    peak = matmul_rate(where, setting.dtype)

    ours = build_config("ours", cfg, setting)
    implementations = [ours]
    if compiled:
        implementations.append(build_config("ours-compiled", cfg, setting))
        implementations[-1].compile_blocks()
    implementations += [
        build_baseline(baseline, ours.dims, cfg, setting) for baseline in baselines
    ]
    images = random_images(cfg, ours, batch_size, where)

    names = [implementation.name for implementation in implementations]
    if len(set(names)) < len(names):
        raise ValueError(f"two implementations have one name: {', '.join(names)}")
    for implementation in implementations:
        if implementation.dims is not None and ours.dims is not None:
            check_images(implementation.dims, ours.dims)
    agreement = None
    if "reference" in names and ours.dims is not None:
        reference = implementations[names.index("reference")]
        agreement = compare_with_reference(ours, reference, images, ours.dims)

    entries = {}
    for implementation in implementations:
        entries[implementation.name] = {
            **describe(implementation),
            **warm_up(implementation, images),
        }
    laps = interleave(
        {c.name: partial(time_steps, c, images, steps) for c in implementations}, rounds
    )
    for implementation in implementations:
        entry = entries[implementation.name]
        entry.update(speed(implementation, laps[implementation.name], batch_size, peak))
    seconds = {name: [lap["step"] for lap in rows] for name, rows in laps.items()}
    ratios = {
        name: paired_ratio(seconds["ours"], values).as_dict()
        for name, values in seconds.items()
        if name != "ours"
    }
    return {
        "benchmark": "step",
        "config": str(config),
        "device": device_name(where),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "dtype": dtype,
        "batch_size": batch_size,
        "image_shape": list(images.shape[1:]),
        "threads": torch.get_num_threads(),
        "clock": Stopwatch.clock_name(where),
        "rounds": rounds,
        "steps_per_round": steps,
        "matmul_tflops": peak / 1e12,
        "implementations": entries,
        "times_as_fast_as": ratios,
        "difference_from_reference": agreement,
        **provenance(),
    }


def check_images(theirs: MIMDims, ours: MIMDims) -> None:
    """Make sure that two models can take the same images.

    Args:
        theirs: Sizes of a baseline.
        ours: Sizes of the model to compare with.

    Raises:
        ValueError: If image size or channels differ.
    """
    for field in ("img_size", "in_channels"):
        if getattr(theirs, field) != getattr(ours, field):
            raise ValueError(
                f"implementations get the same images, but their {field} differ: "
                f"{getattr(ours, field)} and {getattr(theirs, field)}"
            )


def time_steps(
    implementation: Implementation, images: torch.Tensor, steps: int
) -> dict[str, float]:
    """Run training steps and return the mean seconds of each part of one.

    Args:
        implementation: What to run.
        images: A uint8 batch (N, C, H, W).
        steps: Number of steps.

    Returns:
        Seconds of ``forward``, ``backward``, ``optimizer``, their sum ``step``, and
        ``wall``, the wall time of a step.
    """
    watch = Stopwatch(images.device)
    watch.mark()
    for _ in range(steps):
        loss = implementation.forward(images)
        watch.mark()
        implementation.backward(loss)
        # Frees the last of the graph inside the stretch that used it.
        del loss
        watch.mark()
        implementation.update()
        watch.mark()
    laps = watch.laps()
    parts = {part: sum(laps[i :: len(PARTS)]) / steps for i, part in enumerate(PARTS)}
    return {**parts, "step": sum(laps) / steps, "wall": watch.wall_seconds() / steps}


def warm_up(implementation: Implementation, images: torch.Tensor) -> dict[str, Any]:
    """Run first steps, which allocate and compile, and measure the memory.

    Args:
        implementation: What to run.
        images: A uint8 batch (N, C, H, W).

    Returns:
        The loss, the seconds of the very first step and the memory.
    """
    start = time.perf_counter()
    loss = implementation.forward(images)
    implementation.backward(loss)
    implementation.update()
    report = {
        "loss": float(loss.detach()),
        "first_step_s": time.perf_counter() - start,
    }
    del loss
    return {**report, "memory": memory(implementation, images)}


def memory(implementation: Implementation, images: torch.Tensor) -> dict[str, Any]:
    """Measure the memory of a step, in MiB, in total and for each image.

    On a GPU it is the allocator's peak less what the other implementations hold; on the
    CPU it is what autograd saves, parameters excluded. The slope over two batch sizes
    leaves out what is fixed: weights, their copies in lower precision, gradients and
    optimiser state. Compiled blocks are measured at one size only, since another would
    be recompiled.

    Args:
        implementation: What to run, after its first step.
        images: A uint8 batch (N, C, H, W).
    """
    on_gpu = images.device.type == "cuda"
    measure = peak_bytes if on_gpu else saved_for_backward
    kind = "peak allocated" if on_gpu else "saved for backward"
    if implementation.compiled and not on_gpu:
        return {"kind": kind, "total_mib": None, "per_image_mib": None}
    count = len(images)
    largest = measure(implementation, images)
    slope = None
    if not implementation.compiled:
        other = images[: count // 2] if count > 1 else images.repeat(2, 1, 1, 1)
        slope = (measure(implementation, other) - largest) / (len(other) - count) / MIB
    return {"kind": kind, "total_mib": largest / MIB, "per_image_mib": slope}


def saved_for_backward(implementation: Implementation, images: torch.Tensor) -> int:
    """Return the bytes autograd saves in a forward pass."""
    return saved_bytes(
        lambda: implementation.forward(images), implementation.model.parameters()
    )


def peak_bytes(implementation: Implementation, images: torch.Tensor) -> int:
    """Return the peak of a step in bytes, without what other implementations hold."""
    device = images.device
    params = implementation.model.parameters()
    states = [
        value
        for state in implementation.wrapper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.device == device
    ]
    own = sum(t.untyped_storage().nbytes() for t in [*params, *states])
    others = torch.cuda.memory_allocated(device) - own
    torch.cuda.reset_peak_memory_stats(device)
    time_steps(implementation, images, 1)
    return torch.cuda.max_memory_allocated(device) - others


def describe(implementation: Implementation) -> dict[str, Any]:
    """Return what is known of an implementation without running it."""
    return {
        "attention": implementation.attention,
        "compiled": implementation.compiled,
        "parameters": sum(p.numel() for p in implementation.model.parameters()),
        "optimizer_groups": len(implementation.wrapper.optimizer.param_groups),
        "gflop_per_image": _scaled(implementation.official_flop, 1e-9),
        "computed_gflop_per_image": _scaled(implementation.computed_flop, 1e-9),
    }


def speed(
    implementation: Implementation,
    laps: list[dict[str, float]],
    batch_size: int,
    peak: float,
) -> dict[str, Any]:
    """Turn an implementation's laps into rates.

    Args:
        implementation: What was run.
        laps: Its measurements, one a round.
        batch_size: Images in a batch.
        peak: The device's matrix-product rate in operations per second.

    Returns:
        Images per second, seconds, and shares of the matrix-product rate: by the
        official count of operations, which is the same for all ways to compute a
        model, and by the operations this implementation really does.
    """
    step = Summary.of(lap["step"] for lap in laps)
    rate = batch_size / step.median
    medians = {
        f"{part}_s": Summary.of(lap[part] for lap in laps).median
        for part in (*PARTS, "wall")
    }
    return {
        "images_per_s": rate,
        "step_s": {**step.as_dict(), "spread": step.spread},
        **medians,
        "share_of_matmul": _scaled(implementation.official_flop, rate / peak),
        "computed_share_of_matmul": _scaled(implementation.computed_flop, rate / peak),
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def random_images(
    cfg: Config, ours: Implementation, batch_size: int, device: torch.device
) -> torch.Tensor:
    """Draw a uint8 batch (N, C, H, W) with both smooth and fine structure.

    Args:
        cfg: Config whose image size is taken where the model's is not known.
        ours: The implementation built from it.
        batch_size: Number of images.
        device: Where the images are needed.
    """
    if ours.dims is not None:
        channels, (height, width) = ours.dims.in_channels, ours.dims.img_size
    else:
        size = cfg.model.backbone.get("img_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        channels = 3
    coarse = torch.rand(batch_size, channels, 7, 7) * 255
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    images = smooth + 20 * torch.randn_like(smooth)
    return images.clamp(0, 255).to(torch.uint8).to(device)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the CPU where the system knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def provenance() -> dict[str, Any]:
    """Return versions and commit, so that figures can be traced back."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        commit = done.stdout.strip() or None
    except FileNotFoundError:
        commit = None
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mmengine": mmengine.__version__,
        "mmpretrain": mmpretrain.__version__,
    }
    return {"versions": versions, "commit": commit}
