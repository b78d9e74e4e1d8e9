"""Unpickles arrays, tensors and plain containers, and nothing that can do harm.

Nothing a pickle names is imported: each name stands for an object made here, which a
pickle can call or fill, but not change. Python's own unpickler in Python is used, not
that in C: it checks what it does, and can be told to check more.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .stand_ins import (
    LOG,
    NAMESPACE,
    Array,
    Budget,
    DType,
    Known,
    UnknownGlobalError,
    from_bytes,
    holder,
    show,
)

# More than the pickle of any checkpoint has: that of a ViT-H with its optimiser has a
# fifth. Each makes an object, and there are a hundred bytes to an empty one.
MOST_STEPS = 1 << 20

# More than any key has, in characters.
MOST_KEY = 1000


class _Bounded:
    """A file of which no more can be asked for than there is.

    Args:
        file: An open file, read from where it stands.
    """

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        self.left = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        self._file = file

    def read(self, count: int) -> bytes:
        """Reads so many bytes.

        Raises:
            EOFError: If there are fewer.
        """
        if not 0 <= count <= self.left:
            raise EOFError(f"it asks for {count} bytes where {self.left} are left")
        self.left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Reads a line."""
        line = self._file.readline()
        self.left -= len(line)
        return line


class _Steps(dict[int, Any]):
    """The steps a pickle can take, of which it may not take too many."""

    left = MOST_STEPS

    def __getitem__(self, code: int) -> Any:
        """The function of a step.

        Raises:
            UnpicklingError: If there is none, or there were too many.
        """
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(
                f"it has more than {MOST_STEPS} entries, far more than a checkpoint"
            )
        try:
            return super().__getitem__(code)
        except KeyError:
            raise pickle.UnpicklingError(
                f"it is damaged, or no pickle: no step has the code {code}"
            ) from None


def _checked(code: bytes, first: int, step: int) -> Callable[[Any], None]:
    """A step that puts keys into a dict or a set, after a look at them.

    Args:
        code: The step of pickle's.
        first: Where on the stack the first key is.
        step: How far it is to the next.
    """
    function = pickle._Unpickler.dispatch[code[0]]

    def run(self: Any) -> None:
        check_keys(self.stack[first::step])
        function(self)

    return run


def check_keys(keys: Iterable[Any]) -> None:
    """Makes sure that keys are quickly hashed, and not all to one number.

    Those of tuples in tuples take for ever.

    Raises:
        UnpicklingError: If they are not.
    """
    for key in keys:
        plain = isinstance(key, (str, bytes, float, torch.dtype)) or key is None
        if not plain and not (isinstance(key, int) and abs(key) < 1 << 63):
            raise pickle.UnpicklingError(
                f"it has the key {show(key)}, which is no name"
            )
        if isinstance(key, (str, bytes)) and len(key) > MOST_KEY:
            raise pickle.UnpicklingError(f"it has a key of {len(key)} characters")


def _no_bytearray(_: Any) -> None:
    raise pickle.UnpicklingError("it holds a bytearray, as no checkpoint does")


class ArrayUnpickler(pickle._Unpickler):
    """Knows arrays of numbers and containers.

    Args:
        file: An open file, or bytes as one.
        options: Of :class:`pickle.Unpickler`.
    """

    _STEPS = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _checked(pickle.SETITEM, -2, 2),
        pickle.SETITEMS[0]: _checked(pickle.SETITEMS, 0, 2),
        pickle.DICT[0]: _checked(pickle.DICT, 0, 2),
        pickle.ADDITEMS[0]: _checked(pickle.ADDITEMS, 0, 1),
        pickle.FROZENSET[0]: _checked(pickle.FROZENSET, 0, 1),
        # It fills as much memory as it is told to, before it reads.
        pickle.BYTEARRAY8[0]: _no_bytearray,
    }

    def __init__(self, file: Any, **options: Any) -> None:
        bounded = _Bounded(file)
        super().__init__(bounded, **options)
        self.budget = Budget(bounded.left)
        self.dispatch = _Steps(self._STEPS)  # type: ignore[misc]
        self._known = self._globals()

    def _call(self, function: Callable[..., Any]) -> Known:
        return Known(function, self.budget)

    def _globals(self) -> dict[str, Any]:
        """What arrays and containers are pickled with."""
        known: dict[str, Any] = {
            "numpy.ndarray": "numpy.ndarray",  # only ever an argument
            "numpy.dtype": self._call(lambda text, *_: DType(text)),
            "collections.OrderedDict": self._call(_ordered),
            NAMESPACE: holder(NAMESPACE),
            "_codecs.encode": self._call(_encode),
            "builtins.bytes": self._call(lambda: b""),  # others are encoded text
            "builtins.tuple": self._call(tuple),
        }
        # Written as numpy.core by numpy 1, as numpy._core by numpy 2.
        for core in ("core", "_core"):
            prefix = f"numpy.{core}.multiarray."
            known[prefix + "_reconstruct"] = self._call(lambda *_: Array(self.budget))
            known[prefix + "scalar"] = self._call(_scalar)
        return known

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
        """What checkpoints of training scripts are pickled with."""
        known = super()._globals()
        known[LOG] = holder(LOG)
        known["torch.Size"] = self._call(torch.Size)
        known["torch.device"] = self._call(torch.device)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            known[f"torch._utils.{name}"] = self._call(self._tensor)
        for name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            known[f"torch._utils.{name}"] = self._call(self._parameter)
        known["torch._tensor._rebuild_from_type_v2"] = self._call(
            lambda function, _kind, args, _state: function(*args)
        )
        for name in ("Tensor", "nn.parameter.Parameter", "nn.parameter.Buffer"):
            known[f"torch.{name}"] = f"torch.{name}"  # only ever an argument
        known["collections.Counter"] = self._call(_counter)  # milestones of a schedule
        # mmengine's log is pickled with getattr, which gives it methods it has anyway.
        known["builtins.getattr"] = self._call(lambda *_: None)
        known["builtins.set"] = self._call(_set)
        for kind in (slice, complex):
            known[f"builtins.{kind.__name__}"] = self._call(kind)
        for module in ("pathlib", "pathlib._local"):
            for name in "PosixPath WindowsPath PurePosixPath PureWindowsPath".split():
                known[f"{module}.{name}"] = self._call(_path)
        return known

    def _tensor(
        self, storage: Any, offset: int, size: Any, stride: Any, *rest: Any
    ) -> Any:
        """A tensor without the hooks that may stand in the file."""
        if len(rest) > 2 and rest[2]:
            raise pickle.UnpicklingError("it holds a conjugate or negative view")
        grad = bool(rest and rest[0])
        rebuild = torch._utils._rebuild_tensor_v2
        return rebuild(storage, offset, size, stride, grad, OrderedDict())

    def _parameter(self, data: Tensor, requires_grad: bool, *_: Any) -> Any:
        return torch.nn.Parameter(data, bool(requires_grad))

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
            name = f"torch.jit._pickle.build_{kind}list"
            known[name] = self._call(lambda data: data)
        known["torch.jit._pickle.restore_type_tag"] = self._call(lambda data, _: data)
        return known

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, scripted classes among them.

        Raises:
            UnknownGlobalError: If it is not known.
        """
        if f"{module}.".startswith("__torch__."):
            return holder(f"{module}.{name}")
        return super().find_class(module, name)


def _encode(text: str, encoding: str) -> bytes:
    """Protocol 2 writes bytes as encoded text, always in this encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {show(encoding)}")
    return text.encode("latin1")


def _scalar(dtype: Any, raw: Any) -> Any:
    return from_bytes(dtype, raw, ())[()]


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    entries = pairs.items() if isinstance(pairs, dict) else [(k, x) for k, x in pairs]
    check_keys(key for key, _ in entries)
    return OrderedDict(entries)


def _counter(counts: Any = ()) -> Counter[Any]:
    check_keys(counts)
    return Counter(counts)


def _set(items: Any = ()) -> set[Any]:
    check_keys(items)
    return set(items)


def _path(*parts: Any) -> str:
    """Paths become text."""
    return os.path.join("", *map(str.__str__, parts))
