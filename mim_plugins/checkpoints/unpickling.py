"""Unpickles arrays, tensors and plain containers, and nothing that can do harm.

Nothing a pickle names is imported: each name stands for an object made here, which a
pickle can call or fill, but not change.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

# What a damaged or hostile pickle raises while it is read.
REFUSALS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,  # RecursionError is one
    TypeError,
    ValueError,
)


class UnknownGlobalError(pickle.UnpicklingError):
    """A pickle asks for something that is not known to be harmless.

    Args:
        name: What it asks for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it asks for {name}")
        self.name = name


class Holder:
    """Stands for an object of a class, and holds the state it was pickled with."""

    kind = ""
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Takes the state, once.

        On the class itself, which a pickle can reach too, it fails for want of a
        second argument: that is how classes stay as they are.
        """
        if self.state is not None:
            raise pickle.UnpicklingError(f"it fills a {self.kind} twice")
        self.state = state


class _Known:
    """A function that a pickle can call, and cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Calls the function."""
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        """Takes no state."""
        raise pickle.UnpicklingError("it changes a function")


class _DType(Holder):
    """Stands for a dtype of numpy's, which its state could turn into any other."""

    kind = "numpy.dtype"

    def __init__(self, text: str) -> None:
        self.text = text

    def resolve(self) -> np.dtype[Any]:
        """The dtype, of plain numbers in any byte order.

        Raises:
            UnpicklingError: If it is another.
        """
        if not isinstance(self.text, str) or not re.fullmatch(
            r"[<>|=]?(b1|[iu][1248]|f[248])", self.text
        ):
            raise pickle.UnpicklingError(
                f"an array of dtype {self.text!r} is no array of numbers"
            )
        known = np.dtype(self.text)
        if self.state is None:
            return known
        # Version, byte order, then fields and sizes, which numbers have none of.
        _version, order, *rest = self.state
        if order not in ("<", ">", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise pickle.UnpicklingError(
                f"an array of dtype {self.text!r} with fields is no array of numbers"
            )
        return known.newbyteorder(order)


class _Array(Holder):
    """Stands for an array, whose state could point to memory that is not its own."""

    kind = "numpy.ndarray"

    def resolve(self) -> np.ndarray:
        """The array, writable and in this machine's byte order.

        Raises:
            UnpicklingError: If it is no array of numbers, or its size does not fit.
        """
        if self.state is None:
            raise pickle.UnpicklingError("an array in it has no content")
        _version, shape, dtype, fortran, raw = self.state
        array = _from_bytes(dtype, raw, shape, "F" if fortran else "C")
        return array.astype(array.dtype.newbyteorder("="), order="C")


def _from_bytes(dtype: Any, raw: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("an array in it is no array of numbers")
    known = dtype.resolve()
    if not isinstance(shape, tuple) or min(shape, default=0) < 0:
        raise pickle.UnpicklingError(f"an array in it has the shape {shape!r}")
    if math.prod(shape) * known.itemsize != len(raw):
        raise pickle.UnpicklingError(
            f"an array in it has {len(raw)} bytes for the shape {shape}"
        )
    flat = np.frombuffer(raw, known) if raw else np.empty(0, known)
    return flat.reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as encoded text, always in this encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _tensor(
    storage: Any, offset: int, size: Any, stride: Any, *rest: Any, **_: Any
) -> Tensor:
    """A tensor without the hooks that may stand in the file."""
    if len(rest) > 2 and rest[2]:
        raise pickle.UnpicklingError("it holds a conjugate or negative view")
    rebuild = torch._utils._rebuild_tensor_v2
    return rebuild(storage, offset, size, stride, bool(rest and rest[0]), OrderedDict())


def _parameter(data: Tensor, requires_grad: bool, *_: Any) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad)


def _holder(kind: str) -> type[Holder]:
    """A new class, so that no two pickles share one."""
    return type("Holder", (Holder,), {"kind": kind})


# Of mmengine's log, and of arguments: made from their state at the end.
NAMESPACE = "argparse.Namespace"
LOG = "mmengine.logging.history_buffer.HistoryBuffer"


def _array_globals() -> dict[str, Any]:
    """What arrays and containers are pickled with."""
    known: dict[str, Any] = {
        "numpy.ndarray": "numpy.ndarray",  # only ever an argument
        "numpy.dtype": _Known(lambda text, *_: _DType(text)),
        "collections.OrderedDict": OrderedDict,
        NAMESPACE: _holder(NAMESPACE),
        "_codecs.encode": _Known(_encode),
        "builtins.bytes": _Known(lambda: b""),  # others are encoded text
        "builtins.tuple": _Known(tuple),
    }
    # Written as numpy.core by numpy 1, as numpy._core by numpy 2.
    for core in ("core", "_core"):
        prefix = f"numpy.{core}.multiarray."
        known[prefix + "_reconstruct"] = _Known(lambda *_: _Array())
        known[prefix + "scalar"] = _Known(lambda d, raw: _from_bytes(d, raw, ())[()])
    return known


def _tensor_globals() -> dict[str, Any]:
    """What checkpoints of training scripts are pickled with."""
    known = _array_globals()
    known[LOG] = _holder(LOG)
    known["torch.Size"] = _Known(torch.Size)
    known["torch.device"] = _Known(torch.device)
    known["torch._utils._rebuild_tensor"] = _Known(_tensor)
    known["torch._utils._rebuild_tensor_v2"] = _Known(_tensor)
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        known[f"torch._utils.{name}"] = _Known(_parameter)
    known["torch._tensor._rebuild_from_type_v2"] = _Known(
        lambda function, _kind, args, _state: function(*args)
    )
    known["collections.Counter"] = _Known(Counter)  # milestones of a schedule
    # mmengine's log is pickled with getattr, which gives it methods it has anyway.
    known["builtins.getattr"] = _Known(lambda *_: None)
    for kind in (slice, set, complex):
        known[f"builtins.{kind.__name__}"] = _Known(kind)
    for module in ("pathlib", "pathlib._local"):  # paths become text
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
            known[f"{module}.{name}"] = _Known(
                lambda *parts: os.path.join("", *map(str, parts))
            )
    return known


class ArrayUnpickler(pickle.Unpickler):
    """Knows arrays of numbers and containers."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self._known = self._globals()

    def _globals(self) -> dict[str, Any]:
        return _array_globals()

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, by name alone: nothing is imported.

        Raises:
            UnknownGlobalError: If it is not known.
        """
        module = "builtins" if module == "__builtin__" else module
        try:
            return self._known[f"{module}.{name}"]
        except KeyError:
            raise UnknownGlobalError(f"{module}.{name}") from None


class TensorUnpickler(ArrayUnpickler):
    """Knows tensors too, and what training scripts leave beside them.

    To be given to torch's reader, which knows the storages.
    """

    def _globals(self) -> dict[str, Any]:
        return _tensor_globals()

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, dtypes of torch among them.

        Raises:
            UnknownGlobalError: If it is not known.
        """
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return super().find_class(module, name)


class ScriptUnpickler(TensorUnpickler):
    """Knows TorchScript's modules too, as holders of their attributes."""

    def _globals(self) -> dict[str, Any]:
        known = super()._globals()
        # Say what type a list or dict has.
        for kind in ("int", "double", "bool", "tensor"):
            known[f"torch.jit._pickle.build_{kind}list"] = _Known(lambda data: data)
        known["torch.jit._pickle.restore_type_tag"] = _Known(lambda data, _: data)
        return known

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, scripted classes among them.

        Raises:
            UnknownGlobalError: If it is not known.
        """
        if f"{module}.".startswith("__torch__."):
            return _holder(f"{module}.{name}")
        return super().find_class(module, name)


def settle(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Puts arrays, arguments and logs in the places of what stands for them.

    Args:
        value: What an unpickler gave. Its dicts and lists are changed in place.
        done: Results by identity; kept with what they are of, whose identity must
            not be given to another object meanwhile.

    Raises:
        UnpicklingError: If an array is none of numbers.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    result = value
    if isinstance(value, _Array):
        result = value.resolve()
    elif isinstance(value, Holder) and value.kind == NAMESPACE:
        result = argparse.Namespace()
    elif isinstance(value, Holder) and value.kind == LOG:
        result = HistoryBuffer()
    elif type(value) is tuple:
        result = tuple(settle(item, done) for item in value)
    elif not isinstance(value, (dict, list, Holder)):
        return value
    done[id(value)] = value, result
    if isinstance(value, dict):
        for key in value:
            value[key] = settle(value[key], done)
    elif isinstance(value, list):
        value[:] = [settle(item, done) for item in value]
    elif isinstance(result, argparse.Namespace):
        result.__dict__.update(settle(value.state or {}, done))
    elif isinstance(result, HistoryBuffer):
        _fill(result, settle(value.state, done))
    return result


def _fill(log: HistoryBuffer, state: Any) -> None:
    """Fills a log with its history.

    Raises:
        UnpicklingError: If that is none.
    """
    if state is None:
        return
    for name, kind in (
        ("max_length", int),
        ("_log_history", np.ndarray),
        ("_count_history", np.ndarray),
    ):
        if not isinstance(state.get(name), kind):
            raise pickle.UnpicklingError(f"a log in it has no {name}")
        setattr(log, name, state[name])
