"""Reading files: tensors come out, nothing in the file is ever run."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mim_plugins.checkpoints.files import read, read_content


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
    found = read(tmp_path / "x.pth").tensors
    assert found.keys() == state.keys() and found["half"].dtype == torch.float16
    assert read_content(tmp_path / "x.pth")["args"].lr == 1e-3


def test_read_state_dict__safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read(tmp_path / "x.safetensors").tensors["w"], torch.ones(2))


def test_read_file__runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.ones(2), "evil": Evil()}, "evil.pth")
    with pytest.raises(ValueError, match="system"):
        read_content("evil.pth")
    assert not os.path.exists("was_run")
    # The name of getattr is known, the function behind it is not used.
    torch.save({"w": torch.ones(2), "found": GetAttribute()}, "getattr.pth")
    assert read_content("getattr.pth")["found"] is None


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
        read(path)


OLD = dict(_use_new_zipfile_serialization=False)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def save_as_before_1_6(content, path):
    torch.save(content, path, **OLD)


@pytest.mark.parametrize("save", [torch.save, save_pickle, save_as_before_1_6])
def test_read_file__no_format_runs_code(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    save({"evil": Evil(), "w": torch.ones(2)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"refers to (posix|nt)\.system.*TRUST"):
        read_content("evil.pth")
    assert not os.path.exists("was_run")


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "before 1.6"])
def test_read_file__leftovers_come_back_as_they_were(tmp_path, options):
    log = HistoryBuffer()
    log.update(1.5)
    order = np.arange(6, dtype=">f4").reshape(2, 3).copy(order="F")
    content = {
        "w": torch.nn.Parameter(torch.ones(2)),
        "bf16": torch.ones(3, dtype=torch.bfloat16)[1:],
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "log": {"loss": log},
        "args": argparse.Namespace(lr=1e-3, dims=np.arange(3)),
        "milestones": collections.Counter({3: 1}),
        "rng": ("MT19937", np.arange(3, dtype=np.uint32), {"order": [order]}),
        "scalar": np.float64(0.5),
        "empty": np.zeros((0, 2), dtype=bool),
        "path": pathlib.PurePosixPath("work/x"),
        "bytes": b"\xff\x00",
        "set": {1, 2},
    }
    torch.save(content, tmp_path / "x.pth", **options)
    found = read_content(tmp_path / "x.pth")
    assert found.keys() == content.keys()
    for name in ("w", "bf16"):
        assert found[name].dtype == content[name].dtype
        assert torch.equal(found[name], content[name])
    for name in ("size", "dtype", "milestones", "scalar", "bytes", "set"):
        assert found[name] == content[name] and type(found[name]) is type(content[name])
    assert type(found["log"]["loss"]) is HistoryBuffer
    found["log"]["loss"].update(2.5)
    assert found["log"]["loss"].statistics("mean") == 2
    assert type(found["args"]) is argparse.Namespace and found["args"].dims[2] == 2
    assert found["rng"][1].dtype == np.uint32
    assert np.array_equal(found["rng"][2]["order"][0], order)
    assert found["empty"].shape == (0, 2) and found["path"] == "work/x"


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def tampered(path, pickled):
    """An archive of torch.save's with another pickle in it."""
    saved = io.BytesIO()
    torch.save({"w": torch.ones(2)}, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            own = name.endswith("/data.pkl")
            target.writestr(name, pickled if own else source.read(name))
    return path


@pytest.mark.parametrize(
    ("name", "owner", "attribute"),
    [
        ("argparse\nNamespace", argparse.Namespace, "__call__"),
        ("torch\nTensor", torch.Tensor, "view"),
        ("torch\nstorage", torch.storage, "_load_from_bytes"),
        ("torch._utils\n_rebuild_tensor_v2", torch._utils._rebuild_tensor_v2, "x"),
        (
            "mmengine.logging.history_buffer\nHistoryBuffer",
            HistoryBuffer,
            "update",
        ),
        ("collections\nCounter", collections.Counter, "update"),
    ],
)
@pytest.mark.parametrize("slots", [False, True])
def test_read_file__a_pickle_changes_nothing_here(
    tmp_path, name, owner, attribute, slots
):
    """BUILD sets attributes of what it is given, be it a class or a module."""
    before = owner.__dict__.get(attribute)
    state = b"}" + text(attribute) + b"ccollections\nOrderedDict\ns"
    state = b"N" + state + b"\x86" if slots else state
    pickled = b"\x80\x02}" + text("k") + b"c" + name.encode() + b"\n" + state + b"bs."
    with pytest.raises(ValueError, match="cannot be read|is refused"):
        read_content(tampered(tmp_path / "x.pth", pickled))
    assert owner.__dict__.get(attribute) is before


class Calls:
    """Pickles as a call, with a state for what it gives."""

    def __init__(self, function, args, state):
        self.reduced = function, args, state

    def __reduce__(self):
        return self.reduced


def array(dtype, shape, raw):
    reconstruct = np.empty(0).__reduce__()[0]
    return Calls(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


ADDRESS = b"A" * 8  # nothing lies there

HOSTILE_ARRAYS = {
    "an object at an address": array(
        Calls(
            np.dtype,
            ("V8", False, True),
            (3, "|", None, ("f0",), {"f0": (np.dtype("O"), 0)}, 8, 1, 0),
        ),
        (1,),
        ADDRESS,
    ),
    "a number that becomes an object": array(
        Calls(
            np.dtype,
            ("f8", False, True),
            (3, "|", None, ("f0",), {"f0": (np.dtype("O"), 0)}, 8, 1, 0),
        ),
        (1,),
        ADDRESS,
    ),
    "larger than its bytes": array(np.dtype("f8"), (1 << 40,), ADDRESS),
    "a negative size": array(np.dtype("f8"), (-1, -1), ADDRESS),
}


@pytest.mark.parametrize("content", HOSTILE_ARRAYS.values(), ids=HOSTILE_ARRAYS.keys())
@pytest.mark.parametrize("suffix", [".pth", ".pdparams"])
def test_read_file__hostile_arrays_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"x{suffix}"
    pickled = pickle.dumps({"x": content}, protocol=2)
    if suffix == ".pth":
        tampered(path, pickled)
    else:
        path.write_bytes(pickled)
    with pytest.raises(ValueError, match="array"):
        read_content(path)


@pytest.mark.parametrize("suffix", [".pth", ".pdparams"])
def test_read_file__an_array_is_filled_once(tmp_path, suffix):
    """Filled anew, it would free memory that a view of it still reads."""
    pickled = pickle.dumps({"x": np.arange(4.0)}, protocol=2)
    assert pickled.endswith(b"bs.")
    reuse = pickled[:-2] + b"N\x85bs."  # another state for the same array
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        tampered(path, reuse)
    else:
        path.write_bytes(reuse)
    with pytest.raises(ValueError, match="fills a numpy.ndarray twice"):
        read_content(path)


def test_read_file__a_damaged_or_misnamed_safetensors_file(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth .*name it .safetensors"):
        read_content(tmp_path / "x.pth")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((tmp_path / "x.pth").read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged.safetensors cannot be read as safe"):
        read_content(damaged)
    torch.save({"w": torch.ones(2)}, tmp_path / "torch.safetensors")
    with pytest.raises(ValueError, match="file of torch or a pickle: name it .pth"):
        read_content(tmp_path / "torch.safetensors")


def test_read_file__torch_s_advice_to_trust_is_not_passed_on(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"hello")
    with pytest.raises(ValueError, match="cannot be read") as info:
        read_content(tmp_path / "x.pth")
    assert "weights_only" not in str(info.value)


def test_read_file__tar_archives_are_refused(tmp_path):
    """torch's oldest format, which it unpacks to the disk."""
    with tarfile.open(tmp_path / "x.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(ValueError, match="is a tar archive"):
        read_content(tmp_path / "x.pth")


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3)])
        self.register_buffer("count", torch.ones(2, dtype=torch.int64))
        self.scale = torch.full((2,), 3.0)  # in no state dict
        self.sizes = [1, 2]

    def forward(self, x):
        return self.layers[0](self.norm(x)) + self.scale[0] + self.sizes[0]


class ScriptedWithCode(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        torch.from_file("was_run", True, 1).fill_(7.0)
        self.weight = state[0]
        self.training = state[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("traced", [False, True])
def test_read_state_dict__torchscript_gives_what_torch_reads(tmp_path, traced):
    model, path = Scripted().eval(), str(tmp_path / "x.pt")
    if traced:
        torch.jit.trace(model, torch.ones(2, 3)).half().save(path)
    else:
        torch.jit.script(model).save(path)
    wanted = torch.jit.load(path).state_dict()
    found = read(path).tensors
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
        assert not found[name].requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_read_file__torchscript_runs_no_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(ScriptedWithCode()).save("x.pt")
    with pytest.raises(ValueError, match="restored by code.*nothing of it was run"):
        read_content("x.pt")
    assert not os.path.exists("was_run")
