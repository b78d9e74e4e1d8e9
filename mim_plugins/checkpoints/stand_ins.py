"""What stands for the objects of a pickle while it is read.

A pickle can call what it names, fill it with a state and put things into it. Nothing
here can be changed that way, and nothing grows beyond the size of the file.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import reprlib
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

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
    struct.error,
)

# Of mmengine's log, and of arguments: made from their state at the end.
NAMESPACE = "argparse.Namespace"
LOG = "mmengine.logging.history_buffer.HistoryBuffer"

# The dimensions a tensor can have.
_MOST_DIMS = 64

_short = reprlib.Repr()
_short.maxlevel, _short.maxtuple, _short.maxlist, _short.maxdict = 2, 4, 4, 4
_short.maxstring = _short.maxother = _short.maxlong = 80


def show(value: Any) -> str:
    """What a value is in few words; a hostile one could be endless."""
    return _short.repr(value)


def brief(error: BaseException) -> str:
    """What an error says, its first lines and no more than a screen can take."""
    if isinstance(error, RecursionError):
        return "what it holds is in one another, deeper than in any checkpoint"
    # A KeyError shows what it was given, which could be endless.
    text = show(error.args[0]) if isinstance(error, KeyError) else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " ..."


class UnknownGlobalError(pickle.UnpicklingError):
    """A pickle asks for something that is not known to be harmless.

    Args:
        name: What it asks for.
    """

    def __init__(self, name: str) -> None:
        self.name = name if len(name) < 120 and name.isprintable() else show(name)
        super().__init__(f"it asks for {self.name}")


class Budget:
    """What the calls of a pickle may copy: a few times what there is to read.

    A file could else name one array of a megabyte ten thousand times.

    Args:
        size: Bytes of the pickle.
    """

    def __init__(self, size: int) -> None:
        self._left = 4 * size + (1 << 16)

    def spend(self, count: int) -> None:
        """Takes off what is copied now.

        Raises:
            UnpicklingError: If there is no more.
        """
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("it grows to many times its size when read")


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


def holder(kind: str) -> type[Holder]:
    """A new class, so that no two pickles share one."""
    return type("Holder", (Holder,), {"kind": kind})


class Known:
    """A function that a pickle can call, and cannot change.

    Args:
        function: It.
        budget: What its arguments, which it may copy, are charged to.
    """

    __slots__ = ("_budget", "_function")

    def __init__(self, function: Callable[..., Any], budget: Budget) -> None:
        self._function = function
        self._budget = budget

    def __call__(self, *args: Any) -> Any:
        """Calls the function."""
        sized = (str, bytes, list, tuple, dict, set)
        self._budget.spend(sum(len(arg) for arg in args if isinstance(arg, sized)))
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        """Takes no state."""
        raise pickle.UnpicklingError("it changes a function")


class DType(Holder):
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
                f"an array of dtype {show(self.text)} is no array of numbers"
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


class Array(Holder):
    """Stands for an array, whose state could point to memory that is not its own.

    Args:
        budget: What its bytes are charged to.
    """

    kind = "numpy.ndarray"

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def resolve(self) -> np.ndarray:
        """The array, writable and in this machine's byte order.

        Raises:
            UnpicklingError: If it is no array of numbers, or its size does not fit.
        """
        if self.state is None:
            raise pickle.UnpicklingError("an array in it has no content")
        _version, shape, dtype, fortran, raw = self.state
        array = from_bytes(dtype, raw, shape, "F" if fortran else "C")
        self._budget.spend(array.nbytes)
        return array.astype(array.dtype.newbyteorder("="), order="C")


def from_bytes(dtype: Any, raw: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """An array that looks at bytes.

    Raises:
        UnpicklingError: If they are no numbers, or of another size.
    """
    if not isinstance(dtype, DType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("an array in it is no array of numbers")
    known = dtype.resolve()
    if not is_shape(shape):
        raise pickle.UnpicklingError(f"an array in it has the shape {show(shape)}")
    if math.prod(shape) * known.itemsize != len(raw):
        raise pickle.UnpicklingError(
            f"an array in it has {len(raw)} bytes for the shape {show(shape)}"
        )
    flat = np.frombuffer(raw, known) if raw else np.empty(0, known)
    return flat.reshape(shape, order=order)


def is_shape(value: Any) -> bool:
    """Whether a value is a tuple of sizes."""
    return (
        isinstance(value, tuple)
        and len(value) <= _MOST_DIMS
        and all(type(size) is int and 0 <= size < 1 << 62 for size in value)
    )


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
    if isinstance(value, Array):
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
        _tidy(value)
        for key in value:
            value[key] = settle(value[key], done)
    elif isinstance(value, list):
        value[:] = [settle(item, done) for item in value]
    elif isinstance(result, argparse.Namespace):
        result.__dict__.update(settle(value.state or {}, done))
    elif isinstance(result, HistoryBuffer):
        _fill(result, settle(value.state, done))
    return result


def _tidy(value: dict[Any, Any]) -> None:
    """Leaves of a dict's attributes what modules note about themselves.

    Any other could stand in a method's place.
    """
    own = getattr(value, "__dict__", None)
    if not own:
        return
    noted = own.get("_metadata")
    own.clear()
    if isinstance(noted, dict):
        value._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name, entry)
            for name, entry in noted.items()
            if isinstance(name, str) and isinstance(entry, dict)
        )


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
