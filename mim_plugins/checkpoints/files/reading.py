"""From a file, or an address, to its tensors, without running what is in it."""

from __future__ import annotations

import math
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from ..layouts import Layout, candidates, wrappers
from ..metadata import MERGE_COORDINATES, NUM_HEADS
from .allow_list import brief
from .download import local_path
from .file_types import check_file, misnamed
from .paddle import read_paddle_state_dict
from .torch_files import read_torch
from .writing import with_metadata

# What parallel training and compilation add to names.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
_INFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")

# Types of numpy's that every torch has, too.
_NUMBERS = {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
}  # fmt: skip


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
    """

    path: str
    content: Mapping[str, Any]
    tensors: dict[str, Tensor]
    wrapper: str | None
    metadata: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, content: Mapping[str, Any], path: str = "checkpoint") -> Checkpoint:
        """Unwraps what a file holds; arrays of numbers are taken as tensors.

        Args:
            content: What was read.
            path: Where it is from, for messages.

        Raises:
            ValueError: If a key is not a name, or what goes by the name of a parameter
                (``a.b``) is numbers, but neither a tensor nor such an array: left out,
                it would silently be missing. Or if a tensor is not finite.
        """
        wrapper = next(
            (x for x in wrappers() if isinstance(content.get(x), Mapping)), None
        )
        state = content if wrapper is None else content[wrapper]
        if not isinstance(content.get("state_dict", state), Mapping):
            raise ValueError(
                f"{path}: its state_dict is a {type(content['state_dict']).__name__}, "
                "not a dict of tensors"
            )
        tensors = {}
        for key, value in state.items():
            if not isinstance(key, str):
                raise ValueError(f"{path}: {key!r:.80} in its state dict is not a name")
            tensor = _as_tensor(key, value, wrapper is not None, path)
            if tensor is not None:
                tensors[key] = tensor
        refuse_non_finite(tensors, path)
        metadata = {}
        for name, entry in getattr(state, "_metadata", {}).items():
            bare = f"{name}."
            for infix in _INFIXES:
                bare = bare.replace(infix, "")
            metadata[bare.rstrip(".")] = entry
        return cls(path, content, strip_prefixes(tensors), wrapper, metadata)

    @cached_property
    def candidates(self) -> list[Layout]:
        """The layouts its keys may be in: none, one, or several."""
        return candidates(self.tensors, self.wrapper)

    def num_heads(self, prefix: str | None = None) -> int | None:
        """Attention heads the encoder was trained with, if the file records them.

        Args:
            prefix: Of the encoder's keys, where it is not ``'backbone.'``.
        """
        names = ("backbone", "") if prefix is None else (prefix.rstrip("."),)
        heads = (self.metadata.get(name, {}).get(NUM_HEADS) for name in names)
        return next((number for number in heads if isinstance(number, int)), None)

    @property
    def merge_coordinates(self) -> str | None:
        """The token coordinates a Swin Transformer was pre-trained with.

        Returns:
            ``'official'``, ``'correct'``, or None if the file does not record them.
        """
        return next(
            (x[MERGE_COORDINATES] for x in self.metadata.values()
             if MERGE_COORDINATES in x), None
        )  # fmt: skip


def read(
    path: str | os.PathLike, map_location: Any = "cpu", trust: bool = False
) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: A file of ``torch.save`` or ``torch.jit.save``, of safetensors
            (``.safetensors``), or of PaddlePaddle (``.pdparams``, ``.pd``); or the
            address of one, which is downloaded once.
        map_location: Where its tensors go, as ``torch.load``'s.
        trust: Whether a file of torch may run code, see :func:`.read_torch`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a safetensors file and safetensors is not installed.
        ValueError: If it is not a checkpoint, is damaged, refers to code, or holds no
            tensors.
    """
    checkpoint = Checkpoint.of(read_content(path, map_location, trust), os.fspath(path))
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
    local = local_path(path)
    if local is None:  # an address that mmengine knows, such as a name of OpenMMLab's
        return CheckpointLoader.load_checkpoint(path, map_location)
    check_file(local)
    if local.suffix == ".safetensors":
        return _read_safetensors(local)
    if local.suffix in (".pdparams", ".pd"):
        return dict(read_paddle_state_dict(local))
    content = read_torch(local, map_location, trust)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors"
        )
    return content


def strip_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """Takes off what parallel training or compilation put before every key."""
    stripped = dict(state)
    for prefix in _PREFIXES:
        if stripped and all(key.startswith(prefix) for key in stripped):
            stripped = {key[len(prefix) :]: x for key, x in stripped.items()}
    return stripped


def non_finite_keys(state: Mapping[str, Any]) -> list[str]:
    """Names the tensors with a value that is NaN or infinite.

    Minus infinity alone is none: masks of attention hold it.

    Args:
        state: A state dict.
    """
    floating = {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    # The maximum is NaN where one value is; read from the device together.
    largest = [value.detach().float().max().cpu() for value in floating.values()]
    return [key for key, x in zip(floating, largest, strict=True) if not x < math.inf]


def refuse_non_finite(state: Mapping[str, Any], path: str) -> None:
    """Refuses weights of a training that went wrong.

    Args:
        state: A state dict.
        path: Where it is from, for the message.

    Raises:
        ValueError: If a tensor is not finite.
    """
    if bad := non_finite_keys(state):
        raise ValueError(
            f"{path}: {len(bad)} of its {len(state)} tensors hold values that are NaN "
            f"or infinite, {bad[0]} first: the training it is from went wrong. Take an "
            "earlier checkpoint"
        )


def _as_tensor(key: str, value: Any, wrapped: bool, path: str) -> Tensor | None:
    """A tensor, or None for what is no part of a state dict.

    Raises:
        ValueError: If it is numbers by the name of a parameter, and no tensor.
    """
    if isinstance(value, Tensor):
        return value
    # Next to tensors without a wrapper are arrays of other kinds, such as the state of
    # a random number generator.
    named = wrapped or "." in key
    if named and isinstance(value, np.ndarray) and value.dtype.name in _NUMBERS:
        native = value.astype(value.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(native))
    if re.search(r"\w\.\w+$", key) and _is_numeric(value):
        raise ValueError(
            f"{path}: {key} is a {type(value).__name__}, not a tensor: the file was "
            "changed by hand. Give the original, or save it as a tensor"
        )
    return None


def _is_numeric(value: Any) -> bool:
    """Whether a value is, or is a list of, numbers."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _is_numeric(value[0])
    numeric = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    return numeric or isinstance(value, (int, float, complex, np.number))


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Reads a safetensors file, with the metadata :func:`.save_state` wrote.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If it is damaged.
    """
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
        return with_metadata(tensors, notes)
    except Exception as error:  # a damaged file can fail anywhere
        raise ValueError(
            f"{path} cannot be read as safetensors: {misnamed(path) or brief(error)}"
        ) from error
