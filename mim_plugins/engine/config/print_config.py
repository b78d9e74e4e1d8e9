"""The final config of a run, with where each changed value came from."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...model_index import config_folder
from ..errors import explained
from ..prepare import training_config
from .file import drop_scope
from .overrides import holds_parts, parts

_ABSENT = object()


def annotated_config(config: str | Path, **options: Any) -> str:
    """Return a run's config as a file that can be run, and what was changed in it.

    The comments at its end name each value that differs from what the deepest file of
    the chain says, or that is set by none but the config itself: the file, the option
    or the step of the launcher it comes from, and what it was before.

    Args:
        config: Path of the config file.
        **options: As of :func:`mim_plugins.engine.train`.
    """
    path = str(config)
    files: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    origins: dict[str, tuple[str, Any]] = {}

    def step(name: str, cfg: Config) -> None:
        nonlocal values
        now = _flat(cfg)
        for key in values.keys() | now.keys():
            before = values.get(key, _ABSENT)
            if now.get(key, _ABSENT) != before:
                origins[key] = (name, before)
        values = now

    with explained():
        if Path(path).is_file():
            values = _values(path, files)
            for key, value in values.items():
                file, before = _origin(path, key, value, files)
                if file == path or before is not _ABSENT:
                    origins[key] = (file, before)
        cfg, _ = training_config(config, step=step, **options)
    lines = [
        f"# {key} = {values[key]!r}  <- {name}{_was(before)}"
        if key in values
        else f"# {key} removed  <- {name}{_was(before)}"
        for key, (name, before) in sorted(origins.items())
    ]
    return "\n".join([cfg.pretty_text, "# Where changed values come from:", *lines])


def base_files(config: str) -> list[str]:
    """Return the paths of the files a config inherits from directly.

    Args:
        config: Path of a Python config file.
    """
    for node in ast.parse(Path(config).read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and getattr(node.targets[0], "id", "") == "_base_"
        ):
            bases = ast.literal_eval(node.value)
            bases = [bases] if isinstance(bases, str) else bases
            ours = f"{__name__.partition('.')[0]}::"
            return [
                str(config_folder() / base.removeprefix(ours))
                if base.startswith(ours)
                else os.path.normpath(os.path.join(os.path.dirname(config), base))
                for base in bases
                if base.startswith(ours) or "::" not in base  # of another package
            ]
    return []


def _origin(
    config: str, key: str, value: Any, files: dict[str, dict[str, Any]]
) -> tuple[str, Any]:
    """The file that sets a value, and what it was in the files below that one."""
    before: Any = _ABSENT
    for base in base_files(config):
        inherited = _values(base, files).get(key, _ABSENT)
        if inherited == value:
            return _origin(base, key, value, files)
        if inherited is not _ABSENT:
            before = inherited
    return config, before


def _values(config: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The values of a file and its bases; each file is read once."""
    if config not in files:
        cfg = Config.fromfile(config, import_custom_modules=False)
        drop_scope(cfg._cfg_dict)
        files[config] = _flat(cfg)
    return files[config]


def _flat(cfg: Config) -> dict[str, Any]:
    """Values by dotted key, without the dicts and lists that hold others."""
    return {key: value for key, value in parts(cfg) if not holds_parts(value)}


def _was(before: Any) -> str:
    return "" if before is _ABSENT else f" (before: {before!r})"
