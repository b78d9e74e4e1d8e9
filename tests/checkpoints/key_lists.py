"""Random tensors of the shapes of official checkpoints, full size."""

import json
from pathlib import Path

import pytest
import torch
from samples import ROOT, SHARED

from mim_plugins.checkpoints.layouts.swin import shift_masks

# Of no encoder of ours: CLIP's has no way back, the tracker is no encoder.
LEFT_OUT = ("teacher_clip_vit_b16_visual", "ostrack_vit_tiny_256_ce")


def key_lists() -> list[str]:
    """All lists of official keys at hand, as `paper/name`."""
    found = {
        f"{path.parent.parent.name}/{path.stem}": path
        for base in (ROOT / "tests" / "goldens", SHARED / "goldens")
        for path in base.glob("*/keys/*.json")
    }
    return sorted(
        name
        for name, path in found.items()
        if "tensors" in json.loads(path.read_text()) and path.stem not in LEFT_OUT
    )


def list_of(name: str) -> Path:
    paper, stem = name.split("/")
    for base in (ROOT / "tests" / "goldens", SHARED / "goldens"):
        path = base / paper / "keys" / f"{stem}.json"
        if path.exists():
            return path
    pytest.skip(f"the key list {name} is not in this checkout (full set absent)")


def random_state(name: str) -> dict[str, torch.Tensor]:
    """Random bytes, so that a full-size checkpoint is made in no time.

    What follows from the architecture (position indices, masks of shifted windows) is
    what official code computes, or zero.
    """
    shapes = json.loads(list_of(name).read_text())["tensors"]
    state = {}
    for key, shape in shapes.items():
        if key.endswith(("_index", "attn_mask")):
            state[key] = torch.zeros(shape)
        else:
            state[key] = torch.randint(-128, 128, shape, dtype=torch.int8)
    for prefix in ("", "encoder.", "model.encoder."):
        masks = shift_masks(state, 56, prefix)
        state |= {key: mask for key, mask in masks.items() if key in state}
    return state
