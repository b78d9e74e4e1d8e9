"""Reads the tensors of TorchScript archives, without running what is scripted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .archives import SCRIPT, is_archive
from .stand_ins import Holder, show
from .unpickling import ScriptUnpickler

# More modules than a model has; of two that each hold a third twice, which holds a
# fourth twice, and so on, there would be more than can be counted.
_MOST_MODULES = 1 << 15


def is_torchscript(path: str | Path) -> bool:
    """Tells whether a file is an archive that torch would take for TorchScript.

    Raises:
        RuntimeError: If it is an archive that torch cannot open.
    """
    # By torch's own reader: another might see other entries in a hostile archive.
    return (
        is_archive(path)
        and SCRIPT in torch._C.PyTorchFileReader(str(path)).get_all_records()
    )


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
    return dict(_tensors(module, "", _Sources(reader)))


class _Sources:
    """The sources of scripted classes, each file of which is looked through once.

    Args:
        reader: torch's reader of the archive.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._files: dict[str, dict[str, set[str]]] = {}
        self._asked = 0

    def registered(self, kind: str) -> set[str] | None:
        """Names of a class's parameters and buffers; None if its source does not say.

        A tensor may also be a plain attribute, which is in no state dict.

        Raises:
            ValueError: If it is asked more often than there can be modules.
        """
        self._asked += 1
        if self._asked > _MOST_MODULES:
            raise ValueError(f"it has more than {_MOST_MODULES} modules")
        module, _, name = kind.rpartition(".")
        record = f"code/{module.replace('.', '/')}.py"
        if record not in self._files:
            self._files[record] = self._classes(record)
        return self._files[record].get(name)

    def _classes(self, record: str) -> dict[str, set[str]]:
        if not self._reader.has_record(record):
            return {}
        source = self._reader.get_record(record).decode()
        found = re.finditer(
            r"^class (\w+)\(Module\):\n"
            r"  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]\n",
            source,
            re.MULTILINE,
        )
        return {m[1]: set(re.findall(r'"([^"]*)"', m[2] + m[3])) for m in found}


def _tensors(
    module: Holder, prefix: str, sources: _Sources
) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and those in it, by name.

    Raises:
        ValueError: If a module is restored by code of its own.
    """
    if not isinstance(module.state, dict):
        raise ValueError(
            f"its class {show(module.kind)} is restored by code in the file, "
            "__setstate__, and nothing of it was run: save the model's state_dict() "
            "with torch.save"
        )
    registered = sources.registered(module.kind)
    for name, value in module.state.items():
        if isinstance(value, Holder):
            if value.kind.startswith("__torch__."):
                yield from _tensors(value, f"{prefix}{name}.", sources)
        elif isinstance(value, Tensor) and (registered is None or name in registered):
            yield f"{prefix}{name}", value.detach()
