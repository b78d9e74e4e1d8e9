"""The command line: what would be lost, or has no effect, is refused first."""

import runpy

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import ROOT, golden_folder, tiny_model

from mim_plugins.checkpoints.files import read


@pytest.fixture
def tool(capsys):
    """Runs the tool in this process; returns what it printed."""
    main = runpy.run_path(str(ROOT / "tools" / "convert_checkpoint.py"))["main"]

    def run(*args):
        main([str(arg) for arg in args])
        return capsys.readouterr().out

    return run


@pytest.fixture
def own(tmp_path):
    """A checkpoint of ours."""
    state = MODELS.build(tiny_model()).state_dict()
    torch.save({"state_dict": state}, tmp_path / "own.pth")
    return tmp_path / "own.pth"


@pytest.fixture
def swin(tmp_path):
    """An official Swin classifier."""
    folder = golden_folder("localmim/finetune_swin")
    torch.save({"model": load_file(folder / "weights.safetensors")}, tmp_path / "s.pth")
    return tmp_path / "s.pth"


def test_source__is_never_replaced(own, tmp_path, tool):
    before = own.read_bytes()
    (tmp_path / "link.pth").symlink_to(own)
    for dst in (own, tmp_path / "." / "own.pth", tmp_path / "link.pth"):
        with pytest.raises(SystemExit, match="is the file to read, too"):
            tool(own, dst, "--to", "timm", "--force")
    tool(own, tmp_path / "hf", "--to", "hf")
    with pytest.raises(SystemExit, match="is the file to read, too"):
        tool(*(tmp_path / "hf" / "model.safetensors", tmp_path / "hf"), "--to", "hf")
    assert own.read_bytes() == before


@pytest.mark.parametrize(("to", "made"), [("timm", ""), ("hf", "config.json")])
def test_what_is_there__is_replaced_only_by_force(own, tmp_path, tool, to, made):
    dst = tmp_path / "dst"
    tool(own, dst, "--to", to)
    (dst / made).write_text("mine")
    with pytest.raises(SystemExit, match="is there already.*--force"):
        tool(own, dst, "--to", to)
    assert (dst / made).read_text() == "mine"
    tool(own, dst, "--to", to, "--force")
    assert (dst / made).read_bytes() != b"mine"


def test_kind_of_destination__is_told_before_anything_is_read(tmp_path, tool):
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for dst, to, message in (
        ("folder", "timm", "is a folder: give the name of the file"),
        ("file", "hf", "is a file: --to hf writes a folder"),
        ("none/y.pth", "timm", "there is no folder"),
    ):
        with pytest.raises(SystemExit, match=message):
            tool(tmp_path / "damaged.pth", tmp_path / dst, "--to", to)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-size", 0], "--window-size is at least 1, got 0"),
        (["--window-size=-3"], "--window-size is at least 1, got -3"),
        (["--num-heads", 0], "--num-heads is at least 1, got 0"),
        (["--num-heads=-12", "--to", "hf"], "--num-heads is at least 1, got -12"),
        (["--old-size", 16, 64], "--old-size .* no effect without"),
        (["--antialias"], "--antialias .* no effect without --img-size"),
        (["--merge-order", "official_transfer"], "LocalMIM's official pre-trained"),
    ],
)
def test_options_without_effect__are_refused(own, tmp_path, tool, options, message):
    with pytest.raises(SystemExit, match=message):
        tool(own, tmp_path / "y.pth", *options)
    assert not (tmp_path / "y.pth").exists()


def test_image_size__reaches_official_positions(own, tmp_path, tool):
    out = tool(own, tmp_path / "y.pth", "--to", "official", "--img-size", 64)
    assert "16 positions to 8x8" in out
    assert read(tmp_path / "y.pth").tensors["pos_embed"].shape[1] == 65


def test_image_size__of_official_swin_files_is_one_side(swin, tmp_path, tool):
    tool(swin, tmp_path / "ours.pth", "--from", "localmim")
    to = (tmp_path / "ours.pth", tmp_path / "y.pth", "--to", "official", "--img-size")
    with pytest.raises(SystemExit, match="masks of square images.*not 64 96"):
        tool(*to, 64, 96)
    with pytest.raises(SystemExit, match="--img-size 112: .* into its windows"):
        tool(*to, 112)
    tool(*to, 128)
    masks = {k: len(x) for k, x in read(to[1]).tensors.items() if "attn_mask" in k}
    # As many windows as there are in the maps of 32, 16 and 8 tokens a side.
    assert set(masks.values()) == {64, 16, 4}


def test_account__has_what_was_left_out_and_resized_on_the_way(own, tmp_path, tool):
    size = ("--img-size", 64, "--encoder-only")
    out = tool(own, tmp_path / "y.pth", "--to", "timm", *size)
    assert "the encoder alone is asked for" in out
    assert "16 positions to 8x8" in out
    total = len(read(own).tensors)
    assert f", {total} tensors" in out
