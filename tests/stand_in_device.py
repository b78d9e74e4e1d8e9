"""One training step of configs at full width, on an accelerator that is only simulated.

    python tests/stand_in_device.py CONFIG [CONFIG ...]

Tensors are torch's fake ones: they have shapes, types and a device, and no values. The
device is torch's stand-in for accelerators that are written in Python, so that a tensor
left on the CPU fails as on a GPU, as does whatever reads a value: `.item()`, boolean
indexing, `if tensor:`. Copies between the two, which fail nowhere, are counted by the
line they come from. Prints a line of JSON for every config. Of detectors and segmentors
only the backbone and what makes its pyramid are run.
"""

from __future__ import annotations

import collections
import json
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample
from samples import clip_state_dict
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.nn.modules.utils import _pair
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import mim_plugins
from mim_plugins.models.classifiers import DistilledClassifier
from mim_plugins.models.targets.clip_weights import CLIPWeights, read_clip
from mim_plugins.models.targets.teacher import FrozenTeacher

PACKAGE = Path(mim_plugins.__file__).parent
DEVICE = "standin:0"
BATCH = 4
# What is read from a file and has no values here.
CLIP = "mim_plugins.models.targets.clip"
TEACHERS = (
    "mim_plugins.models.classifiers.distilled",
    "mim_plugins.models.selfsup.distilled",
    "mim_plugins.models.targets.hybrid",
)


class Backend(backend_registration._DummyBackendModule):
    """An accelerator as torch sees it."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Mode(FakeTensorMode):
    """One that the copy of a tensor shares."""

    def __deepcopy__(self, memo: dict) -> Mode:
        return self


class Building(TorchDispatchMode):
    """Gives values to what networks compute while they are built, and nothing more."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tensors_of(args, kwargs)
        computed = ("arange", "linspace") if not given else ("",)
        if func.__name__.startswith(computed) and not any(map(is_fake, given)):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func is torch.ops.aten.equal.default:
            return True
        return func(*args, **(kwargs or {}))


class Stepping(TorchDispatchMode):
    """Gives tensors of the host values, and notes where host and device meet.

    Attributes:
        lines: Copies from one to the other and numbers read from the device, by the
            line that does it.
    """

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        self.lines: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = tensors_of(args, kwargs)
        on_host = torch.device(kwargs.get("device") or "cpu").type == "cpu"
        if on_host and not any(map(is_fake, given)):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        args, kwargs = tree_map(self.as_fake, (args, kwargs))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.lines[f"number read: {own_line()}"] += 1
            return 1.0
        result = func(*args, **kwargs)
        if "copy" in str(func) and not kwargs.get("non_blocking"):
            kinds = [tensor.device.type for tensor in (*given, result)]
            if len(set(kinds)) > 1:
                way = "to the device" if kinds[-2] == "cpu" else "to the host"
                self.lines[f"{way}: {own_line()}"] += 1
        return result

    def as_fake(self, value: Any) -> Any:
        real = isinstance(value, Tensor) and not is_fake(value)
        return self.mode.from_tensor(value) if real else value


def tensors_of(*arguments: Any) -> list[Tensor]:
    return [value for value in tree_leaves(arguments) if isinstance(value, Tensor)]


def is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor)


def own_line() -> str:
    """The innermost line in the current call that is not torch's."""
    for frame in reversed(traceback.extract_stack()[:-2]):
        parts = Path(frame.filename).parts
        if "torch" not in parts:
            return f"{'/'.join(parts[-2:])}: {frame.line}"
    raise AssertionError


def move(model: nn.Module) -> None:
    """What ``model.to`` does, which fake parameters do not allow."""
    for module in list(model.modules()):
        if isinstance(module, FrozenTeacher):
            move(module.network)
    for module in model.modules():
        for key, value in module._parameters.items():
            if value is not None:
                empty = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                module._parameters[key] = nn.Parameter(empty, value.requires_grad)
        for key, value in module._buffers.items():
            if value is not None:
                empty = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                module._buffers[key] = empty
        if isinstance(module, BaseDataPreprocessor):
            module.to(DEVICE)


def untrained_teacher(
    network: nn.Module, *_: Any, reader: nn.Module | None = None, **__: Any
) -> FrozenTeacher:
    return FrozenTeacher(reader or network)


@cache
def clip() -> CLIPWeights:
    """The layout of OpenAI's ViT-B/16."""
    with unset_fake_temporarily(), tempfile.TemporaryDirectory() as folder:
        state = clip_state_dict(width=768, layers=12, patch=16, size=224)
        path = Path(folder, "clip.pth")
        torch.save({k: torch.zeros(1).expand(v.shape) for k, v in state.items()}, path)
        return read_clip(path)


def build(config: ConfigDict) -> nn.Module:
    patches = [
        mock.patch(f"{name}.load_teacher", untrained_teacher) for name in TEACHERS
    ]
    patches.append(mock.patch(f"{CLIP}.read_clip", lambda *_, **__: clip()))
    for patch in patches:
        patch.start()
    try:
        with Building():
            model: Any = MODELS.build(config)
            if isinstance(model, DistilledClassifier) and model.teacher is None:
                untrained = dict(model._teacher_cfg, pretrained=False)
                model.teacher = FrozenTeacher(MODELS.build(untrained))
    finally:
        for patch in patches:
            patch.stop()
    move(model)
    model.train()  # mmpretrain's return nothing
    return model


def batch(config: ConfigDict) -> dict[str, Any]:
    """A batch of a model, as a loader gives it."""
    height, width = _pair(config.backbone.get("img_size", 224))
    channels = config.backbone.get("in_channels", 3)
    inputs = torch.zeros(BATCH, channels, height, width, dtype=torch.uint8)
    if "Classifier" in config.type:
        samples = [DataSample().set_gt_label(0) for _ in range(BATCH)]
        return dict(inputs=inputs, data_samples=samples)
    numbers = torch.arange(BATCH)
    return dict(inputs=inputs, data_samples=dict(seed=numbers, sample_idx=numbers))


class Dense(nn.Module):
    """What detectors and segmentors begin with."""

    def __init__(self, config: ConfigDict) -> None:
        super().__init__()
        self.backbone = build(config.backbone)
        self.neck = build(config.neck) if config.get("neck") else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return sum(level.float().mean() for level in self.neck(self.backbone(images)))


def step(cfg: Config, mode: Mode) -> dict[str, int]:
    """Runs a step, and says where host and device meet in it."""
    init_default_scope(cfg.get("default_scope", "mmpretrain"))
    dense = cfg.get("default_scope") in ("mmdet", "mmseg")
    model: Any = Dense(cfg.model) if dense else build(cfg.model)
    settings = dict(cfg.optim_wrapper, type="OptimWrapper")
    for key in ("loss_scale", "dtype", "accumulative_counts"):
        settings.pop(key, None)
    wrapper = build_optim_wrapper(model, ConfigDict(settings))
    with Stepping(mode) as stepping:
        with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
            if dense:
                size = _pair(cfg.model.backbone.get("img_size", 512))
                loss = model(torch.empty(2, 3, *size, device=DEVICE))
            else:
                data = model.data_preprocessor(batch(cfg.model), True)
                loss, _ = model.parse_losses(model(**data, mode="loss"))
        assert loss.device == torch.device(DEVICE), loss.device
        wrapper.update_params(loss)
    return dict(stepping.lines)


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend(
        "standin", backend_module=Backend()
    )
    MMLogger.get_instance("stand-in", log_level="ERROR")
    # torch has no rules for mixed precision there: only the mode itself is tried.
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    with Mode(allow_non_fake_inputs=True) as mode:
        for path in sys.argv[1:]:
            result: dict[str, Any] = dict(config=path)
            try:
                result["meetings"] = step(Config.fromfile(path), mode)
            except Exception as error:
                own = [
                    f"{Path(frame.filename).name}:{frame.lineno}"
                    for frame in traceback.extract_tb(error.__traceback__)
                    if PACKAGE in Path(frame.filename).parents
                ]
                if "-v" in sys.argv:
                    traceback.print_exc()
                result["error"] = f"{type(error).__name__}: {error} {own[-3:]}"
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
