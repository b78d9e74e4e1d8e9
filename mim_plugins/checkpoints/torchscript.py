"""Reads the tensors of TorchScript archives, without running what is scripted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .unpickling import Holder, ScriptUnpickler

# How every archive of torch begins.
ZIP_MAGIC = b"PK\x03\x04"


def is_torchscript(path: str | Path) -> bool:
    """Tells whether a file is an archive that torch would take for TorchScript.

    Raises:
        RuntimeError: If it is an archive that torch cannot open.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return False
    # By torch's own reader: another might see other entries in a hostile archive.
    return "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records()


def read_torchscript(path: str | Path, map_location: Any = "cpu") -> dict[str, Tensor]:
    """Reads parameters and buffers of a scripted or traced module.

    ``torch.jit.load`` would run methods: ``__setstate__`` while it loads. Here modules
    are mere holders of their attributes.

    Args:
        path: An archive of ``torch.jit.save``, as OpenAI publishes its CLIP.
        map_location: Where the tensors go, as ``torch.load``'s.

    Returns:
        The state dict of the module.

    Raises:
        ValueError: If it is no module, or one that is restored by code of its own.
    """
    reader = torch._C.PyTorchFileReader(str(path))
    module = torch.serialization._load(
        reader,
        map_location,
        SimpleNamespace(Unpickler=ScriptUnpickler, __name__="restricted pickle"),
        encoding="utf-8",
    )
    if not isinstance(module, Holder):
        raise ValueError(f"it holds a {type(module).__name__}, not a module")
    return dict(_tensors(module, "", reader))


def _tensors(module: Holder, prefix: str, reader: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and those in it, by name.

    Raises:
        ValueError: If a module is restored by code of its own.
    """
    if not isinstance(module.state, dict):
        raise ValueError(
            f"its class {module.kind} is restored by code in the file, __setstate__, "
            "and nothing of it was run: save the model's state_dict() with torch.save"
        )
    registered = _registered(module.kind, reader)
    for name, value in module.state.items():
        if isinstance(value, Holder):
            if value.kind.startswith("__torch__."):
                yield from _tensors(value, f"{prefix}{name}.", reader)
        elif isinstance(value, Tensor) and (registered is None or name in registered):
            yield f"{prefix}{name}", value.detach()


def _registered(kind: str, reader: Any) -> set[str] | None:
    """Names of a class's parameters and buffers; None if its source does not say.

    A tensor may also be a plain attribute, which is in no state dict.
    """
    module, _, name = kind.rpartition(".")
    record = f"code/{module.replace('.', '/')}.py"
    if not reader.has_record(record):
        return None
    source = reader.get_record(record).decode()
    found = re.search(
        rf"^class {re.escape(name)}\(Module\):\n"
        r"  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n",
        source,
        re.MULTILINE,
    )
    return found and set(re.findall(r'"([^"]*)"', found[1] + found[2]))
