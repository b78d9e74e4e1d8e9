"""Reads the tensors of TorchScript archives, without running what is scripted."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .allow_list import RestrictedUnpickler

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in (
        ("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16),
        ("BFloat16", torch.bfloat16), ("Long", torch.int64), ("Int", torch.int32),
        ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8),
        ("Bool", torch.bool),
    )
}  # fmt: skip


def read_torchscript(path: str | Path, map_location: Any = "cpu") -> dict[str, Tensor]:
    """Reads parameters and buffers of a scripted or traced module.

    ``torch.jit.load`` would run methods: ``__setstate__`` while it loads. Here modules
    merely hold their attributes.

    Raises:
        ValueError: If it is not a module, or one that is restored by code of its own.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        with archive.open(f"{root}/data.pkl") as pickled:
            module = _ScriptUnpickler(pickled, archive, root).load()
        if not isinstance(module, _Module):
            raise ValueError(f"it holds a {type(module).__name__}, not a module")
        registered = _registered(archive, root)
    tensors = dict(_tensors(module, "", registered))
    return {key: value.to(map_location or "cpu") for key, value in tensors.items()}


class _Module:
    """Holds the attributes of a scripted module, or nothing if code restores it."""

    kind = ""
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ScriptUnpickler(RestrictedUnpickler):
    """Unpickles scripted modules as :class:`_Module`, and storages as flat tensors."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file, encoding="utf-8")
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """Reads a storage, once."""
        _kind, dtype, key, _location, numel = pid
        if key not in self._storages:
            raw = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            if len(raw) != numel * dtype.itemsize:
                raise ValueError(f"its storage {key} has {len(raw)} bytes")
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(raw, dtype=dtype) if raw else empty
        return self._storages[key]

    def find_class(self, module: str, name: str) -> Any:
        """Looks a global up: scripted classes, storages, or what is on the list."""
        if f"{module}.".startswith("__torch__."):
            return type("Module", (_Module,), {"kind": f"{module}.{name}"})
        if module == "torch.jit._pickle":  # these say what type a list or dict has
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return super().find_class(module, name)


def _registered(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Names of parameters and buffers by class, as the archive's source says.

    A tensor may also be a plain attribute, which is in no state dict.
    """
    names: dict[str, set[str]] = {}
    for record in archive.namelist():
        if not record.startswith(f"{root}/code/") or not record.endswith(".py"):
            continue
        module = record[len(f"{root}/code/") : -len(".py")].replace("/", ".")
        for match in re.finditer(
            r"^class (\w+)\(Module\):\n"
            r"  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n",
            archive.read(record).decode(),
            re.MULTILINE,
        ):
            tensors = set(re.findall(r'"([^"]*)"', match[2] + match[3]))
            names[f"{module}.{match[1]}"] = tensors
    return names


def _tensors(
    module: _Module, prefix: str, registered: dict[str, set[str]]
) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and its children, by name."""
    if not isinstance(module.state, dict):
        raise ValueError(
            f"its class {module.kind:.80} is restored by code in the file, "
            "__setstate__, and nothing of it was run: save the model's state_dict() "
            "with torch.save"
        )
    own = registered.get(module.kind)
    for name, value in module.state.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", registered)
        elif isinstance(value, Tensor) and (own is None or name in own):
            yield f"{prefix}{name}", value.detach()
