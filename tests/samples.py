"""What tests import by name: tiny models, golden cases, sample data.

Not in a conftest.py, of which several folders have one under that same module name.
"""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

TINY_ARCH = dict(embed_dims=24, num_layers=4, num_heads=2, feedforward_channels=48)


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


def golden_folder(case: str) -> Path:
    """A golden case folder, of this repository or of the full set beside it."""
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
