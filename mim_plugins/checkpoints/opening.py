"""Takes paths of every kind, and warns who reads an official file by itself.

mmengine's loader of files is wrapped here, once, when the package is imported.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from .detect import LAYOUTS, OURS, detect, strip_wrappers
from .loading import tensors_of

# Where encoders are that load files without mmengine's function for state dicts.
_OTHERS = ("mmdet.models.backbones.", "mmseg.models.backbones.")


def install() -> None:
    """Wraps the method that every file passes, if it is not yet."""
    original: Any = CheckpointLoader.load_checkpoint
    if getattr(original, "takes_paths", False):
        return

    @functools.wraps(original)
    def load_checkpoint(filename: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        # mmengine matches names against patterns, which Path objects are not.
        content = original(os.fspath(filename), *args, **kwargs)
        if isinstance(content, Mapping):
            _warn_of_other_readers(content, os.fspath(filename))
        return content

    load_checkpoint.takes_paths = True  # type: ignore[attr-defined]
    loader: Any = CheckpointLoader
    loader.load_checkpoint = staticmethod(load_checkpoint)


def _warn_of_other_readers(content: Mapping[str, Any], filename: str) -> None:
    """Says that encoders of mmdet and mmseg that load for themselves convert nothing.

    They pass over what they do not know, most of them without a word.
    """
    reader = _reader()
    if reader is None:
        return
    layout = detect(strip_wrappers(tensors_of(content)))
    if layout in (None, OURS):
        return
    if layout == "timm" and getattr(reader, "convert_weights", False):
        return  # of Swin, which mmdet's knows
    kind = f"{type(reader).__module__.split('.')[0]}.{type(reader).__name__}"
    print_log(
        f"{filename} is in {LAYOUTS[layout]}, which {kind} does not convert and may "
        "load nothing of: take a backbone of mmpretrain or of mim_plugins, such as "
        "type='mmpretrain.VisionTransformer' or 'mmpretrain.SwinTransformer'",
        logger="current",
        level=logging.WARNING,
    )


def _reader() -> Any:
    """The encoder of mmdet or mmseg that asks for a file by itself, if one does."""
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_OTHERS):
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None
