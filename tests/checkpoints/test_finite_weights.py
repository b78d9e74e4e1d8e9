"""Weights of a training that went wrong are refused, whoever reads them."""

import pytest
import torch

from mim_plugins.checkpoints.files import Checkpoint, read


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity__are_refused_by_name(tmp_path, value, dtype):
    state = {"a.weight": torch.zeros(3, dtype=dtype), "b.weight": torch.zeros(2, 2)}
    state["a.weight"][1] = value
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: 1 of its 2 tensors .* a\.weight"):
        read(tmp_path / "x.pth")


def test_masks_and_integers__are_no_such_weights():
    mask = torch.full((2, 2), -torch.inf).triu(1)
    state = {"attn_mask": mask, "count": torch.tensor(3), "empty": torch.zeros(0)}
    assert Checkpoint.of(state).tensors.keys() == state.keys()
