"""Reading a config file, with its mistakes named by file and line."""

from __future__ import annotations

import difflib
import traceback
from pathlib import Path
from typing import Any

from mmengine.config import Config

_PACKAGE = __name__.partition(".")[0]


def read_config(config: str | Path) -> Config:
    """Read a config file and those it inherits from.

    Args:
        config: Path of the file.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is no valid config, with file and line where they are known.
    """
    path = Path(config)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean {path.parent / close[0]}?" if close else ""
        raise FileNotFoundError(f"The config file {path} does not exist.{hint}")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise ValueError(_explanation(path, error)) from error
    drop_scope(cfg._cfg_dict)
    return cfg


def drop_scope(node: Any) -> None:
    """Leave the scope of what is inherited from ``mim_plugins::`` to the config.

    mmengine notes the package of such a base in its parts, as the scope of their names.
    This package's names are in the scopes of the toolboxes: ``default_scope`` decides,
    as in the base itself.

    Args:
        node: A config's content, changed in place.
    """
    if isinstance(node, dict):
        if node.get("_scope_") == _PACKAGE:
            del node["_scope_"]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            drop_scope(child)


def _explanation(path: Path, error: Exception) -> str:
    """Where in which file an error is, and what it is."""
    file, line = str(path), None
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_name
        if name in ("_file2dict", "_parse_lazy_import"):
            # Of the config, or of one that it inherits from.
            file = str(frame.f_locals.get("filename", file))
        elif name == "<module>" and frame.f_code.co_filename == file:
            line = number
    message = " ".join(str(error).split())
    if "import_modules_from_strings" in traceback.format_exc():
        message = (
            f"custom_imports must be a dict with imports, a list of names: {message}"
        )
    if isinstance(error, SyntaxError):
        line = error.lineno
        message = f"{error.msg}: {(error.text or '').strip()}"
    where = file if line is None else f"{file}, line {line}"
    return f"{where}: {type(error).__name__}: {message}"
