"""What was changed on the disk is never loaded."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mim_plugins.checkpoints.files import read_content, save_state, write_atomically
from mim_plugins.checkpoints.files.reading import read_meta, verify
from mim_plugins.checkpoints.files.sealing import save_sealed

CONTENT = {
    "meta": {"epoch": 3, "iter": 12},
    "state_dict": {f"layer{i}.weight": torch.randn(7, i + 1) for i in range(4)},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_sealed(CONTENT, tmp_path / "epoch_3.pth")
    return tmp_path / "epoch_3.pth"


def test_sealed_file__is_one_of_torch(checkpoint: Path) -> None:
    verify(checkpoint)
    assert read_meta(checkpoint) == CONTENT["meta"]
    for content in (
        torch.load(checkpoint, weights_only=True),
        read_content(checkpoint),
    ):
        for key, value in CONTENT["state_dict"].items():
            assert torch.equal(content["state_dict"][key], value)


def test_any_flipped_bit__is_noticed(checkpoint: Path) -> None:
    """Between the tensors, in the archive's directory and in the checksum itself."""
    original = checkpoint.read_bytes()
    step = max(1, len(original) // 150)
    places = [*range(0, len(original), step), *range(len(original) - 50, len(original))]
    for place in places:
        changed = bytearray(original)
        changed[place] ^= 1 << place % 8
        checkpoint.write_bytes(changed)
        for reader in (verify, read_content):
            with pytest.raises(ValueError, match=r"epoch_3\.pth"):
                reader(checkpoint)


def test_files_that_were_cut_or_half_overwritten__are_noticed(checkpoint: Path) -> None:
    original = checkpoint.read_bytes()
    draw = random.Random(0)
    for _ in range(100):
        checkpoint.write_bytes(original[: draw.randrange(len(original))])
        with pytest.raises(ValueError, match=r"epoch_3\.pth"):
            verify(checkpoint)
    save_sealed({**CONTENT, "meta": {"epoch": 4, "iter": 16}}, checkpoint)
    other = checkpoint.read_bytes()
    for _ in range(20):
        half = draw.randrange(len(original) // 4, len(original) * 3 // 4)
        new = draw.choice([other[:half], bytes(half), draw.randbytes(half)])
        checkpoint.write_bytes(new + original[half:])
        with pytest.raises(ValueError, match=r"epoch_3\.pth"):
            verify(checkpoint)


def test_older_files_of_torch__are_checked_by_their_archive(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"state_dict": {"a": torch.arange(1000)}}, path)
    verify(path)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 4
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="does not match its checksum"):
        verify(path)


def test_leftovers__of_a_killed_process_are_removed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mim_plugins.checkpoints.files import write_atomically\n"
        "def write(path):\n"
        "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(sys.argv[1], write)"
    )
    path = tmp_path / "x.pth"
    subprocess.run([sys.executable, "-c", script, str(path)])
    assert [file.suffix for file in tmp_path.iterdir()] == [".pth"]
    assert not path.exists()
    write_atomically(path, lambda file: file.write_text("complete"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["pipe", "link", "dead link", "folder"])
def test_what_is_no_regular_file__is_never_replaced(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "x.pth", tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_text("kept")
    before = path.lstat().st_ino
    with pytest.raises(ValueError, match=rf"x\.pth is a.*{kind.split()[-1]}"):
        save_state({"a": torch.ones(1)}, path)
    assert path.lstat().st_ino == before


def test_full_disk__is_named_with_the_file(tmp_path: Path) -> None:
    """Libraries that write in C++ do not say why they failed."""

    def write(path: Path) -> None:
        with open("/dev/full", "wb") as full:
            torch.save({"a": torch.zeros(1 << 20)}, full)

    with pytest.raises(OSError, match=r"x\.pth cannot be written: No space left"):
        write_atomically(tmp_path / "x.pth", write)
    assert not list(tmp_path.iterdir())
