"""The layouts of checkpoints: foreign keys, and how they become ours and back.

A layout is a :class:`Layout` in a file of this folder, under the name ``LAYOUT``.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from torch import Tensor

from .key_rules import has_key

State = dict[str, Tensor]

# Masks of shifted windows, which Swin Transformers compute and some files hold.
SHIFT_MASK = re.compile(r"layers\.\d+\.blocks\.\d+\.attn_mask$")

# Names under which training scripts wrap the state dict, the first one that is there
# counts: of a network and its moving average the network, of a teacher and a student
# the teacher, which is the one that is evaluated.
_WRAPPERS = (
    "state_dict", "model", "module", "model_state", "model_state_dict", "net",
    "network", "teacher", "student", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip

_HEADS_UNKNOWN = (
    "the number of attention heads cannot be inferred from the weights: a model with "
    "another one loads without complaint and computes something else (DeiT-Tiny has 3, "
    "MAE-Lite's ViT-Tiny 12; DeiT-Small 6, MAE-Lite's and MIRL's 12)"
)


@dataclass(frozen=True)
class Options:
    """What a user decides about a conversion to our keys.

    Args:
        source: Where the tensors are from, for messages.
        part: ``'student'``, or ``'teacher'`` for the one in a distillation checkpoint.
        merge_order: What pre-training weights of a LocalMIM Swin do, see
            :func:`.localmim.convert_official`.
    """

    source: str = "checkpoint"
    part: str = "student"
    merge_order: str = "trained"


def advise_heads(native: Mapping[str, Tensor], heads: int | None) -> list[str]:
    """What is known of a Vision Transformer's attention heads, for the user."""
    cls = native.get("backbone.cls_token")
    if cls is None:
        return []
    if heads is None:
        return [_HEADS_UNKNOWN]
    return [f"{heads} attention heads of {cls.shape[-1] // heads} channels"]


@dataclass(frozen=True)
class Layout:
    """A layout of checkpoints.

    A new one is found, detected, converted and offered by the command line without
    another edit.

    Args:
        name: As the command line takes it.
        title: In words.
        to_native: Converts tensors to our keys; raises a ``KeyError`` for a key that is
            not accounted for.
        marks: Patterns; a state dict is in this layout if one of its keys starts with
            one of them,
        unless: unless a key starts with one of these,
        condition: and if it fulfils this.
        chosen_by: Whether a model, by its keys, decides for this layout where others
            fit as well.
        wrappers: Entries of a file that hold a state dict in this layout alone.
        dropped: What is left out on purpose: patterns of complete keys, and reasons.
        split: Splits off what is left out, with the reasons; by default by ``dropped``.
            Raises a ``KeyError`` if the part that is asked for is not in it.
        one_to_one: Whether every native key comes from one foreign key.
        num_heads: Attention heads, of a Hiera of its first stage; None if unknown.
        record: What is needed to convert back and cannot be inferred from our keys.
        advise: Sentences for whoever builds the model, from our state dict and the
            attention heads.
        writes: Whether our state dict, recorded metadata given, is of a model whose
            official layout this is. The layout it was converted from is asked first.
        to_official: The inverse of ``to_native``, from our state dict, what was
            recorded, and the side of the images in pixels, on which the masks of
            shifted windows depend that official Swin files hold.
    """

    name: str
    title: str
    to_native: Callable[[State, Options], Mapping[str, Tensor]]
    marks: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    condition: Callable[[Mapping[str, Any]], bool] = lambda state: True
    chosen_by: Callable[[Iterable[str]], bool] = lambda keys: False
    wrappers: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    split: Callable[[State, Options], tuple[State, dict[str, str]]] | None = None
    one_to_one: bool = True
    num_heads: Callable[[State], int | None] = lambda state: None
    record: Callable[[State, Options], dict[str, Any]] = lambda state, options: {}
    advise: Callable[[Mapping[str, Tensor], int | None], list[str]] = advise_heads
    writes: Callable[[State, Mapping[str, Any]], bool] = lambda native, recorded: False
    to_official: Callable[[State, Mapping[str, Any], int], State] | None = None

    def detects(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict is in this layout, as its keys (and shapes) show."""
        marked = has_key(state, *self.marks) and not has_key(state, *self.unless)
        return marked and self.condition(state)


@cache
def layouts() -> dict[str, Layout]:
    """All layouts by name, ours first."""
    names = (x.name for x in pkgutil.iter_modules(__path__))
    modules = (import_module(f"{__name__}.{name}") for name in names)
    found = [module.LAYOUT for module in modules if hasattr(module, "LAYOUT")]
    found.sort(key=lambda layout: layout.name != "mmpretrain")
    return {layout.name: layout for layout in found}


@cache
def wrappers() -> tuple[str, ...]:
    """Entries of a file that may hold the state dict, in the order of preference."""
    own = (name for layout in layouts().values() for name in layout.wrappers)
    return (*_WRAPPERS, *own)


def candidates(state: Mapping[str, Any], wrapper: str | None = None) -> list[Layout]:
    """The layouts that a state dict, found in an entry of a file, may be in."""
    by_wrapper = [x for x in layouts().values() if wrapper in x.wrappers]
    return by_wrapper or [x for x in layouts().values() if x.detects(state)]


def drop(
    state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]
) -> tuple[State, dict[str, str]]:
    """Splits off the keys that complete patterns match, with the reasons."""
    rules = [*rules, (rf".*{SHIFT_MASK.pattern}", "masks of shifted windows, computed")]
    kept, dropped = {}, {}
    for key, value in state.items():
        reason = next((why for mark, why in rules if re.fullmatch(mark, key)), None)
        if reason is None:
            kept[key] = value
        else:
            dropped[key] = reason
    return kept, dropped


def has_paddle_matrices(state: Mapping[str, Any]) -> bool:
    """Whether linear weights are (in, out), as in no file but PaddlePaddle's."""
    shape: Any = getattr(state.get("blocks.0.attn.qkv.weight"), "shape", ())
    return len(shape) == 2 and shape[1] > shape[0]


def oblong_matrices(state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Oblong matrices that are (in, out), as PaddlePaddle's, and that are (out, in)."""
    ways: dict[bool, list[str]] = {True: [], False: []}
    for key, weight in state.items():
        bias = state.get(key.replace(".weight", ".bias").replace("weight_v", "bias"))
        if weight.ndim == 2 and bias is not None and weight.shape[0] != weight.shape[1]:
            ways[weight.shape[1] == len(bias)].append(key)
    return ways[True], ways[False]
