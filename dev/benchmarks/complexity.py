"""Parameters and multiply-adds of a config's model, as its metafile gives them.

Models are laid out on the meta device: nothing is computed and no weight exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.backends.cuda import sdp_kernel
from torch.utils.flop_counter import FlopCounterMode

# What the second stage of a detector is counted on.
PROPOSALS, MASKS = 1000, 100

# Detectors on Swin take images of any size: the usual shorter side.
SWIN_SIDE = 800


def complexity(model: BaseModel, cfg: Config) -> tuple[int, int]:
    """Numbers of parameters and of multiply-adds.

    Parameters are those of all that a checkpoint of the model holds, decoders of
    pre-training included, teachers not. Multiply-adds are those of matrix products and
    convolutions in a forward pass of one complete image: of the encoder for
    pre-training (as mmpretrain's metafiles have it), of everything that a test runs
    otherwise; a detector has 1,000 proposals and 100 masks.

    Args:
        model: The config's model, built inside :func:`laid_out_only`.
        cfg: A config of pre-training, classification, detection, segmentation or
            tracking.

    Returns:
        Parameters, multiply-adds.
    """
    encoder = cfg.model.get("module", cfg.model).backbone
    side = encoder.img_size
    if cfg.default_scope == "mmdet" and "Swin" in encoder.type:
        side = SWIN_SIDE  # its img_size is that of pre-training
    model = getattr(model, "module", model)
    counter = FlopCounterMode(display=False)
    with laid_out_only(), counter, torch.no_grad(), explicit_attention():
        run(model, torch.empty(1, encoder.get("in_channels", 3), side, side))
    parameters = sum(
        p.numel()
        for name, p in model.named_parameters()
        if not name.startswith(("teacher.", "target_generator."))
    )
    return parameters, counter.get_total_flops() // 2


def run(model: Any, image: Tensor) -> None:
    """What is counted of a model, on one image (1, C, H, W)."""
    if hasattr(model, "roi_head"):
        maps = model.extract_feat(image)
        model.rpn_head(maps)
        heads = model.roi_head.bbox_head
        for head in _each(heads):
            head(torch.empty(PROPOSALS, head.in_channels, 7, 7))
        masks = model.roi_head.mask_head
        for head in _each(masks):
            head(torch.empty(MASKS, head.in_channels, 14, 14))
    elif hasattr(model, "decode_head"):
        model.decode_head(model.extract_feat(image))
    elif hasattr(model.backbone, "template_size"):
        sizes = (model.backbone.template_size, model.backbone.search_size)
        template, search = (torch.empty(*image.shape[:2], x, x) for x in sizes)
        model(dict(template=template, search=search), mode="tensor")
    elif hasattr(model, "target_generator"):
        model.backbone(image)
    else:
        model(image, mode="tensor")


def _each(heads: Any) -> list[Any]:
    """Heads of the stages of a cascade, or the one there is."""
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


@contextmanager
def laid_out_only() -> Iterator[None]:
    """Models and tensors made inside have shapes and no values.

    Swin's drop path rates are read from a tensor, which must then have values.
    """
    with torch.device("meta"):
        on_cpu = partial(torch.linspace, device="cpu")
        with mock.patch.object(torch, "linspace", on_cpu):
            yield


@contextmanager
def explicit_attention() -> Iterator[None]:
    """Attention as two matrix products, which the counter sees."""
    with sdp_kernel(enable_flash=False, enable_math=True, enable_mem_efficient=False):
        yield
