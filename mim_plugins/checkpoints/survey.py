"""Looks a file of torch over before torch reads it.

torch trusts a file in what it says about sizes: before 2.6 a tensor may lie beyond the
bytes it is said to have, so that it shows whatever else is in memory, and storages are
made as large as is asked for. Here a file is unpickled with names in the places of
tensors, and every size held against the bytes that are there.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .archives import SCRIPT, list_archive
from .stand_ins import is_shape, show
from .unpickling import ScriptUnpickler, TensorUnpickler

# What weights alone are pickled with, which torch reads itself.
PLAIN = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
}

# Elements that tensors larger than their bytes, which were expanded, may have.
_MOST_EXPANDED = 1 << 31


@dataclass(frozen=True)
class _Storage:
    """Stands for the numbers of a tensor, by their name and what there is of them."""

    key: str
    itemsize: int
    nbytes: int


class _Tensor:
    """Stands for a tensor, and takes no state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor")


class _Surveyor(TensorUnpickler):
    """Unpickles names of tensors, and notes what else it is asked for.

    Args:
        file: The pickle.
        sizes: Bytes of the storages that there are, by key; None if they are not known
            yet.
        options: Of :class:`pickle.Unpickler`.
    """

    def __init__(
        self, file: Any, sizes: Mapping[str, int] | None, **options: Any
    ) -> None:
        super().__init__(file, **options)
        self.asked: set[str] = set()
        self.storages: dict[str, _Storage] = {}
        self._sizes = sizes
        self._expanded = 0

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up, storages among them."""
        if "Storage" in name:
            try:
                return torch.serialization.StorageType(name).dtype
            except KeyError:
                pass
        else:
            self.asked.add(f"{module}.{name}")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        """Looks at the storage of a tensor.

        Raises:
            UnpicklingError: If it is none, or there are fewer bytes.
        """
        refused = pickle.UnpicklingError("it refers to something that is no storage")
        if not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise refused
        kind, dtype, key, _, numel, *view = pid
        stored = kind in ("storage", b"storage") and not any(view)
        if not (stored and isinstance(dtype, torch.dtype) and is_shape((numel,))):
            raise refused
        key = str(key) if isinstance(key, int) else key
        if not isinstance(key, str):
            raise pickle.UnpicklingError(f"it names a storage {show(key)}")
        found = _Storage(key, dtype.itemsize, numel * dtype.itemsize)
        there = found.nbytes if self._sizes is None else self._sizes.get(key)
        if there != found.nbytes:
            raise pickle.UnpicklingError(
                f"its storage {show(key)} is said to have {found.nbytes} bytes, and "
                f"has {0 if there is None else there}"
            )
        self.storages.setdefault(key, found)
        if self.storages[key].nbytes != found.nbytes:
            raise pickle.UnpicklingError(f"it gives its storage {show(key)} two sizes")
        return found

    def _tensor(
        self, storage: Any, offset: int, size: Any, stride: Any, *rest: Any
    ) -> Any:
        sized = is_shape(size) and is_shape(stride) and is_shape((offset,))
        if not isinstance(storage, _Storage) or not sized or len(size) != len(stride):
            raise pickle.UnpicklingError("it holds a tensor of no proper size")
        numel, itemsize = math.prod(size), storage.itemsize
        last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if numel and (offset + last + 1) * itemsize > storage.nbytes:
            raise pickle.UnpicklingError(
                f"a tensor of shape {show(tuple(size))} in it has "
                f"{storage.nbytes} bytes"
            )
        if numel * itemsize > storage.nbytes:
            self._expanded += numel
        if self._expanded > _MOST_EXPANDED:
            raise pickle.UnpicklingError(
                "its tensors repeat a few numbers more often than any computer can"
            )
        return _Tensor()

    def _parameter(self, data: Any, requires_grad: bool, *_: Any) -> Any:
        if not isinstance(data, _Tensor):
            raise pickle.UnpicklingError("it holds a parameter that is no tensor")
        return data


class _ScriptSurveyor(_Surveyor, ScriptUnpickler):
    """Knows TorchScript's modules too."""


def survey_archive(path: str | Path) -> tuple[bool, bool]:
    """Looks an archive of torch over.

    Args:
        path: The archive.

    Returns:
        Whether it is TorchScript's, and whether it holds weights alone.

    Raises:
        Exception: Of many kinds, if it is damaged, refers to code, or says what is not
            true of its sizes.
    """
    sizes = list_archive(path)
    reader = torch._C.PyTorchFileReader(str(path))
    if set(sizes) != set(reader.get_all_records()):
        raise ValueError("its archive has two lists of files")
    storages = {k[5:]: size for k, size in sizes.items() if k.startswith("data/")}
    kind = _ScriptSurveyor if SCRIPT in sizes else _Surveyor
    pickled = io.BytesIO(reader.get_record("data.pkl"))
    surveyor = kind(pickled, storages, encoding="utf-8")
    surveyor.load()
    return SCRIPT in sizes, surveyor.asked <= PLAIN


def survey_pickles(path: str | Path) -> bool:
    """Looks a file of before torch 1.6 over: pickles, and behind them the numbers.

    Args:
        path: The file.

    Returns:
        Whether it holds weights alone.

    Raises:
        Exception: As :func:`survey_archive` does.
    """
    with open(path, "rb") as file:
        return _survey_pickles(file)


def _survey_pickles(file: BinaryIO) -> bool:
    if _Surveyor(file, {}).load() != torch.serialization.MAGIC_NUMBER:
        raise ValueError("it is a pickle, but none of torch.save's")
    for _ in ("protocol", "system"):
        _Surveyor(file, {}).load()
    surveyor = _Surveyor(file, None, encoding="utf-8")
    surveyor.load()
    keys = _Surveyor(file, {}).load()
    plain = isinstance(keys, list) and all(isinstance(k, (str, int)) for k in keys)
    if not plain or sorted(map(str, keys)) != sorted(surveyor.storages):
        raise ValueError("it lists other storages than it has")
    needed = sum(8 + storage.nbytes for storage in surveyor.storages.values())
    left = -file.tell() + file.seek(0, os.SEEK_END)
    if needed > left:
        raise ValueError(
            f"its tensors need {needed} bytes and {left} are left: it was cut short"
        )
    return surveyor.asked <= PLAIN
