"""What tests import by name: tiny models, golden cases, sample data.

Not in a conftest.py, of which several folders have one under that same module name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.engine.config.overrides import apply_options
from mim_plugins.engine.config.schedules import leave_out_unreached

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

TINY_ARCH = dict(embed_dims=24, num_layers=4, num_heads=2, feedforward_channels=48)
TINY_HIERA = dict(embed_dims=8, depths=(1, 2, 2, 2), num_heads=1)


def tiny_model(taps: tuple[int, ...] = (1, 2), **overrides: dict) -> dict:
    """Config of a tiny DeepMIM on 32x32 images, patch 8."""
    cfg = dict(
        type="DeepMIM",
        data_preprocessor=dict(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
        ),
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.75),
        backbone=dict(
            type="MIMVisionTransformer",
            arch=dict(TINY_ARCH),
            img_size=32,
            patch_size=8,
            taps=taps,
        ),
        neck=dict(type="MIMDecoder", embed_dims=16, depth=2, num_heads=2),
        target_generator=dict(type="PixelTarget", norm_pix=True),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )
    for part, changes in overrides.items():
        cfg[part] = {**cfg[part], **changes}
    return cfg


@contextmanager
def laid_out_only() -> Iterator[None]:
    """Models built inside have shapes and no values, so that full-size ones are free.

    mmpretrain reads Swin's drop path rates from a tensor, which must then have values.
    """
    with torch.device("meta"):
        on_cpu = partial(torch.linspace, device="cpu")
        with mock.patch.object(torch, "linspace", on_cpu):
            yield


def hiera_model(**backbone: Any) -> dict:
    """Config of a tiny MAE on Hiera on 64x64 images, 2x2 mask units."""
    return dict(
        type="DeepMIM",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.4),
        backbone=dict(type="MIMHiera", arch=dict(TINY_HIERA), img_size=64) | backbone,
        neck=dict(type="FusionDecoder", embed_dims=8, depth=1, num_heads=2),
        target_generator=dict(type="PixelTarget", cell_size=16),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )


def golden_folder(case: str) -> Path:
    """A golden case folder, of this repository or of the full set next to it."""
    for base in (ROOT / "tests" / "goldens", SHARED / "goldens"):
        if (base / case).exists():
            return base / case
    pytest.skip(f"golden case {case} is not in this checkout (full set absent)")


def data_folder(name: str) -> Path:
    """A folder of real sample data, which is not part of this repository."""
    folder = Path(os.environ.get("MIM_DATA", SHARED / "data")) / name
    if not folder.exists():
        pytest.skip(f"sample data {name} is absent: set MIM_DATA to its parent folder")
    return folder


def clip_state_dict(
    width: int = 64, layers: int = 1, patch: int = 16, size: int = 224, out: int = 512
) -> dict[str, Tensor]:
    """Random weights of a CLIP image tower, under OpenAI's keys without ``visual.``."""
    block = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": ((size // patch) ** 2 + 1, width),
        "proj": (width, out),
        "conv1.weight": (width, 3, patch, patch),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
        "ln_post.weight": (width,),
        "ln_post.bias": (width,),
    }
    for layer in range(layers):
        for name, shape in block.items():
            shapes[f"transformer.resblocks.{layer}.{name}"] = shape
    return {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def stand_in_teachers(cfg: dict, folder: Path) -> None:
    """Gives the teachers of a model's config files that fit; nobody has the real ones.

    Tensors are one zero, expanded, so that a full-size file has a few kilobytes.
    """
    path = folder / "teacher.pth"
    target, teacher = cfg.get("target_generator", {}), cfg.get("teacher", {})
    if "type" in target and target["type"] == "CLIPTarget":
        torch.save(clip_state_dict(), path)
        target["checkpoint"] = str(path)
    elif "type" in target and target["type"] == "HybridTarget":
        torch.save(zero_weights(target["teacher"]), path)
        target["checkpoint"] = str(path)
    if teacher:
        prefix = "backbone."
        if "pretrained" in teacher:
            teacher["pretrained"], prefix = False, ""
        torch.save(zero_weights(teacher, prefix), path)
        cfg["teacher_checkpoint"] = str(path)


def zero_weights(model: dict, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of a model, of one zero."""
    with laid_out_only():
        state = MODELS.build(model).state_dict()
    return {prefix + k: torch.zeros(()).expand(v.shape) for k, v in state.items()}


def ade20k_layout(
    folder: Path, labels: int = 150, size: tuple[int, int] = (48, 80), count: int = 2
) -> None:
    """Writes a data set of noise in the layout of ADE20K: 0 is none of the classes."""
    draw = np.random.default_rng(0)
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(count):
            image = draw.integers(0, 255, (*size, 3), dtype=np.uint8)
            blocks = draw.integers(0, labels + 1, (size[0] // 8, size[1] // 8))
            label = np.kron(blocks, np.ones((8, 8))).astype(np.uint8)
            name = f"{part}/{index}"
            mmcv.imwrite(image, str(folder / "images" / f"{name}.jpg"))
            mmcv.imwrite(label, str(folder / "annotations" / f"{name}.png"))


def small_segmentor(cfg: Config, data_root: Path, work_dir: Path) -> None:
    """Makes of a segmentation config one that trains an iteration in a second.

    The parts stay what they are; widths, depth, crops and the data set shrink.
    """
    model = cfg.model.get("module", cfg.model)
    backbone, crop = model.backbone, (64, 64)
    backbone.init_cfg = None
    if "Swin" in backbone.type:
        backbone.arch = dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2])
        backbone.img_size, widths = 64, [8, 16, 32, 64]
    elif "Hiera" in backbone.type:
        backbone.arch, backbone.img_size = dict(TINY_HIERA), 64
        widths = [8, 16, 32, 64]
    else:
        backbone.arch = dict(TINY_ARCH)
        backbone.img_size, backbone.out_indices = 64, (0, 1, 2, 3)
        widths = [24] * 4
    if model.get("neck"):
        pyramid = model.neck.type == "FPN"
        model.neck.in_channels = widths if pyramid else widths[0]
        if "out_channels" in model.neck:
            model.neck.out_channels, widths = 8, [8] * 4
    model.decode_head.update(in_channels=widths, channels=8)
    if "auxiliary_head" in model:
        model.auxiliary_head.update(in_channels=widths[2], channels=8)
    model.data_preprocessor.size = crop
    if model.test_cfg.mode == "slide":
        model.data_preprocessor.test_cfg = dict(size=crop)
        model.test_cfg.update(crop_size=crop, stride=(43, 43))
    apply_options(cfg, dict(data_root=str(data_root)))
    _shrink_scales(cfg._cfg_dict, crop)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.indices = 2 if part == "train" else 1
    cfg.train_cfg.update(max_iters=1, val_interval=10)
    leave_out_unreached(cfg)
    cfg.work_dir = str(work_dir)


def _shrink_scales(node: Any, crop: tuple[int, int]) -> None:
    """Shrinks what pipelines resize to, and crop, wherever it stands."""
    if isinstance(node, dict):
        if node.get("type") == "RandomCrop":
            node["crop_size"] = crop
        elif node.get("type") in ("Resize", "RandomResize"):
            long, short = node["scale"]
            node["scale"] = (long // 8, short // 8) if long > 256 else (96, 64)
        for child in node.values():
            _shrink_scales(child, crop)
    elif isinstance(node, list | tuple):
        for child in node:
            _shrink_scales(child, crop)
