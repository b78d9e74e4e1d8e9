"""Errors of the user's input, explained in one line."""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.evaluator import BaseMetric
from mmengine.model import PretrainedInit
from mmengine.registry import Registry, root
from torch.utils.data import Dataset

from ..datasets.seeded_dataset import SeededDataset
from .checks.classes import names_of
from .config.failing_part import failing_part, typed_parts

_UNKNOWN_KEY = re.compile(r"got an unexpected keyword argument '(\w+)'")
_UNKNOWN_TYPE = re.compile(r"^(\S+) is not in the \S+ registry")

# What builders raise for invalid input. Anything else is a bug and keeps its traceback.
_INPUT_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    OSError,
    ImportError,
    SyntaxError,
)

# RuntimeErrors that are not caused by the data, wherever they are raised.
_DEVICE_ERROR = re.compile(r"CUDA|out of memory|allocate memory")
_FROM_WORKER = re.compile(r"^Caught \w+ in DataLoader worker process")


# The packages of this one that compare configs, data and checkpoints.
_CHECKING = tuple(
    f"{__name__.partition('.')[0]}.{part}" for part in ("engine", "checkpoints")
)


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, in one line."""


@contextmanager
def explained(cfg: Config | None = None) -> Iterator[None]:
    """Turn errors about input that are raised inside into an :class:`InputError`.

    A ``RuntimeError`` counts as one if a data set raised it: an empty folder of
    labelled images, or images none of which can be read. With a config, anything does
    that is raised while a part of it is built or first used, which the message names.

    Args:
        cfg: The config that is being built, searched for what an error is about.

    Raises:
        InputError: From the original error, which stays attached as the cause.
    """
    try:
        yield
    except InputError:
        raise
    except _INPUT_ERRORS as error:
        raise InputError(explain(error, cfg)) from error
    except Exception as error:
        if cfg is not None and failing_part(error, cfg):
            raise InputError(explain(error, cfg)) from error
        # The subclasses are errors of devices, or bugs such as infinite recursion.
        is_bug = type(error) is not RuntimeError or _DEVICE_ERROR.search(str(error))
        if is_bug or not _from_dataset(error):
            raise
        raise InputError(explain(error, cfg)) from error


def explain(error: BaseException, cfg: Config | None = None) -> str:
    """Explain in one line what is wrong, and where in the config if that is known.

    Args:
        error: What was raised while building.
        cfg: The config that was being built.
    """
    message = _message(error)
    unknown_key, found = _UNKNOWN_KEY.search(message), None
    if unknown_key and cfg is not None:
        found = _explain_key(unknown_key.group(1), message, cfg)
        message = found or message
    empty = _empty_dataset(error)
    if empty is not None:
        return _why_empty(empty)
    if unread := _unread_sample(error):
        return f"{unread} cannot be read: {type(error).__name__}: {message}"
    annotations = _annotation_file(error)
    if annotations is not None:
        return (
            f"{annotations} cannot be read as annotations in COCO's layout, a JSON "
            "file with images, annotations and categories: "
            f"{type(error).__name__}: {message}"
        )
    unknown_type = _UNKNOWN_TYPE.search(message)
    if unknown_type:
        message = message.partition(" Please check")[0]
        message += similar(unknown_type.group(1), registered_classes())
    no_files = isinstance(error, FileNotFoundError) or "Found 0 files" in message
    if no_files and "data_root" not in message and _from_dataset(error):
        message = (
            f"{message.rstrip('.')}. Set the folder of the data with --cfg-options "
            "data_root=/path/to/data"
        )
    if cfg is not None:
        message += _checkpoint_option(error, cfg)
    plain = (ValueError, TypeError, FileNotFoundError, RuntimeError)
    if not isinstance(error, plain) or not message:
        message = f"{type(error).__name__}: {message}"
    part = failing_part(error, cfg) if cfg is not None else None
    if part is None or found or _says_it_all(error) or part.split()[0] in message:
        return message
    return f"{part}: {message}"


def _says_it_all(error: BaseException) -> bool:
    """Whether a check of this package raised an error, whose message names the keys.

    A constructor does not know where in the config its arguments are.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    own = str(frame.f_globals.get("__name__")).startswith(_CHECKING)
    return own and frame.f_code.co_name != "__init__"


def _from_dataset(error: BaseException) -> bool:
    """Return whether an error was raised in a data set, here or in a worker.

    Metrics count, which read the annotations of a data set.
    """
    if _FROM_WORKER.search(str(error)):
        return True
    return any(
        isinstance(reader, (Dataset, SeededDataset, BaseMetric))
        for reader in _objects_in(error)
    )


def _empty_dataset(error: BaseException) -> BaseDataset | None:
    """The data set without images for which mmengine's serialisation fails."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_serialize_data":
            dataset = frame.f_locals["self"]
            return None if dataset.data_list else dataset
    return None


def _why_empty(dataset: Any) -> str:
    """The message for a data set without images."""
    message = f"{type(dataset).__name__} holds no image"
    try:
        classes = names_of(dataset)
    except ValueError as error:  # they are one text
        return str(error)
    if classes and hasattr(dataset, "cat_ids"):
        return (
            f"{message}: none that {dataset.ann_file} lists is large enough and has an "
            f"object of its {len(classes)} classes ({', '.join(classes[:3])} ...), of "
            f"which the file has {len(dataset.cat_ids)}. image_id of its annotations "
            "must be an id of its images; give the data set its categories with "
            "metainfo=dict(classes=(...)) in a config file (--cfg-options drops spaces "
            "in names), or keep images without objects with "
            "filter_cfg.filter_empty_gt=False"
        )
    return f"{message}: set data_root with --cfg-options, or the data set's paths"


def _unread_sample(error: BaseException) -> str | None:
    """The image or label map that a step of a pipeline could not load, if any."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        step, info = frame.f_locals.get("self"), frame.f_locals.get("results")
        name = type(step).__name__
        if isinstance(step, BaseTransform) and name.startswith("Load") and info:
            key = "img_path" if name.startswith("LoadImage") else "seg_map_path"
            return info.get(key) or info.get("img_path")
    return None


def _annotation_file(error: BaseException) -> str | None:
    """The annotation file of a detection data set that could not be read, if any."""
    if not isinstance(error, (ValueError, KeyError, TypeError, AssertionError)):
        return None
    readers = list(_objects_in(error))
    if any(isinstance(reader, Compose) for reader in readers):
        return None  # a transform
    for reader in readers:
        # pycocotools' class, which mmdet's data sets and metrics hand their file to.
        if type(reader).__name__ == "COCO" or hasattr(reader, "COCOAPI"):
            files = [getattr(r, "ann_file", None) for r in readers]
            return next(filter(None, files), "the annotation file of a metric")
    return None


def _checkpoint_option(error: BaseException, cfg: Config) -> str:
    """The option that names the initial checkpoint, if that is what is missing."""
    loading = [x for x in _objects_in(error) if isinstance(x, PretrainedInit)]
    if not loading:
        return ""
    checkpoint = loading[0].checkpoint
    if checkpoint and not isinstance(error, FileNotFoundError):
        return ""
    options = [
        f"{path}.checkpoint=FILE"
        for path, part in typed_parts(cfg._cfg_dict)
        if part["type"] == "Pretrained" and part.get("checkpoint") == checkpoint
    ]
    if not options:
        return ""
    return f" Name the checkpoint to start from with --cfg-options {' '.join(options)}"


def _objects_in(error: BaseException) -> Iterator[Any]:
    """The objects in whose methods an error was raised, from the outside in."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "self" in frame.f_locals:
            yield frame.f_locals["self"]


def _message(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        message = str(error.args[0])  # str() of a KeyError puts it in quotes
    else:
        message = str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if any("Original Traceback" in line for line in lines):
        lines = lines[-1:]  # an error that a loading worker passed on
    return " ".join(lines)


def _explain_key(key: str, message: str, cfg: Config) -> str | None:
    """Find the part of the config with a key its class does not accept."""
    classes = registered_classes()
    for path, part in typed_parts(cfg._cfg_dict):
        if key not in part:
            continue
        kind = part.get("type")
        cls = classes.get(kind.split(".")[-1]) if isinstance(kind, str) else kind
        if not inspect.isclass(cls):
            continue
        accepted = accepted_keys(cls)
        # The message names the class that rejected the key: the one in the config or
        # one of its parents, to which it passed the key on.
        refused = any(parent.__name__ + "." in message for parent in cls.__mro__)
        if key in accepted or not (refused or "__init__" not in message):
            continue
        where = path or "the config"
        return (
            f"{cls.__name__} has no key {key!r} ({where})."
            f"{similar(key, accepted)} Accepted keys: {', '.join(accepted)}."
        )
    return None


def accepted_keys(cls: type) -> list[str]:
    """Return the keys a class accepts, including those it passes to its parents."""
    accepted: list[str] = []
    for parent in cls.__mro__:
        if "__init__" not in vars(parent) or parent is object:
            continue
        init = vars(parent)["__init__"]
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for parameter in parameters:
            named = parameter.kind in (
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                inspect.Parameter.KEYWORD_ONLY,
            )
            if named and parameter.name not in accepted:
                accepted.append(parameter.name)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return accepted


def registered_classes() -> dict[str, Any]:
    """Return everything any registry knows, by name."""
    found: dict[str, Any] = {}

    def collect(registry: Registry) -> None:
        for child in registry.children.values():
            collect(child)
        found.update(registry.module_dict)

    for registry in vars(root).values():
        if isinstance(registry, Registry):
            collect(registry)
    return found


def similar(name: str, known: Any) -> str:
    """A sentence with the name that another one may be meant for, or nothing.

    Args:
        name: What is not known.
        known: The names that are.
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""
