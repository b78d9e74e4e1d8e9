"""What ``--cfg-options`` changes, and how far it reaches.

A config file is Python: ``pipeline=train_pipeline`` copies the list when the file is
read, so that a new value under the short name alone would change nothing. An option
therefore reaches every copy of what it names, or is refused.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.runner import FlexibleRunner, Runner

# What the runner takes, what it looks up in the config besides, and what reads the
# config of a trained model: extraction of features (test_pipeline) and models by name.
READ = frozenset(
    {
        *inspect.signature(Runner.__init__).parameters,
        *inspect.signature(FlexibleRunner.__init__).parameters,
        "activation_checkpointing",
        "custom_imports",
        "efficient_conv_bn_eval",
        "find_unused_parameters",
        "model_wrapper_cfg",
        "runner_type",
        "sync_bn",
        "test_pipeline",
    }
) - {"self", "cfg", "launcher"}
# Of these, what a test has of its own. What training alone reads is no mistake there:
# one set of options may serve both.
VALIDATION = frozenset({"val_cfg", "val_dataloader", "val_evaluator"})
# What is read itself and may have copies that should follow.
_COPIED = frozenset({"test_pipeline", "val_dataloader", "val_evaluator"})


def apply_options(
    cfg: Config, options: dict[str, Any] | None, testing: bool = False
) -> None:
    """Merge ``--cfg-options`` into a config, copies of what they name included.

    A top-level name that nothing reads, such as ``train_pipeline`` or ``pretrained``,
    refers to the parts of the config that hold its value; ``data_root`` for the folder
    of every data set; ``val_dataloader`` for the test's as well where they are equal.
    An option by a longer key wins over one by such a name.

    Args:
        cfg: The config, changed in place.
        options: Values by dotted key.
        testing: Whether the config is read for a test, which has no validation.

    Raises:
        ValueError: If an option would change nothing, or has no place in the config;
            the message names the keys that would.
    """
    options = dict(options or {})
    known = _read_names(cfg)
    read = known - VALIDATION if testing else known
    reached: dict[str, Any] = {}
    for key, value in options.items():
        name, _, rest = key.partition(".")
        if key == "data_root":
            continue
        places = copies(cfg, name)
        if name not in read and not any(top_name(place) in read for place in places):
            raise ValueError(_unread(cfg, key, places, read, testing))
        if name == "test_pipeline" and not _reaches_test(cfg, places, testing):
            raise ValueError(_unread(cfg, key, places, read, testing))
        if name not in known or name in _COPIED:
            for place in places:
                reached[f"{place}.{rest}" if rest else place] = copy.deepcopy(value)
    if "data_root" in options:
        _move_data(cfg, options["data_root"], set(options))
    for key, value in [*reached.items(), *options.items()]:
        try:
            cfg.merge_from_dict({key: value})
        except Exception as error:
            raise ValueError(
                f"--cfg-options {key}={value!r} does not fit the config, where "
                f"{_what_is_at(cfg, key)}"
            ) from error


def _what_is_at(cfg: Config, key: str) -> str:
    """What a config has at a key, or at the longest part of it that it has."""
    known = dict(parts(cfg))
    names = key.split(".")
    while len(names) > 1 and ".".join(names) not in known:
        names.pop()
    path = ".".join(names)
    value = known.get(path)
    if isinstance(value, Mapping):
        return f"{path} is a dict with the keys {', '.join(map(str, value))}"
    if isinstance(value, list):
        return f"{path} is a list of {len(value)}, whose items keep their kind"
    return f"{path} is {value!r}, which is replaced as one"


def unread_names(cfg: Config) -> dict[str, Any]:
    """Folders, pipelines, checkpoints and the like that a config names and ignores.

    So it is with a child config that sets ``data_root`` alone: its base gave the data
    sets another folder when it was read.

    Args:
        cfg: The config.

    Returns:
        Values by name.
    """
    unread, read = {}, _read_names(cfg)
    names = "data_root pretrained train_pipeline test_pipeline data_preprocessor"
    for name in names.split():
        value = cfg.get(name)
        if not value or (name in read and name not in _COPIED):
            continue
        if name == "data_root":
            folders = [f for key, f in parts(cfg) if key.endswith(".data_root")]
            root = str(value).rstrip("/")
            used = not folders or any(_below(str(f), root) is not None for f in folders)
        elif name == "test_pipeline":
            used = _reaches_test(cfg, copies(cfg, name))
        else:
            used = any(top_name(place) in read for place in copies(cfg, name))
        if not used:
            unread[name] = value
    return unread


def _read_names(cfg: Config) -> frozenset[str]:
    """The top-level names of a config that are read."""
    # A model's own preprocessor wins over that of the config.
    model = cfg.get("model") or {}
    own = "data_preprocessor" in model.get("module", model)
    return READ - {"data_preprocessor"} if own else READ


def top_name(path: str) -> str:
    """The first name of a dotted key."""
    return path.partition(".")[0]


def _reaches_test(cfg: Config, places: list[str], testing: bool = False) -> bool:
    """Whether the test's pipeline is that of the data sets to test on.

    Pre-training has none; features are extracted by its pipeline.
    """
    loaders = [
        name
        for name in ("val_dataloader", "test_dataloader")
        if cfg.get(name) and not (testing and name in VALIDATION)
    ]
    return not loaders or any(top_name(place) in loaders for place in places)


def copies(cfg: Config, name: str) -> list[str]:
    """Dotted keys of the parts of a config that hold the value of a top-level name.

    Numbers, and tuples of them, are equal by chance too often.
    """
    value = cfg.get(name)
    if not value or not isinstance(value, (str, dict, list)):
        return []
    return [
        path
        for path, part in parts(cfg)
        if part == value and type(part) is type(value) and _may_copy(path, name)
    ]


def _may_copy(path: str, name: str) -> bool:
    if path == name or path.startswith(f"{name}."):
        return False
    if name in ("val_dataloader", "val_evaluator"):
        return path == name.replace("val_", "test_")
    # Training and test may do the same to images and yet be two.
    if name.startswith("train_"):
        return not path.startswith(("val_", "test_", "knn_", "custom_hooks."))
    if name.startswith(("val_", "test_", "tta_")):
        return not path.startswith("train_")
    return True


def parts(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a config with its dotted key, as --cfg-options takes it.

    Args:
        node: A config, or a part of it.
        path: Its own key.
    """
    if path:
        yield path, node
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, Mapping):
        children: Any = node.items()
    elif isinstance(node, list) or holds_parts(node):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from parts(child, f"{path}.{key}" if path else str(key))


def holds_parts(value: Any) -> bool:
    """Whether a value is made of others that have keys of their own.

    A tuple of numbers or names is one value.

    Args:
        value: A part of a config.
    """
    if isinstance(value, tuple):
        return any(isinstance(x, (Mapping, list, tuple)) for x in value)
    return isinstance(value, (Mapping, list)) and bool(value)


def _unread(
    cfg: Config, key: str, places: list[str], read: frozenset[str], testing: bool
) -> str:
    """Say that nothing reads what an option changes, and what to write instead."""
    name, _, rest = key.partition(".")
    if testing and (name in VALIDATION or places):
        message = f"--cfg-options {key}=…: a test does not read {name}"
    elif name in cfg:
        message = (
            f"--cfg-options {key}=…: nothing reads {name} of this config, whose value "
            "was copied when the file was read, or replaced"
        )
    else:
        message = f"--cfg-options {key}=…: this config has no {name}, nothing reads it"
    if name.startswith("knn_"):
        return f"{message}. Give it to a KNNHook in custom_hooks"
    meant = _meant(cfg, name, read)
    meant = meant or difflib.get_close_matches(name, read & cfg.keys(), n=1)
    keys = [f"{place}.{rest}" if rest else place for place in meant]
    if keys:
        return f"{message}. Write instead: {' or '.join(keys)}"
    return f"{message}. --print-config of tools/train.py shows what there is"


def _meant(cfg: Config, name: str, read: frozenset[str], most: int = 6) -> list[str]:
    """Keys of what a name that nothing reads may have been meant for."""
    part, _, kind = name.partition("_")
    # A validation has the test's pipeline.
    words = ("test", "val") if part == "test" else (part,)
    value_of = cfg.get(name)
    number = isinstance(value_of, (int, float, tuple)) and value_of is not True
    exact, similar = [], []
    for path, value in parts(cfg):
        parent, _, last = path.rpartition(".")
        if (
            top_name(path) not in read
            or not parent
            or path.startswith("test_pipeline.")
        ):
            continue
        if name == "pretrained":
            if last == "checkpoint" and not isinstance(value, Mapping):
                exact.append(path)
        elif last == name or (last == kind and any(word in path for word in words)):
            exact.append(path)
        elif last == kind:
            similar.append(path)
        elif number and value == value_of and type(value) is type(value_of):
            exact.append(path)
    if name.endswith("_dataloader") and f"test_{kind}" in read & cfg.keys():
        exact.append(f"test_{kind}")
    return (exact or similar)[:most]


def _move_data(cfg: Config, new: str, options: set[str]) -> None:
    """Give every data set of a config, and its metrics, another folder.

    Args:
        cfg: The config, changed in place.
        new: The folder.
        options: Keys that are set otherwise, which are left alone.

    Raises:
        ValueError: If there is no data set with a folder, the data sets lie in several
            folders, or a metric reads a file of none of them.
    """
    sets: dict[str, Any] = {
        path: node
        for path, node in parts(cfg)
        if isinstance(node, Mapping)
        and isinstance(node.get("data_root"), str)
        and f"{path}.data_root" not in options
    }
    old = {path: node["data_root"].rstrip("/") for path, node in sets.items()}
    if not sets:
        raise ValueError(
            "--cfg-options data_root=… replaces the folder of every data set, but this "
            "config has none with a data_root; name the data set's own keys, as in "
            "train_dataloader.dataset.data_prefix=…"
        )
    root = min(old.values(), key=len)
    if any(_below(folder, root) is None for folder in old.values()):
        named = ", ".join(
            f"{path}.data_root={node['data_root']}" for path, node in sets.items()
        )
        raise ValueError(
            "--cfg-options data_root=… replaces the folder of every data set, but "
            f"those of this config lie in several: {named}. Set these keys instead, "
            "each to its folder"
        )
    for node in sets.values():
        below = _below(node["data_root"], root)
        node["data_root"] = join_path(new, below) if below else new
    for path, node in parts(cfg):
        if isinstance(node, Mapping) and path.endswith(("_dataloader", "_evaluator")):
            _move_files(node, root, new)
    _move_annotations(cfg, new, options)
    if "data_root" in cfg:
        cfg.data_root = new


def _below(path: str, root: str) -> str | None:
    """A path relative to a folder, or None if it does not lie in it."""
    if path.rstrip("/") == root:
        return ""
    return path[len(root) + 1 :] if path.startswith(f"{root}/") else None


def _move_files(node: Any, root: str, new: str) -> None:
    """Replaces the folder of the files that loaders and metrics name."""
    children: Any = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, child in list(children):
        if isinstance(child, (Mapping, list)):
            _move_files(child, root, new)
        elif key != "data_root" and isinstance(child, str) and root:
            below = _below(child, root)
            if below:
                node[key] = join_path(new, below)


def _move_annotations(cfg: Config, new: str, options: set[str]) -> None:
    """Gives metrics the annotations of the data set they judge.

    Raises:
        ValueError: If a metric has a file that is neither its data set's nor in the
            folder.
    """
    for part in ("val", "test"):
        metrics = cfg.get(f"{part}_evaluator")
        loader = cfg.get(f"{part}_dataloader")
        if not metrics or not loader:
            continue
        own = (loader.get("dataset") or {}).get("ann_file")
        many = isinstance(metrics, list)
        for index, metric in enumerate(metrics if many else [metrics]):
            file = metric.get("ann_file")
            key = f"{part}_evaluator{f'.{index}' if many else ''}.ann_file"
            if not isinstance(file, str) or key in options:
                continue
            if _below(file, str(new).rstrip("/")) is not None:
                continue
            if not own or not file.endswith(f"/{own}"):
                raise ValueError(
                    f"--cfg-options data_root=… does not reach {key}={file}, which is "
                    f"no file of the data set's folder; set {key} as well"
                )
            metric["ann_file"] = join_path(new, own)
