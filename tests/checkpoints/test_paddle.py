"""PaddlePaddle's files: read without PaddlePaddle, exactly, and never executed."""

import io
import os
import pickle
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from samples import golden_folder

from mim_plugins.checkpoints.files.paddle import read_paddle_state_dict
from mim_plugins.checkpoints.layouts.mirl import transpose_linears

TINY_FILES = [
    "mirl_tiny_paddle26.pdparams",
    "mirl_tiny_paddle26_protocol2.pdparams",
    "mirl_tiny_paddle33.pdparams",
    "mirl_tiny_paddle26_checkpoint-799.pd",
    "mirl_tiny_paddle33_checkpoint-799.pd",
]


def expected(name):
    with np.load(golden_folder("mirl/pdparams") / f"{name}.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def assert_same(state, wanted):
    assert set(state) == set(wanted)
    for key, value in wanted.items():
        assert state[key].shape == value.shape, key
        assert torch.equal(state[key].to(value.dtype), value), key


@pytest.mark.parametrize("file", TINY_FILES)
def test_read__every_version_protocol_and_nesting(file):
    state = read_paddle_state_dict(golden_folder("mirl/pdparams") / file)
    assert_same(state, expected("mirl_tiny_expected_paddle_layout"))
    torch_layout = transpose_linears(state)
    assert_same(torch_layout, expected("mirl_tiny_expected_torch_layout"))
    assert_same(transpose_linears(torch_layout), state)


@pytest.mark.parametrize("writer", ["dtypes_paddle26", "dtypes_paddle33"])
def test_read__every_dtype(writer):
    state = read_paddle_state_dict(
        golden_folder("mirl/pdparams") / f"{writer}.pdparams"
    )
    assert {key: value.dtype for key, value in state.items()} == {
        "f16": torch.float16,
        "i64": torch.int64,
        "b": torch.bool,
        "f64": torch.float64,
        "bf16": torch.bfloat16,
    }
    assert_same(state, expected(f"{writer}_expected"))


def write(tmp_path, content, protocol=4):
    path = tmp_path / "checkpoint.pdparams"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_read__big_arrays_are_put_together(tmp_path, protocol):
    big = np.arange(24, dtype=np.float32)
    content = {
        "small": np.ones(2, dtype=">f8"),
        "big@@.0": big[:10],
        "big@@.1": big[10:20],
        "big@@.2": big[20:],
        "UnpackBigParamInfor@@": {
            "big": {
                "OriginShape": (2, 3, 4),
                "slices": ["big@@.0", "big@@.1", "big@@.2"],
            }
        },
        "StructuredToParameterName@@": {"small": "linear_0.w_0"},
    }
    state = read_paddle_state_dict(write(tmp_path, content, protocol))
    wanted = {"small": torch.ones(2).double(), "big": torch.arange(24.0).view(2, 3, 4)}
    assert_same(state, wanted)


def test_read__a_trainer_s_dict_with_numbers_and_arguments(tmp_path):
    content = {
        "model": OrderedDict(w=("linear_0.w_0", np.eye(2, dtype=np.float32))),
        "optimizer": {"lr": np.float64(0.1)},
        "epoch": 799,
        "args": Namespace(model="mirl_vit_small_54", lr=None),
    }
    assert_same(read_paddle_state_dict(write(tmp_path, content)), {"w": torch.eye(2)})


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, __import__, os.mkdir, io.open, np.load, print],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read__a_pickle_that_asks_for_code_is_refused(
    tmp_path, monkeypatch, function, nested, protocol
):
    monkeypatch.chdir(tmp_path)
    evil = Calls(function, "open('executed', 'w').close()")
    content = {"w": np.ones(1), "x": evil}
    path = write(tmp_path, {"model": content} if nested else content, protocol)
    with pytest.raises(ValueError, match="asks for .*nothing in it was executed"):
        read_paddle_state_dict(path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pdparams"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 no pickle", "refused"),
        (pickle.dumps({"w": np.ones(3)})[:-20], "refused"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({}), "holds no tensors"),
        (pickle.dumps({"w": "text"}), "'w' is not an array of numbers but a str"),
        (pickle.dumps({"w": np.array([{}])}), "is not an array of numbers"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(S'x'\ntR.", "refused"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "asks for the encoding 'rot13'"),
        (
            pickle.dumps({"UnpackBigParamInfor@@": {"w": {"slices": ["w@@.0"]}}}),
            "refused as a PaddlePaddle checkpoint: 'w@@.0'",
        ),
        (b"Psomething\n.", "refused"),
    ],
)
def test_read__what_is_no_state_dict_is_refused(tmp_path, content, message):
    path = tmp_path / "checkpoint.pdparams"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_paddle_state_dict(path)


def test_read__a_pickle_cannot_change_what_the_next_one_gets(tmp_path):
    """BUILD sets attributes: of an object of its own, never of a shared one."""
    path = tmp_path / "checkpoint.pdparams"
    path.write_bytes(
        b"\x80\x02cargparse\nNamespace\n(NX\x01\x00\x00\x00a"
        b"}X\x01\x00\x00\x00bK\x01stb."
    )
    with pytest.raises(ValueError, match="refused|holds a"):
        read_paddle_state_dict(path)
    assert not hasattr(Namespace, "b") and not hasattr(OrderedDict, "b")


def test_read__missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        read_paddle_state_dict(tmp_path / "nowhere.pdparams")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["a"]), "not an array of numbers"),
        (np.zeros(2, dtype="M8[s]"), "not an array of numbers"),
        (np.zeros(2, dtype=[("a", "f4")]), "not an array of numbers"),
        (np.zeros(2, dtype=np.complex64), "not an array of numbers"),
        (np.zeros(2, dtype=np.longdouble), "array of"),
        (np.zeros(2, dtype=np.uint32), "'w' is an array of uint32, which PaddlePaddle"),
    ],
    ids=lambda x: getattr(x, "dtype", ""),
)
def test_read__arrays_that_paddle_does_not_have_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        read_paddle_state_dict(write(tmp_path, {"w": array}))


def test_read__keys_are_names(tmp_path):
    with pytest.raises(ValueError, match="1 is not the name of a tensor"):
        read_paddle_state_dict(write(tmp_path, {1: np.ones(2)}))


def test_read__byte_and_memory_order_are_turned(tmp_path):
    wanted = np.arange(6.0).reshape(2, 3)
    content = {
        "swapped": wanted.astype(">f4"),
        "fortran": np.asfortranarray(wanted),
        "scalar": np.array(3.0),
    }
    read = read_paddle_state_dict(write(tmp_path, content))
    for key in ("swapped", "fortran"):
        assert torch.equal(read[key].double(), torch.from_numpy(wanted))
        assert read[key].is_contiguous()
    assert read["scalar"].shape == () and read["scalar"] == 3


def test_read__depth_without_end_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pdparams"
    path.write_bytes(b"\x80\x04" + b"]" * 20000 + b"a" * 19999 + b".")
    with pytest.raises(ValueError, match="refused as a PaddlePaddle"):
        read_paddle_state_dict(path)
