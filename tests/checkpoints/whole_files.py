"""Checkpoints of every format, as they should be, to be damaged by tests."""

from __future__ import annotations

import argparse
import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

OLD = dict(_use_new_zipfile_serialization=False)


def tensors() -> dict[str, torch.Tensor]:
    """A Vision Transformer of one layer, in timm's layout."""
    draw = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 5, 8),
        "patch_embed.proj.weight": (8, 3, 2, 2),
        "patch_embed.proj.bias": (8,),
        "norm.weight": (8,),
        "norm.bias": (8,),
    }
    for name, shape in {
        "norm1": (8,), "attn.qkv": (24, 8), "attn.proj": (8, 8), "norm2": (8,),
        "mlp.fc1": (16, 8), "mlp.fc2": (8, 16),
    }.items():  # fmt: skip
        shapes[f"blocks.0.{name}.weight"] = shape
        shapes[f"blocks.0.{name}.bias"] = shape[:1]
    return {k: torch.randn(shape, generator=draw) for k, shape in shapes.items()}


class _Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def whole_files() -> dict[str, bytes]:
    """Files that are as they should be, by name."""
    from safetensors.torch import save

    state = tensors()
    log = HistoryBuffer()
    log.update(1.5)
    leftovers = {
        "model": OrderedDict(state),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": 3}}},
        "args": argparse.Namespace(lr=1e-3, seed=np.int64(3), betas=(0.9, 0.95)),
        "message_hub": {"loss": log},
    }
    arrays = {key: value.numpy() for key, value in state.items()}
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(_Module()), script)
    return {
        "weights.pth": saved(state),
        "training.pth": saved(leftovers),
        "old.pth": saved(state, **OLD),
        "old_training.pth": saved(leftovers, **OLD),
        "script.pt": script.getvalue(),
        "x.safetensors": save(state, {"format": "pt", "meta": '{"a": 1}'}),
        "x.pdparams": pickle.dumps(arrays, 4),
        "x.pd": pickle.dumps({"model": arrays, "epoch": 3}, 2),
    }


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()
