"""Which state dict is in a file, and whether its weights are finite."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layouts import candidates, wrappers

# What parallel training and compilation put before every key.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")

# Types of numpy's that every torch has, too.
_NUMBERS = {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
}  # fmt: skip

# Networks of one file, the one that is evaluated first.
_NETWORKS = {
    name: rank
    for rank, name in enumerate(
        ("teacher", "target_encoder", "ema", "backbone", "encoder", "student")
    )
}

# An official segmentor's backbone is converted together with its heads.
_SEGMENTATION = re.compile(r"(decode|auxiliary)_head\.")


def strip_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """Takes off what parallel training or compilation put before every key."""
    stripped = dict(state)
    for prefix in _PREFIXES:
        if stripped and all(key.startswith(prefix) for key in stripped):
            stripped = {key[len(prefix) :]: x for key, x in stripped.items()}
    return stripped


def unwrap(
    content: Mapping[str, Any], key: str | None
) -> tuple[Mapping[str, Any], str | None, list[str]]:
    """The state dict in a file's content, the entry it is in, and which others are."""
    wrapper: str | None = None
    notes: list[str] = []
    state = content
    if key is not None and isinstance(content.get(key), Mapping):
        return content[key], key, notes
    # Trainers wrap what other code has wrapped already.
    while True:
        present = [x for x in wrappers() if isinstance(state.get(x), Mapping)]
        present = present or _only_network(state)
        if not present:
            return state, wrapper, notes
        wrapper = present[0]
        others = [x for x in present[1:] if state[x]]
        if others:
            notes.append(
                f"{wrapper!r} of the file is taken; key={others[0]!r} takes "
                f"{' or '.join(map(repr, others))}"
            )
        state = state[wrapper]


def _only_network(content: Mapping[str, Any]) -> list[str]:
    """The entry that holds tensors, by whatever name, if nothing else does."""
    arrays = (Tensor, np.ndarray)
    if any(isinstance(value, arrays) for value in content.values()):
        return []
    found = [
        name
        for name, value in content.items()
        if isinstance(value, Mapping)
        and any(isinstance(x, Tensor) for x in value.values())
    ]
    return found if len(found) == 1 else []


def network_in(
    tensors: dict[str, Tensor], key: str | None, wrapper: str | None
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The network below a name, such as the teacher's, where keys alone fit no layout.

    Returns:
        Its tensors, why others are left out, and which other networks there are.
    """
    names = dict.fromkeys(name.partition(".")[0] for name in tensors)
    ranked = sorted(names, key=lambda name: _NETWORKS.get(name, len(_NETWORKS)))
    known = {}
    for name in ranked if key is None else [key.rstrip(".")]:
        inner = {k[len(name) + 1 :]: x for k, x in tensors.items() if
                 k.startswith(f"{name}.")}  # fmt: skip
        if candidates(inner, wrapper):
            known[name] = inner
        elif inner and key is None:  # as teacher.backbone.
            deeper, _, _ = network_in(inner, "backbone", wrapper)
            if deeper is not inner:
                known[f"{name}.backbone"] = deeper
    if not known or any(_SEGMENTATION.match(name) for name in tensors):
        return tensors, {}, []
    taken, *others = known
    left_out = {
        k: f"not of {taken!r}" for k in tensors if not k.startswith(f"{taken}.")
    }
    notes = [f"{taken!r} is taken; key={x!r} takes another" for x in others]
    return known[taken], left_out, notes


def to_tensor(key: str, value: Any, wrapped: bool, path: str) -> Tensor | None:
    """A tensor from an array; None for what is no part of a state dict."""
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


def non_finite_keys(state: Mapping[str, Any]) -> list[str]:
    """Names the tensors with a value that is NaN or infinite.

    Masks of attention, which hold minus infinity, are left out.

    Args:
        state: A state dict.
    """
    floating = {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and value.numel()
        and not key.endswith("mask")
    }
    # NaN where one value is; read from the device together.
    largest = [value.detach().float().abs().max().cpu() for value in floating.values()]
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
