"""Processes, devices and installed toolboxes."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from torch import distributed, nn

from .hooks.data_health import encoder_size
from .hooks.periodic import unwrapped

# Toolboxes by the default_scope of their configs.
_TOOLBOXES = {"mmdet": "detection", "mmseg": "segmentation"}

# Multiply-adds of a layer, about 1 ms on one core, for which a further thread pays:
# below, threads wait for each other longer than they compute, and on a busy machine for
# the one that is not running.
_WORK_PER_THREAD = 32e6

# Strategies that shard parameters, as configs call them.
SHARDING = ("FSDPStrategy", "ResumableFSDPStrategy")

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")

# The launchers' environment variables: world size, rank and local rank.
_VARIABLES = {
    "pytorch": ("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "mpi": (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
}


def world_size(launcher: str) -> int:
    """Return how many processes the launcher has started, before they are connected.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.

    Raises:
        ValueError: If this process was not started by that launcher.
    """
    if launcher == "none":
        return 1
    if launcher not in LAUNCHERS:
        raise ValueError(
            f"launcher must be one of {', '.join(LAUNCHERS)}, but got {launcher!r}."
        )
    variable = _VARIABLES[launcher][0]
    if variable not in os.environ:
        raise ValueError(
            f"--launcher {launcher} needs a process that was started by it, but the "
            f"environment variable {variable} is not set; use tools/dist_train.sh "
            "(pytorch) or tools/slurm_train.sh (slurm)."
        )
    return int(os.environ[variable])


def launched_rank(launcher: str) -> int:
    """Return this process's number, before processes are connected; see `world_size`.

    Args:
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
    """
    if launcher == "none":
        return 0
    return int(os.environ.get(_VARIABLES[launcher][1], 0))


def launch_id() -> str | None:
    """What all attempts at one run have in common that are started without a user.

    These are the restarts of one torchrun, and what tools/slurm_train.sh queues again
    (``MIM_PLUGINS_LAUNCH``). None for a process that nothing would start again.
    """
    if given := os.environ.get("MIM_PLUGINS_LAUNCH"):
        return given
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    # Without --rdzv_id all of torchrun's runs have the same id: they differ in the
    # launcher, the parent, whose number may be the same in every container.
    parent = os.getppid()
    started = ""
    with suppress(OSError):
        stat = Path(f"/proc/{parent}/stat").read_text()
        started = stat.rpartition(")")[2].split()[19]
    run = os.environ["TORCHELASTIC_RUN_ID"]
    return f"torchrun {run} {socket.gethostname()} {parent} {started}"


def check_toolbox(scope: str | None) -> None:
    """Check that what a config's ``default_scope`` requires is installed.

    Args:
        scope: ``mmpretrain``, ``mmdet`` or ``mmseg``.

    Raises:
        ValueError: If it is not; it says which command installs it.
    """
    if scope not in _TOOLBOXES:
        return
    task = _TOOLBOXES[scope]
    if find_spec(scope) is None:
        raise ValueError(
            f"This is a {task} config, and {scope}, which it needs, is not installed: "
            "tools/install.sh test installs it."
        )
    if scope != "mmdet":
        return
    try:
        importlib.import_module("mmcv._ext")
    except ImportError as error:
        raise ValueError(
            f"This is a {task} config, which needs mmcv's compiled operators, and they "
            f"cannot be loaded ({error}): tools/install.sh test compiles and installs "
            "them."
        ) from error


def prepare_processes(cfg: Config) -> None:
    """Connect several processes over gloo where there is no GPU.

    With GPUs they are only counted here: mmengine's runner connects them over NCCL.
    Without, mmengine asks for a CUDA device while connecting and while wrapping the
    model, so both are done here.

    Args:
        cfg: The config about to be run, whose ``launcher`` is set; changed in place.

    Raises:
        ValueError: If there is no GPU left for this process.
    """
    launcher = cfg.get("launcher", "none")
    if launcher == "none":
        return
    if torch.cuda.is_available():
        check_gpus(int(os.environ.get(_VARIABLES[launcher][2], 0)))
    if get_device() != "cpu":
        return
    env_cfg = cfg.setdefault("env_cfg", {})
    seconds = (env_cfg.get("dist_cfg") or {}).get("timeout")
    env_cfg["dist_cfg"] = dict(backend="gloo", timeout=seconds)
    connect_over_gloo(launcher, seconds and timedelta(seconds=seconds))
    # A module on the CPU is wrapped without device ids.
    wrapper = dict(cfg.get("model_wrapper_cfg") or {})
    wrapper.setdefault("type", "MMDistributedDataParallel")
    wrapper.setdefault("broadcast_buffers", False)
    wrapper.setdefault(
        "find_unused_parameters", cfg.get("find_unused_parameters", False)
    )
    wrapper["device_ids"] = None
    cfg.model_wrapper_cfg = wrapper
    strategy = cfg.get("strategy") or {}
    if strategy.get("type") in SHARDING:
        _shard_on_cpu(cfg.strategy)
    elif strategy.get("type") == "DDPStrategy":
        strategy.setdefault("model_wrapper", wrapper)


def _shard_on_cpu(strategy: dict[str, Any]) -> None:
    """Let mmengine's fully sharded data parallel train, and save, without a GPU."""
    strategy.setdefault("model_wrapper", {}).setdefault("device_id", "cpu")
    if strategy.get("state_dict_cfg") == "full":
        # "full" copies tensors to the CPU before it frees them on their device; if that
        # is the CPU, the copies are freed, too.
        kept = dict(offload_to_cpu=False, rank0_only=False)
        strategy["state_dict_cfg"] = dict(
            state_dict_type="FULL_STATE_DICT",
            state_dict_config=dict(type="FullStateDictConfig", **kept),
            optim_state_dict_config=dict(type="FullOptimStateDictConfig", **kept),
        )


def connect_over_gloo(launcher: str, timeout: timedelta | None = None) -> int:
    """Connect the processes that a launcher has started, with or without GPUs.

    Args:
        launcher: ``pytorch``, ``slurm`` or ``mpi``.
        timeout: How long processes wait for each other; torch's default if None.

    Returns:
        The local rank of this process.

    Raises:
        ValueError: If this process was not started by that launcher.
    """
    world_size(launcher)
    size, rank, local_rank = _VARIABLES[launcher]
    os.environ.update(
        WORLD_SIZE=os.environ[size],
        RANK=os.environ[rank],
        LOCAL_RANK=os.environ[local_rank],
    )
    if launcher == "slurm" and "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = subprocess.getoutput(
            f"scontrol show hostname {os.environ['SLURM_NODELIST']} | head -n1"
        )
    os.environ.setdefault("MASTER_PORT", "29500")
    if not distributed.is_initialized():
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        distributed.init_process_group("gloo", **options)
    return int(os.environ["LOCAL_RANK"])


def check_gpus(local_rank: int) -> None:
    """Check that there is a GPU for this local rank."""
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise ValueError(
            f"Process {local_rank + 1} on this machine has no GPU of its own: "
            f"{gpus} can be seen. Start at most {gpus} process(es) per machine, or "
            "show more GPUs with CUDA_VISIBLE_DEVICES."
        )


def leave_processes() -> None:
    """Disconnect this process from the others, if it is connected."""
    if distributed.is_available() and distributed.is_initialized():
        if distributed.get_backend() == "gloo":
            # torch 2.1 holds the GIL while it waits for gloo's threads, which may need
            # it to drop the tensors of the last exchange: let them do so before.
            time.sleep(0.1)
        distributed.destroy_process_group()


def has_fast_bfloat16() -> bool:
    """Return whether the GPU has bfloat16 instructions (Ampere and later)."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8


@contextmanager
def suitable_threads(model: Any, batch_size: int | None) -> Iterator[None]:
    """Computes on the CPU with no more threads than pay for a model.

    A number that was set in the environment (``OMP_NUM_THREADS``) stays.

    Args:
        model: The model to train; nothing changes for one that is not built yet.
        batch_size: Images per step and process, if it is known.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    before = torch.get_num_threads()
    work = _work_per_layer(unwrapped(model), batch_size or 0)
    on_cpu = all(x.device.type == "cpu" for x in model.parameters())
    threads = max(1, min(before, int(work / _WORK_PER_THREAD)))
    if not work or not on_cpu or threads == before or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    MMLogger.get_current_instance().info(
        f"threads: {threads} of {before}, since layers of {work / 1e6:.0f} million "
        "multiply-adds on average are too small for more; OMP_NUM_THREADS sets another "
        "number"
    )
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _work_per_layer(model: Any, batch_size: int) -> float:
    """Multiply-adds of a layer on a batch, on average; 0 where they are not known."""
    backbone = getattr(model, "backbone", None)
    patches = getattr(getattr(backbone, "patch_embed", None), "projection", None)
    size = encoder_size(backbone)
    if not isinstance(patches, nn.Conv2d) or size is None:
        return 0.0
    tokens = size[0] * size[1] / (patches.stride[0] * patches.stride[1])
    tokens *= 1 - getattr(getattr(model, "mask_sampler", None), "mask_ratio", 0.0)
    layers = [x.weight.numel() for x in model.modules() if isinstance(x, nn.Linear)]
    return batch_size * tokens * sum(layers) / max(1, len(layers))
