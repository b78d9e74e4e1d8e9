"""A file is whole or not there, and holds no more than its tensors."""

from collections import OrderedDict

import pytest
import torch

from mim_plugins.checkpoints.files import (
    read,
    read_content,
    save_state,
    write_atomically,
)


def test_interrupted_write__leaves_the_old_file(tmp_path):
    path = tmp_path / "x.pth"
    path.write_text("old")

    def broken(file):
        file.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, broken)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_atomically(tmp_path / "none" / "x.pth", broken)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pdparams"])
def test_formats__give_every_tensor_back(tmp_path, suffix):
    state = {
        "a": torch.randn(3, 4).t(),
        "b": torch.arange(3),
        "c": torch.randn(2).half(),
    }
    save_state(state, tmp_path / f"x{suffix}", meta={"heads": 12})
    tensors = read(tmp_path / f"x{suffix}").tensors
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    if suffix != ".pdparams":
        assert read_content(tmp_path / f"x{suffix}")["meta"] == {"heads": 12}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_notes_of_modules__stay_with_their_tensors(tmp_path, suffix):
    """Such as the attention heads, without which a wrong number goes unnoticed."""
    state = OrderedDict(a=torch.ones(2))
    state._metadata = OrderedDict({"backbone": {"version": 1, "num_heads": 12}})
    for name, meta in (("x", {"heads": 12}), ("y", None)):
        save_state(state, tmp_path / f"{name}{suffix}", meta=meta)
        assert read(tmp_path / f"{name}{suffix}").num_heads() == 12


@pytest.mark.parametrize("note", ["text", "[1]", '"x"', '{"a": 1}', "[" * 9999])
def test_notes_of_others__are_no_obstacle(tmp_path, note):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"meta": note, "modules": note})
    assert torch.equal(read(path).tensors["a"], torch.ones(2))


def test_views__are_saved_without_what_they_are_views_of(tmp_path):
    large = torch.zeros(1000, 1000)
    save_state({"row": large[0]}, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 10_000
