"""From a file, or an address, to its tensors, without running what is in it."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from ..layouts import Layout, candidates, wrappers
from ..layouts.key_rules import listed
from ..metadata import GRID, MERGE_COORDINATES, NUM_HEADS
from .allow_list import RestrictedUnpickler, UnknownGlobalError, allowed_globals, brief
from .local_files import check_file, file_at, misnamed
from .paddle import read_paddle_state_dict
from .sealing import check_seal
from .state_dicts import (
    network_in,
    refuse_non_finite,
    strip_prefixes,
    to_tensor,
    unwrap,
)
from .torchscript import read_torchscript

# Set to 1, it lets files run code when they are read, as plain torch.load does.
TRUST = "MIM_PLUGINS_TRUST_CHECKPOINTS"

# What parallel training and compilation add to names of modules.
_INFIXES = re.compile(r"module\.|_orig_mod\.|_fsdp_wrapped_module\.")

# How every archive of torch begins; only TorchScript's hold this file, and source code,
# which alone is compressed and never as large as this.
_ARCHIVE = b"PK\x03\x04"
_SCRIPT = "constants.pkl"
_MOST_CODE = 1 << 26

# From torch 2.6 on, `weights_only=True` takes a list of names.
_TAKES_NAMES = hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: read once, and handed from reading to loading.

    Args:
        path: The file, for messages.
        content: All that is in it.
        tensors: The state dict by key, without the entry it was wrapped in and without
            what parallel training put before every key.
        wrapper: Name of the entry it was wrapped in.
        metadata: What modules recorded about themselves, by module name.
        candidates: The layouts its keys may be in: none, one, or several.
        left_out: Keys outside of the network that was taken, and why.
        notes: Which of several networks was taken.
    """

    path: str
    content: Mapping[str, Any]
    tensors: dict[str, Tensor]
    wrapper: str | None
    metadata: Mapping[str, Mapping[str, Any]]
    candidates: list[Layout]
    left_out: dict[str, str]
    notes: list[str]

    @classmethod
    def of(
        cls,
        content: Mapping[str, Any],
        path: str = "checkpoint",
        key: str | None = None,
    ) -> Checkpoint:
        """Unwraps what a file holds; arrays of numbers are taken as tensors.

        Args:
            content: What was read.
            path: Where it is from, for messages.
            key: Of several networks in it the one to take: an entry of the file, such
                as ``'student'``, or what comes before its keys.

        Raises:
            ValueError: If a key is not a name, or what goes by the name of a parameter
                (``a.b``) is numbers, but neither a tensor nor such an array: left out,
                it would silently be missing. Or if a tensor is not finite.
        """
        state, wrapper, notes = unwrap(content, key)
        if not isinstance(content.get("state_dict", state), Mapping):
            raise ValueError(
                f"{path}: its state_dict is a {type(content['state_dict']).__name__}, "
                "not a dict of tensors"
            )
        tensors = {}
        for name, value in state.items():
            if not isinstance(name, str):
                raise ValueError(
                    f"{path}: {name!r:.80} in its state dict is not a name"
                )
            if not isinstance(value, Tensor):
                value = to_tensor(name, value, wrapper is not None, path)
            if value is not None:
                tensors[name] = value
        tensors = strip_prefixes(tensors)
        refuse_non_finite(tensors, path)
        found = candidates(tensors, wrapper)
        left_out: dict[str, str] = {}
        if not found or (key is not None and key != wrapper):
            everything = tensors
            tensors, left_out, taken = network_in(tensors, key, wrapper)
            if key not in (None, wrapper) and tensors is everything:
                raise ValueError(
                    f"{path}: there is no network under the key {key!r}; it has "
                    f"{listed(content, 6)}"
                )
            notes += taken
            found = candidates(tensors, wrapper)
        metadata = {
            _INFIXES.sub("", f"{name}.").rstrip("."): entry
            for name, entry in getattr(state, "_metadata", {}).items()
        }
        return cls(path, content, tensors, wrapper, metadata, found, left_out, notes)

    def num_heads(self, prefix: str | None = None) -> int | None:
        """Attention heads the encoder was trained with, if the file records them.

        Args:
            prefix: Of the encoder's keys, where it is not ``'backbone.'``.
        """
        heads = self._recorded(NUM_HEADS, prefix)
        return heads if isinstance(heads, int) else None

    def grid(self, prefix: str | None = None) -> tuple[int, int] | None:
        """Rows and columns of the position embedding, if the file records them.

        Args:
            prefix: As of :meth:`num_heads`.
        """
        grid = self._recorded(GRID, prefix)
        return (grid[0], grid[1]) if isinstance(grid, (list, tuple)) else None

    def _recorded(self, entry: str, prefix: str | None) -> Any:
        names = ("backbone", "") if prefix is None else (prefix.rstrip("."),)
        found = (self.metadata.get(name, {}).get(entry) for name in names)
        return next((value for value in found if value is not None), None)

    @property
    def merge_coordinates(self) -> str | None:
        """Token coordinates of a pre-trained Swin, 'official' or 'correct'."""
        entries = (x for x in self.metadata.values() if MERGE_COORDINATES in x)
        return next((entry[MERGE_COORDINATES] for entry in entries), None)


def read(
    path: str | os.PathLike,
    map_location: Any = "cpu",
    trust: bool = False,
    key: str | None = None,
) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: A file of ``torch.save`` or ``torch.jit.save``, of safetensors
            (``.safetensors``), or of PaddlePaddle (``.pdparams``, ``.pd``); or the
            address of one, which is downloaded once.
        map_location: Where its tensors go, as ``torch.load``'s.
        trust: Whether a file of torch may run code. The environment variable
            :data:`TRUST`, set to 1, allows it too.
        key: As of :meth:`Checkpoint.of`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a safetensors file and safetensors is not installed.
        ValueError: If it is not a checkpoint, is damaged, refers to code, or holds no
            tensors.
    """
    content = read_content(path, map_location, trust)
    checkpoint = Checkpoint.of(content, os.fspath(path), key)
    if not checkpoint.tensors:
        raise ValueError(
            f"{path} holds no tensors, only "
            f"{sorted(map(str, checkpoint.content))[:10]}: give a "
            f"state dict, plain or under one of the keys {', '.join(wrappers())}"
        )
    return checkpoint


def read_content(
    path: str | os.PathLike, map_location: Any = "cpu", trust: bool = False
) -> dict[str, Any]:
    """Reads all that a checkpoint file holds, as :func:`read`."""
    path = os.fspath(path)
    local = file_at(path) if "://" in path else Path(path).expanduser()
    if local is None:  # an address that mmengine knows, such as a name of OpenMMLab's
        return CheckpointLoader.load_checkpoint(path, map_location)
    check_file(local)
    if local.suffix == ".safetensors":
        return _read_safetensors(local)
    if local.suffix in (".pdparams", ".pd"):
        return dict(read_paddle_state_dict(local))
    content = _read_torch(local, map_location, trust or os.environ.get(TRUST) == "1")
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def verify(path: str | os.PathLike) -> None:
    """Makes sure that a file of ``torch.save`` is complete and unchanged.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no archive of torch's.
    """
    path = Path(path)
    check_file(path)
    with open(path, "rb") as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:
            raise ValueError(f"{path} does not begin as a file of torch does")
    try:
        _check_archive(path)
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(f"{path} is damaged: {_reason(error)}") from error


def read_meta(path: str | os.PathLike) -> dict[str, Any]:
    """The entry ``meta`` of a training checkpoint, without reading its tensors.

    Raises:
        ValueError: If it cannot be read, or there is none.
    """
    content = _load_safely(os.fspath(path), "cpu", mmap=True)
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(meta, dict):
        raise ValueError(f"{path} is no checkpoint of a run: it does not say its epoch")
    return meta


def _read_safetensors(path: Path) -> dict[str, Any]:
    """What :func:`.save_state` wrote, as a file of torch would have it."""
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs safetensors: pip install 'safetensors>=0.4'"
        ) from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            notes = file.metadata() or {}
            tensors = OrderedDict((key, file.get_tensor(key)) for key in file.keys())
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(
            f"{path} cannot be read as safetensors: {misnamed(path) or brief(error)}"
        ) from error
    modules, meta = (_plain_values(notes.get(name)) for name in ("modules", "meta"))
    if modules:
        tensors._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name, entry) for name, entry in modules.items() if isinstance(entry, dict)
        )
    return {"state_dict": tensors, "meta": meta} if meta else tensors


def _plain_values(note: str | None) -> dict[str, Any]:
    """The values in a note; none if it is somebody else's, which may be any text."""
    try:
        values = json.loads(note or "{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_torch(path: Path, map_location: Any, trust: bool) -> Any:
    """Reads a file of ``torch.save``, or the tensors of one of ``torch.jit.save``."""
    try:
        if _check_archive(path):
            return read_torchscript(path, map_location)
        if trust:
            return torch.load(path, map_location=map_location, weights_only=False)
        return _load_safely(path, map_location)
    except Exception as error:  # a damaged file can fail anywhere
        if name := _refused_global(path, error):
            raise ValueError(
                f"{path} is refused: it refers to {name}, which a checkpoint does "
                "not need and which could run code; nothing of it was run. If you "
                f"trust whoever made the file, set {TRUST}=1 (for "
                "tools/convert_checkpoint.py: --trust)"
            ) from error
        raise ValueError(
            f"{path} cannot be read as a checkpoint: {misnamed(path) or _reason(error)}"
        ) from error


def _check_archive(path: Path) -> bool:
    """Verifies an archive's checksums, which torch does not; is it TorchScript's?"""
    with open(path, "rb") as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:
            return False
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename.lower() for entry in entries]
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(set(names)) != len(names):
            raise ValueError(
                "its archive was not written by torch, which has all files in one "
                "folder, and each once"
            )
        is_script = any(name.endswith(f"/{_SCRIPT}") for name in names)
        size = path.stat().st_size + is_script * _MOST_CODE
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its archive is compressed, as no checkpoint's is")
        if not check_seal(path, archive) and (damaged := archive.testzip()):
            raise ValueError(
                f"its record {damaged} does not match its checksum: the file was "
                "damaged on the disk or on the way; download or copy it again"
            )
    return is_script


def _load_safely(path: str | Path, map_location: Any, **options: Any) -> Any:
    """Reads what is on the list of allowed names."""
    if not _TAKES_NAMES:
        return _load_in_old_torch(path, map_location, **options)
    names: Any = [(value, name) for name, value in allowed_globals().items()]
    with torch.serialization.safe_globals(names):
        return torch.load(path, map_location=map_location, weights_only=True, **options)


def _load_in_old_torch(path: str | Path, map_location: Any, **options: Any) -> Any:
    """Reads with our unpickler where ``weights_only=True`` takes no list."""
    restricted = SimpleNamespace(
        Unpickler=RestrictedUnpickler,
        # torch reads the head of a file from before 1.6 with it.
        load=lambda file, **options: RestrictedUnpickler(file, **options).load(),
        __name__="restricted pickle",
    )
    return torch.load(
        path,
        map_location=map_location,
        weights_only=False,
        pickle_module=restricted,
        **options,
    )


def _refused_global(path: Path, error: Exception) -> str | None:
    """What a file refers to that is not on the list, if that is why it was refused."""
    if isinstance(error, UnknownGlobalError):
        return error.name
    try:  # a pickle of a kind that torch's reader does not know
        with open(path, "rb") as file:
            RestrictedUnpickler(file).load()
    except UnknownGlobalError as unknown:
        return unknown.name
    except Exception:
        pass
    match = re.search(r"GLOBAL (\S+) (was not an allowed|whose module)", str(error))
    return match[1] if match else None


def _reason(error: Exception) -> str:
    """What an error says, without torch's advice to read the file unsafely."""
    text = re.sub(r"Weights only load failed\.?.*WeightsUnpickler error: ", "",
                  str(error), flags=re.DOTALL)  # fmt: skip
    text = re.split(r"Check the documentation|Please file an issue|In PyTorch 2\.6",
                    text)[0]  # fmt: skip
    return brief(type(error)(text)) if text != str(error) else brief(error)
