"""Whether an installation is complete and fits together: ``mim-plugins doctor``.

Nothing of the package is imported until its own step, so that what keeps it from being
imported can be named.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"

# Distributions that provide a module: the maintained one, and the classic one.
STACK = {
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmcv": ("onedl-mmcv", "mmcv"),
    "mmpretrain": ("onedl-mmpretrain", "mmpretrain"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
}
NEEDED = ("mmengine", "mmcv", "mmpretrain")
_INSTALL = "pip install 'mim_plugins[onedl]'"

_GIB = 2**30
_LEAST_DISK = 10 * _GIB
_LEAST_SHARED = 1 * _GIB

_STEP = """
import torch
import mim_plugins
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
with DefaultScope.overwrite_default_scope("mmpretrain"):
    model = MODELS.build(dict(
        type="DeepMIM",
        data_preprocessor=dict(mean=[0], std=[1]),
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
        backbone=dict(
            type="MIMVisionTransformer",
            arch=dict(
                embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48
            ),
            img_size=32, patch_size=8, in_channels=1, taps=(0,),
        ),
        neck=dict(type="MIMDecoder", embed_dims=16, depth=1, num_heads=2),
        target_generator=dict(type="PixelTarget"),
        head=dict(type="ReconstructionHead", criterion="L2"),
    ))
device = "cuda" if torch.cuda.is_available() else "cpu"
model.init_weights()
model.to(device)
optimizer = torch.optim.AdamW(model.parameters())
losses = model(torch.rand(4, 1, 32, 32, device=device), mode="loss")
sum(losses.values()).backward()
optimizer.step()
"""


class Finding(NamedTuple):
    """One line of the examination.

    Args:
        name: What was looked at.
        level: ``ok``, ``warning`` or ``problem``.
        text: What was found.
        remedy: The command or change that mends it.
    """

    name: str
    level: str
    text: str
    remedy: str = ""


def examine(folder: Path, step: Callable[[], str]) -> Iterator[Finding]:
    """Looks at everything, one finding after the other.

    Args:
        folder: Where runs would be written.
        step: Trains a tiny model for one step, and says how long that took.
    """
    yield python()
    yield from torch_and_vision()
    yield from stack()
    yield from known_conflicts()
    yield from disk(folder)
    yield shared_memory()
    try:
        yield Finding("one training step", OK, step())
    except Exception as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        yield Finding("one training step", PROBLEM, last, _INSTALL)


def python() -> Finding:
    """Python's version."""
    return Finding("python", OK, f"{platform.python_version()} ({sys.executable})")


def torch_and_vision() -> Iterator[Finding]:
    """torch, the GPU, and torchvision's compiled operators."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        yield Finding("torch", PROBLEM, _reason(error), "pip install torch torchvision")
        return
    number = _numbers(torch.__version__)
    if number < (2, 1):
        remedy = "pip install -U torch torchvision"
        yield Finding("torch", PROBLEM, f"{torch.__version__} is before 2.1", remedy)
    else:
        yield Finding("torch", OK, torch.__version__)
    yield gpu(torch)
    found = _version("torchvision")
    # torch 2.1 goes with torchvision 0.16, and so on.
    partner = f"0.{number[1] + 15}"
    install = f"pip install 'torchvision=={partner}.*'"
    if found is None:
        yield Finding("torchvision", PROBLEM, "is not installed", install)
    elif not found.startswith(f"{partner}."):
        text = f"{found} does not belong to torch {torch.__version__}"
        yield Finding("torchvision", PROBLEM, text, install)
    else:
        yield _operators(torch, found)


def _operators(torch: Any, found: str) -> Finding:
    """Whether torchvision's compiled operators can be loaded."""
    try:
        importlib.import_module("torchvision")
        boxes = torch.zeros(1, 4)
        torch.ops.torchvision.nms(boxes, torch.zeros(1), 0.5)
    except Exception:
        build = torch.__version__.partition("+")[2] or "its build"
        return Finding(
            "torchvision",
            WARNING,
            f"{found} comes without operators for torch {torch.__version__}; training "
            "works, as mim_plugins defines what is missing, torchvision's nms does not",
            f"install the torchvision that was built for {build}",
        )
    return Finding("torchvision", OK, f"{found}, with its operators")


def gpu(torch: Any) -> Finding:
    """The GPUs that torch can use."""
    if torch.cuda.is_available():
        names = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
        return Finding("GPU", OK, f"{len(names)}: {', '.join(sorted(set(names)))}")
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", OK, "none; runs use the CPU")
    if torch.version.cuda is None:
        text = f"there is a driver, but torch {torch.__version__} is built for the CPU"
        return Finding("GPU", PROBLEM, text, "install a torch that is built for CUDA")
    text = f"torch is built for CUDA {torch.version.cuda} and finds no GPU"
    return Finding("GPU", PROBLEM, text, "nvidia-smi (driver and CUDA_VISIBLE_DEVICES)")


def stack() -> Iterator[Finding]:
    """The OpenMMLab packages, and mmcv's compiled operators."""
    for module, names in STACK.items():
        found = {name: _version(name) for name in names}
        there = {name: number for name, number in found.items() if number}
        listed = " and ".join(f"{name} {number}" for name, number in there.items())
        if len(there) > 1:
            text = f"{listed} write the same files"
            remedy = f"pip uninstall -y {' '.join(there)}; {_INSTALL}"
            yield Finding(module, PROBLEM, text, remedy)
        elif there:
            yield Finding(module, OK, listed)
        elif module in NEEDED:
            yield Finding(module, PROBLEM, "is not installed", _INSTALL)
        else:
            task = "detection" if module == "mmdet" else "segmentation"
            extra = "det" if module == "mmdet" else "seg"
            text = f"is not installed; {task} needs it"
            yield Finding(module, OK, text, f"pip install 'mim_plugins[onedl,{extra}]'")
    if not any(map(_version, STACK["mmcv"])):
        return
    try:
        importlib.import_module("mmcv._ext")
    except Exception as error:
        text = f"cannot be loaded, detection needs them ({_reason(error)})"
        remedy = (
            "pip install ninja 'setuptools<81' && pip install --no-build-isolation "
            "--no-binary onedl-mmcv --force-reinstall --no-deps onedl-mmcv"
        )
        yield Finding("mmcv operators", WARNING, text, remedy)
    else:
        yield Finding("mmcv operators", OK, "are compiled")


def known_conflicts() -> Iterator[Finding]:
    """Versions that are known not to fit together."""
    classic = _version("mmengine") is not None
    for name, wrong, why, remedy in (
        (
            "numpy",
            lambda v: classic and v >= (2,),
            "the classic packages were built for numpy 1",
            "pip install 'numpy<2'",
        ),
        (
            "transformers",
            lambda v: v >= (5,),
            "mmpretrain cannot be imported with it",
            "pip install 'transformers<5'",
        ),
        (
            "setuptools",
            lambda v: classic and v >= (70,),
            "mmengine 0.10.7 needs its pkg_resources",
            "pip install 'setuptools<70'",
        ),
        (
            "opencv-python",
            lambda v: v >= (5,),
            "mmcv was written for OpenCV 4",
            "pip install 'opencv-python<5'",
        ),
    ):
        found = _version(name)
        if found is not None and wrong(_numbers(found)):
            yield Finding(name, PROBLEM, f"{found}: {why}", remedy)


def disk(folder: Path) -> Iterator[Finding]:
    """Whether runs can be written, and how much."""
    probe = folder / f".mim-plugins-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        text = f"{folder} cannot be written to: {error.strerror}"
        yield Finding("folder", PROBLEM, text, "change to a folder of yours")
    else:
        yield Finding("folder", OK, f"{folder} can be written to")
    free = shutil.disk_usage(folder).free
    text = f"{free / _GIB:.0f} GiB free"
    if free < _LEAST_DISK:
        remedy = "a ViT-B run keeps checkpoints of 1.3 GB: free some, or --work-dir"
        yield Finding("disk", WARNING, text, remedy)
    else:
        yield Finding("disk", OK, text)


def shared_memory() -> Finding:
    """What loading workers pass images through."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding("shared memory", OK, "this system has no /dev/shm")
    size = shutil.disk_usage(path).total
    text = f"{size / _GIB:.1f} GiB"
    if size < _LEAST_SHARED:
        remedy = "docker run --shm-size=8g …, or train_dataloader.num_workers=0"
        return Finding("shared memory", WARNING, text, remedy)
    return Finding("shared memory", OK, text)


def training_step() -> str:
    """Trains a tiny model for one step in a process of its own.

    Raises:
        RuntimeError: With the last line of what went wrong.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _STEP],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return f"done, imports included, in {time.perf_counter() - start:.0f} s"


def report(findings: Iterator[Finding], as_json: bool) -> int:
    """Prints what was found; returns 1 if there is a problem, else 0."""
    worst, listed = 0, []
    for finding in findings:
        worst = max(worst, finding.level == PROBLEM)
        listed.append(finding._asdict())
        if not as_json:
            mark = {OK: " ", WARNING: "!", PROBLEM: "x"}[finding.level]
            print(f"{mark} {finding.name:<18} {finding.text}", flush=True)
            if finding.remedy and finding.level != OK:
                print(f"  {'':<18} → {finding.remedy}", flush=True)
    if as_json:
        print(json.dumps(listed, indent=1))
    elif worst:
        print("\nLines with x keep runs from working; → says what mends them.")
    return int(worst)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13)."""
    parts = text.split("+")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
