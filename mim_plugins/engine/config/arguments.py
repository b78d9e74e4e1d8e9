"""The keys of a config's parts, compared with the classes they are built from."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry, root
from mmengine.runner import Runner

from ..errors import accepted_keys, registered_classes, similar, typed_parts
from .overrides import READ
from .value_kinds import FLAG, TEXT, is_sequence, number

# What is taken out of a part before the class is called, by where it is.
_TAKEN_OUT = {
    "default_hooks": ("priority",),
    "custom_hooks": ("priority",),
    "param_scheduler": ("convert_to_iter_based", "epoch_length"),
    "optim_wrapper": ("optimizer", "constructor", "paramwise_cfg"),
    "train_cfg": ("by_epoch",),
}
# Parts that functions of their own build, which take further keys; parts of the model
# may, too, but are built at the start anyway.
_OTHERS = re.compile(r"(norm|conv|act|upsample|init)_cfg$|\bmetainfo\b|\bpolicies\b")

_PACKAGE = __name__.partition(".")[0]
_REAL, _WHOLE = number(), number(whole=True)


def check_arguments(cfg: Config) -> None:
    """Refuse keys that the class of a part does not have, and values of a wrong type.

    mmengine finds an unknown key when the part is built, which for a hook's checkpoints
    or a data set of the validation may be after an epoch. A class with ``**kwargs``
    takes any key but a misspelt one. Types are those of this package's annotations.

    Args:
        cfg: The config, not built yet.

    Raises:
        ValueError: Naming the key, its part, and what it takes.
    """
    scope = cfg.get("default_scope") or "mmengine"
    for path, part in typed_parts(cfg._cfg_dict):
        top = path.partition(".")[0]
        if top not in READ or _OTHERS.search(path):
            continue
        kind = part["type"]
        built = _registered(kind, scope) if isinstance(kind, str) else [kind]
        # What a model is made of is built at the start, by functions of its own, too.
        if not built and top != "model" and "." not in kind:
            raise ValueError(f"{path}.type={kind!r} is not known.{_hint(kind)}")
        classes = [x for x in built if inspect.isclass(x)]
        problems = [_problem(path, top, part, cls) for cls in classes]
        # Several toolboxes may have a class of the name.
        if problems and all(problems):
            raise ValueError(problems[0])


def _registered(kind: str, scope: str) -> list[Any]:
    """The classes and functions that a name may refer to."""
    prefix, _, name = kind.rpartition(".")
    with suppress(ImportError, TypeError, ValueError):
        importlib.import_module(f"{prefix or scope}.registry")
    found = []
    for registry in vars(root).values():
        if not isinstance(registry, Registry):
            continue
        for one in (registry.children.get(prefix or scope), registry):
            if one is not None:
                one.import_from_location()
                built = one.module_dict.get(name)
                if built is not None and built not in found:
                    found.append(built)
    return found


def _hint(kind: str) -> str:
    known = registered_classes()
    if kind in known:
        owner = known[kind].__module__.partition(".")[0]
        return f" {owner} has it: set default_scope to {owner!r}"
    return similar(kind, known)


def _problem(path: str, top: str, part: Mapping, cls: type) -> str | None:
    """What is wrong with the keys of a part, if it is of a class."""
    known = accepted_keys(cls)
    if issubclass(cls, CheckpointHook):
        # Handed on when a checkpoint is written.
        known += list(inspect.signature(Runner.save_checkpoint).parameters)[1:]
    taken = ("type", "_scope_", *_TAKEN_OUT.get(top, ()))
    for key, value in part.items():
        if key in taken:
            continue
        if key not in known and top != "model":
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.8)
            if close or not _takes_any(cls):
                hint = f" Did you mean {close[0]!r}?" if close else ""
                return (
                    f"{cls.__name__} has no key {key!r} ({path}).{hint} "
                    f"Accepted keys: {', '.join(known)}."
                )
        elif wanted := _misfit(cls, key, value):
            return f"{path}.{key} of {cls.__name__} must be {wanted}, but is {value!r}"
    return None


def _takes_any(cls: type) -> bool:
    """Whether a class has ``**kwargs``, whatever it does with them."""
    if issubclass(cls, CheckpointHook):
        return False
    init = next(vars(x)["__init__"] for x in cls.__mro__ if "__init__" in vars(x))
    if init is object.__init__:
        return True
    parameters = inspect.signature(init).parameters.values()
    return any(x.kind is inspect.Parameter.VAR_KEYWORD for x in parameters)


def _misfit(cls: type, key: str, value: Any) -> str | None:
    """What an argument of this package's classes must be, if a value is not."""
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if init is None or base.__module__.partition(".")[0] != _PACKAGE:
            continue
        if key in inspect.signature(init).parameters:
            try:
                hints = typing.get_type_hints(init)
            except NameError:  # an annotation that is imported for type checks only
                return None
            wanted = hints.get(key, Any)
            return None if _fits(value, wanted) else _words(wanted)
    return None


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a config's value may be given where an annotation stands.

    Tuples and lists are one, and a dict or a name may become any object.
    """
    kind, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if kind in (typing.Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is typing.Literal:
        return value in inner
    kind = kind or wanted
    if kind in (None, NoneType):
        return value is None
    if kind is bool:
        return FLAG.fits(value)
    if kind is int:
        return _WHOLE.fits(value)
    if kind is float:
        return _REAL.fits(value)
    if kind is str:
        return isinstance(value, str)
    if not inspect.isclass(kind):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if kind.__name__ in ("list", "tuple", "Sequence", "Collection"):
        if not is_sequence(value):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            if len(value) != len(inner):
                return False
            return all(map(_fits, value, inner))
        return not inner or all(_fits(x, inner[0]) for x in value)
    if isinstance(value, (Mapping, str)) or callable(value) or kind is object:
        return True
    return isinstance(value, kind)


def _words(wanted: Any) -> str:
    """An annotation in words."""
    return " or ".join(_each(wanted))


def _each(wanted: Any) -> Iterator[str]:
    kind, inner = typing.get_origin(wanted), typing.get_args(wanted)
    plain = {bool: FLAG, int: _WHOLE, float: _REAL, str: TEXT}
    if kind in (typing.Union, UnionType):
        for one in inner:
            yield from _each(one)
    elif kind is typing.Literal:
        yield from map(repr, inner)
    elif wanted is NoneType:
        yield "None"
    elif wanted in plain:
        yield plain[wanted].wanted
    elif inspect.isclass(kind or wanted) and issubclass(kind or wanted, Mapping):
        yield "a dict"
    elif kind is not None and inner:
        fixed = kind is tuple and inner[-1] is not Ellipsis
        yield f"a list of {len(inner) if fixed else ''}".rstrip() + (
            f" {'values' if fixed else 'values, each ' + _words(inner[0])}"
        )
    else:
        yield f"a {getattr(wanted, '__name__', wanted)}"
