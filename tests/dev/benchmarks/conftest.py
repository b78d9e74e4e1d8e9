from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TINY = """
_base_ = ["{root}/configs/deepmim/mae_vitb_300e.py"]
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=32,
            num_layers=3,
            num_heads=4,
            feedforward_channels=64,
        ),
        img_size=32,
        patch_size=8,
        taps=(0,),
    ),
    neck=dict(embed_dims=16, depth=2, num_heads=2, mlp_ratio=2.0),
)
"""


@pytest.fixture
def tiny_config(tmp_path):
    """A config of this repository with a model that takes milliseconds."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY.format(root=ROOT.as_posix()))
    return path
