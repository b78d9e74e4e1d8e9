"""The part of a config an error is about: the traceback knows what was being built."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

# mmengine's functions that build, or use, a part of a config.
_USED_BY = {
    "build_train_loop": "train_cfg",
    "build_val_loop": "val_cfg",
    "build_optim_wrapper": "optim_wrapper",
    "build_param_scheduler": "param_scheduler",
    "build_evaluator": "val_evaluator",
    "build_log_processor": "log_processor",
    "build_logger": "log_level",
    "build_visualizer": "visualizer",
    "build_model": "model",
    "wrap_model": "model_wrapper_cfg",
    "set_randomness": "randomness",
    "setup_env": "env_cfg",
    "set_multi_processing": "env_cfg.mp_cfg",
    "init_dist": "env_cfg.dist_cfg",
    "register_default_hooks": "default_hooks",
    "register_custom_hooks": "custom_hooks",
    "scale_lr": "auto_scale_lr",
    "load_or_resume": "load_from",
    "turn_on_activation_checkpointing": "activation_checkpointing",
    "turn_on_efficient_conv_bn_eval": "efficient_conv_bn_eval",
    "_maybe_compile": "compile",
}
_MOST_VALUES = 8


def typed_parts(value: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """Yield every dict in a config that names a type, with its dotted key."""
    if isinstance(value, (dict, ConfigDict)):
        if "type" in value:
            yield path, value
        for key, child in value.items():
            yield from typed_parts(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, child in enumerate(value):
            yield from typed_parts(child, f"{path}.{index}")


def failing_part(error: BaseException, cfg: Config) -> str | None:
    """Name the part of a config in whose building or first use an error was raised.

    Args:
        error: What was raised.
        cfg: The config.

    Returns:
        Its path, class and plain values, or None if the traceback has no part of it.
    """
    parts = list(typed_parts(cfg._cfg_dict))
    found: str | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names = frame.f_locals
        place = _USED_BY.get(frame.f_code.co_name)
        if place and place.partition(".")[0] in cfg:
            found = place
        for node in (names.get("cfg"), names.get("dataloader"), names.get("hook")):
            if isinstance(node, Mapping) and node:
                found = _path_of(node, cfg, parts, found) or found
        user = type(names["self"]).__name__ if "self" in names else None
        if user and (place := _of_class(user, parts, found)):
            found = place
    return None if found is None else _described(found, cfg)


def _path_of(node: Mapping, cfg: Config, parts: list, within: str | None) -> str | None:
    """The path of a dict that is in a config, or was copied from it."""
    equal = [path for path, part in parts if part == node]
    equal += [key for key, value in cfg.items() if value == node]
    return _nearest(equal, within)


def _of_class(name: str, parts: list, within: str | None) -> str | None:
    """The path of the part that an object of a class was built from."""
    kinds = ((path, part["type"]) for path, part in parts)
    equal = [
        path
        for path, kind in kinds
        if getattr(kind, "__name__", str(kind)).rpartition(".")[2] == name
    ]
    return _nearest(equal, within)


def _nearest(paths: list[str], within: str | None) -> str | None:
    inside = [path for path in paths if within and path.startswith(within)]
    return next(iter(inside or paths), None)


def part_at(path: str, cfg: Config) -> Any:
    """The part of a config at a path, as :func:`typed_parts` writes it.

    Args:
        path: The path.
        cfg: The config.
    """
    node: Any = cfg._cfg_dict
    for key in path.split("."):
        node = node[int(key)] if isinstance(node, Sequence) else node.get(key)
    return node


def _described(path: str, cfg: Config) -> str:
    """A path, its class and its plain values."""
    part = part_at(path, cfg)
    if not isinstance(part, Mapping):
        return f"{path}={part!r}" if isinstance(part, str | int | float) else path
    plain = [
        f"{key}={value!r}"
        for key, value in part.items()
        if key != "type" and not isinstance(value, Mapping) and len(repr(value)) < 60
    ]
    kind = part.get("type", "")
    words = [getattr(kind, "__name__", str(kind))] if kind else []
    if plain:
        words.append(f"with {', '.join(plain[:_MOST_VALUES])}")
    return f"{path} ({' '.join(words)})" if words else path
