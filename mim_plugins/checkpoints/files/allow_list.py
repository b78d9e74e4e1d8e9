"""What a checkpoint may contain, under the names its pickle gives it.

A pickle can call what it names and set the state of what it made. Every name in
:func:`allowed_globals` is therefore harmless to call: tensors, containers, numbers, and
replacements for the few classes that training scripts leave in their files. torch reads
its own files with this list (``weights_only=True``); :class:`RestrictedUnpickler` reads
what torch does not, files of PaddlePaddle and TorchScript, and the files of torch for
releases that do not take a list.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import cache
from reprlib import repr as brief_repr
from types import FunctionType
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor


class UnknownGlobalError(pickle.UnpicklingError):
    """A pickle refers to something that is not on the list.

    Args:
        name: Its full name.
    """

    def __init__(self, name: str) -> None:
        self.name = name[:120]
        super().__init__(f"it asks for {self.name}")


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles what is on the list, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up by its name.

        Raises:
            UnknownGlobalError: If it is not on the list.
        """
        module = "builtins" if module == "__builtin__" else module
        try:
            return allowed_globals()[f"{module}.{name}"]
        except KeyError:
            raise UnknownGlobalError(f"{module}.{name}") from None


class _Call:
    """A function that a pickle can call, and whose attributes it cannot set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


@cache
def allowed_globals() -> dict[str, Any]:
    """What a pickle may refer to, by full name.

    What torch allows by itself is what torch makes of it when it reads with this list.
    """
    allowed: dict[str, Any] = {
        "numpy.ndarray": _NumericArray,
        "numpy.dtype": _NumericDType,
        "argparse.Namespace": _Namespace,
        "mmengine.logging.history_buffer.HistoryBuffer": _History,
        "collections.OrderedDict": lambda pairs=(): OrderedDict(pairs),
        "collections.Counter": lambda counts=(): Counter(counts),  # of a schedule
        "_codecs.encode": _encoded,
        "builtins.getattr": lambda *_: None,  # logs are pickled with it, and need none
        "builtins.bytes": bytes,
        "builtins.tuple": tuple,
        "builtins.set": set,
        "builtins.slice": slice,
        "builtins.complex": complex,
        "torch.Size": torch.Size,
        "torch.device": torch.device,
        "torch._tensor._rebuild_from_type_v2": lambda function, _kind, args, _state: (
            function(*args)  # without the tensor's attributes
        ),
    }
    for core in ("core", "_core"):  # of numpy 1 and 2
        allowed[f"numpy.{core}.multiarray._reconstruct"] = _array
        allowed[f"numpy.{core}.multiarray.scalar"] = lambda dtype, raw: _from_bytes(
            dtype, raw
        )[0]
    for name in (  # of a tracker's training: statistics and paths
        "stats.AverageMeter",
        "stats.StatValue",
        "settings.Settings",
        "local.EnvironmentSettings",
    ):
        allowed[f"lib.train.admin.{name}"] = _Namespace
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        allowed[f"torch._utils.{name}"] = _tensor
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        allowed[f"torch._utils.{name}"] = lambda data, requires_grad, *_: (
            torch.nn.Parameter(data, bool(requires_grad))
        )
    for name in ("Tensor", "nn.parameter.Parameter", "nn.parameter.Buffer"):
        allowed[f"torch.{name}"] = name  # only ever an argument
    for module in ("pathlib", "pathlib._local"):
        for name in "PosixPath WindowsPath PurePosixPath PureWindowsPath".split():
            allowed[f"{module}.{name}"] = _path
    dtypes = {k: x for k, x in vars(torch).items() if isinstance(x, torch.dtype)}
    allowed |= {f"torch.{name}": dtype for name, dtype in dtypes.items()}
    return {
        name: _Call(value) if isinstance(value, FunctionType) else value
        for name, value in allowed.items()
    }


def brief(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    if isinstance(error, RecursionError):
        return "what it holds is nested deeper than in any checkpoint"
    text = " ".join(str(error)[:2000].split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " ..."


class _NumericDType:
    """A dtype of plain numbers; numpy's own can turn numbers into object pointers."""

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or not re.fullmatch(
            r"[<>|=]?(b1|[iu][1248]|f[248])", text
        ):
            raise pickle.UnpicklingError(
                f"an array of dtype {brief_repr(text)} is not an array of numbers"
            )
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        _version, order, *rest = state
        if order not in ("<", ">", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise pickle.UnpicklingError(
                f"an array of dtype {self.dtype} with fields is not an array of numbers"
            )
        self.dtype = self.dtype.newbyteorder(order)


class _NumericArray(np.ndarray):
    """An array of plain numbers, which checks the state it is unpickled with."""

    _is_filled = False

    def __setstate__(self, state: Any) -> None:
        """Fills the array from its bytes, once, in the byte order of this machine."""
        if self._is_filled:
            raise pickle.UnpicklingError("it fills a numpy.ndarray twice")
        self._is_filled = True
        _version, shape, dtype, fortran, raw = state
        flat = _from_bytes(dtype, raw)
        if min(shape, default=0) < 0 or math.prod(shape) != flat.size:
            raise pickle.UnpicklingError(
                f"an array in it has {len(raw)} bytes for the shape {brief_repr(shape)}"
            )
        native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
        super().__setstate__((1, shape, native.dtype, fortran, native.tobytes()))

    def __reduce__(self) -> Any:
        """Is pickled as the plain array it is."""
        return np.array(self, subok=False).__reduce__()


class _History(HistoryBuffer):
    """mmengine's log, of which a file sets the numbers and nothing else."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        values, counts = state["_log_history"], state["_count_history"]
        if not all(isinstance(numbers, np.ndarray) for numbers in (values, counts)):
            raise pickle.UnpicklingError("a log in it has no history")
        self.__class__ = HistoryBuffer  # as which it is saved again
        HistoryBuffer.__init__(
            self, np.array(values), np.array(counts), int(state["max_length"])
        )


class _Namespace(argparse.Namespace):
    """The arguments of a training script."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__class__ = argparse.Namespace  # type: ignore[assignment]


def _from_bytes(dtype: Any, raw: Any) -> np.ndarray:
    """Numbers from their bytes, (count,)."""
    if not isinstance(dtype, _NumericDType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("an array in it is not an array of numbers")
    if len(raw) % dtype.dtype.itemsize:
        raise pickle.UnpicklingError(
            f"an array in it has {len(raw)} bytes, of numbers of {dtype.dtype}"
        )
    return np.frombuffer(raw, dtype.dtype) if raw else np.empty(0, dtype.dtype)


def _array(*_: Any) -> np.ndarray:
    """What numpy's ``_reconstruct`` does: an array that its state will fill."""
    return np.ndarray.__new__(_NumericArray, (0,), "b")


def _encoded(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as text in this encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {brief_repr(encoding)}")
    return text.encode("latin1")


def _path(*parts: str) -> str:
    """Paths become text."""
    return os.path.join("", *map(str.__str__, parts))


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, or of a flat tensor, inside its bounds, without hooks."""
    flat = storage
    if not isinstance(storage, Tensor):
        untyped = storage._untyped_storage  # torch 2.1 warns of typed ones
        flat = torch.empty(0, dtype=storage.dtype, device=untyped.device).set_(untyped)
    return flat.as_strided(size, stride, offset)
