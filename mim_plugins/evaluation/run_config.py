"""The config that training leaves next to its checkpoint, read but not executed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmpretrain import registry as registries

from ..engine.errors import registered_classes, typed_parts
from ..models.selfsup.image_loading import trained_steps

# Packages that are imported anyway, so that a config may import their modules.
_TRUSTED = ("mim_plugins", "mmpretrain", "mmdet", "mmseg", "mmcv", "mmengine")

# The entries of a config from which objects are built for feature extraction.
_BUILT = ("model", "data_preprocessor", "test_pipeline", "test_dataloader")


def config_next_to(checkpoint: str | Path | None) -> tuple[str, Config]:
    """Reads the config that training has left next to a checkpoint.

    The user has not named it, so it may be anything that was downloaded along with the
    checkpoint. mmengine would execute it; here it is only parsed, and may contain no
    more than a dumped config does: literal values and types that are registered.

    Args:
        checkpoint: Path of the checkpoint.

    Returns:
        The path of the config, and the config.

    Raises:
        ValueError: If there is not exactly one, or it has more than literal values.
    """
    found = sorted(Path(checkpoint).parent.glob("*.py")) if checkpoint else []
    if len(found) != 1:
        where = f"there are {len(found)} config files next to {checkpoint}"
        raise ValueError(
            "name the model, or its config file (--model)"
            + (f": {where}" if checkpoint else ", and give its weights (--checkpoint)")
        )
    (path,) = found
    try:
        values = _checked(path.read_text(encoding="utf-8"))
    except (ValueError, SyntaxError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path}, the only Python file next to {checkpoint}, is not accepted as "
            f"the config of its run: {error}. None of it was executed. If you trust "
            f"it, name it: --model {path}"
        ) from error
    return str(path), Config(values, filename=str(path))


def parse_config(text: str) -> Config:
    """Reads a config that training has dumped, without executing it.

    Args:
        text: The content of the file.

    Returns:
        The config.

    Raises:
        SyntaxError: If it is not Python.
        ValueError: If there is anything but literal values and registered types.
    """
    return Config(_checked(text))


def _checked(text: str) -> dict[str, Any]:
    """The values of a dumped config; raises as :func:`parse_config`."""
    values = _values(text)
    _check_names(values)
    return values


def _values(text: str) -> dict[str, Any]:
    """The values of assignments, by name.

    Raises:
        SyntaxError: If it is not Python.
        ValueError: If there is anything but assignments of literal values.
    """
    values = {}
    for statement in ast.parse(text).body:
        target = getattr(statement, "targets", [None])[0]
        if (
            not isinstance(statement, ast.Assign)
            or not isinstance(target, ast.Name)
            or len(statement.targets) > 1
        ):
            if _is_text(statement):
                continue
            raise ValueError(
                f"line {statement.lineno} is more than `name = value`, which is all "
                "that a dumped config has"
            )
        values[target.id] = _value(statement.value)
    return values


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _value(node: ast.expr) -> Any:
    """Evaluates an expression of literals and ``dict(name=value)``.

    Raises:
        ValueError: If it is any other expression.
    """
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            if all(word.arg for word in keywords):
                return {str(word.arg): _value(word.value) for word in keywords}
        case ast.Call(
            func=ast.Name(id="dict"), args=[ast.Dict() as given], keywords=[]
        ):
            return _value(given)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            names = [_value(key) for key in keys if key is not None]
            return dict(zip(names, map(_value, values), strict=True))
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Constant() | ast.UnaryOp() | ast.Set() | ast.BinOp():
            return ast.literal_eval(node)
    raise ValueError(f"line {node.lineno} has more than literal values")


def _check_names(values: dict[str, Any]) -> None:
    """Rejects entries that make mmengine import other modules.

    Raises:
        ValueError: If there are any.
    """
    if "_base_" in values:
        raise ValueError("it names other files (_base_)")
    imports = (values.get("custom_imports") or {}).get("imports") or []
    for name in [imports] if isinstance(imports, str) else imports:
        if str(name).split(".")[0] not in _TRUSTED:
            raise ValueError(f"it imports {name} (custom_imports)")
    known = registered_classes()
    for registry in vars(registries).values():
        if isinstance(registry, Registry):
            registry.import_from_location()
            known |= registry.module_dict
    built = {name: values[name] for name in _BUILT if name in values}
    built["train_pipeline"] = [
        step for steps in trained_steps(values) for step in steps
    ]
    for where, part in typed_parts(built):
        scope, _, name = str(part["type"]).rpartition(".")
        if scope not in ("", "mmcls", *_TRUSTED) or name not in known:
            raise ValueError(f"its type {part['type']!r} ({where}) is not registered")
        if "_scope_" in part:
            raise ValueError(f"it has a _scope_ of its own ({where})")
