"""Reading files: tensors come out, nothing in the file is ever run."""

import argparse
import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mim_plugins.checkpoints.loading import read_file, read_state_dict


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


class GetAttribute:
    """Reaches for a function by name, as a harmless log of mmengine does."""

    def __reduce__(self):
        return getattr, (argparse.Namespace, "mro")


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", None])
def test_read_state_dict__unwraps_and_leaves_leftovers_out(tmp_path, wrapper):
    log = HistoryBuffer()
    log.update(np.float64(1.5))
    state = {"w": torch.ones(2), "half": torch.zeros(1, dtype=torch.float16)}
    leftovers = dict(
        args=argparse.Namespace(lr=1e-3),
        log=log,
        acc=np.float32(3),
        rng=np.arange(3),
        epoch=7,
    )
    content = {**leftovers, **(state if wrapper is None else {wrapper: state})}
    torch.save(content, tmp_path / "x.pth")
    read = read_state_dict(tmp_path / "x.pth")
    assert read.keys() == state.keys() and read["half"].dtype == torch.float16
    assert read_file(tmp_path / "x.pth")["args"].lr == 1e-3


def test_read_state_dict__safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "x.safetensors")["w"], torch.ones(2))


def test_read_file__runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(2), "evil": Evil()}, "evil.pth")
    with pytest.raises(ValueError, match="system"):
        read_file("evil.pth")
    assert not os.path.exists("was_run")
    # The name of getattr is known, the function behind it is not used.
    torch.save({"w": torch.ones(2), "found": GetAttribute()}, "getattr.pth")
    assert read_file("getattr.pth")["found"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint file"),
        (b"hello", "cannot be read as a checkpoint"),
        ([torch.ones(1)], "holds a list, not a dict"),
        ({"epoch": 3}, r"no tensors, only \['epoch'\]"),
    ],
)
def test_read_state_dict__what_is_no_checkpoint_is_refused(tmp_path, content, message):
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_state_dict(path)
