"""Writes tensors in the format a name asks for."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .atomic import not_regular, write_atomically
from .sealing import save_sealed


def check_destination(
    path: str | Path, force: bool = False, source: str | Path | None = None
) -> None:
    """Refuses a file that cannot, or should not, be written, before there is work.

    Args:
        path: The file to be written.
        force: Whether a file that is there may be replaced.
        source: The file that is read for it, which is never replaced.

    Raises:
        FileExistsError: If it is there.
        FileNotFoundError: If there is no folder to write it to.
        ValueError: If it is no regular file, or the source.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write to")
    if source is not None and path.exists() and path.samefile(source):
        raise ValueError(
            f"{path} is the file to read, too, and would be lost: write to another one"
        )
    if problem := not_regular(path):
        raise ValueError(f"{path} is {problem}: give the name of the file to write")
    if path.exists() and not force:
        raise FileExistsError(
            f"{path} is there already: write to another file, or replace it (--force)"
        )


def save_state(
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    wrapper: str | None = "state_dict",
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Saves tensors in the format the file's name asks for.

    Args:
        state: Tensors by key.
        path: ``.safetensors``; ``.pdparams`` or ``.pd`` (arrays, as PaddlePaddle
            saves); anything else is a file of ``torch.save`` that can be read with
            ``weights_only=True``.
        wrapper: The entry of a torch file that holds the tensors; None for no wrapper.
        meta: Plain values to be kept with the tensors.
    """
    metadata = getattr(state, "_metadata", None)
    # A view would be saved with all that it is a view of.
    tensors = OrderedDict((key, _alone(value)) for key, value in state.items())
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        from safetensors.torch import save

        tensors = OrderedDict((k, x.contiguous()) for k, x in tensors.items())
        # transformers asks for the format.
        notes = {"format": "pt"}
        if meta:
            notes["meta"] = json.dumps(dict(meta))
        if metadata is not None:
            notes["modules"] = json.dumps(metadata)
        # Written by us: safetensors makes files that other users may not read.
        content = save(tensors, metadata=notes)
        write_atomically(path, lambda file: file.write_bytes(content))
        return
    if suffix in (".pdparams", ".pd"):
        arrays = {key: value.numpy() for key, value in tensors.items()}
        pickled = pickle.dumps(arrays, protocol=4)
        write_atomically(path, lambda file: file.write_bytes(pickled))
        return
    if metadata is not None:
        tensors._metadata = metadata  # type: ignore[attr-defined]
    saved: Mapping[str, Any] = tensors
    if wrapper is not None:
        saved = {wrapper: tensors, **({"meta": dict(meta)} if meta else {})}
    write_atomically(path, lambda file: save_sealed(saved, file))


def _alone(tensor: Tensor) -> Tensor:
    """A tensor that shares no larger memory with others."""
    own = tensor.numel() * tensor.element_size()
    return tensor if tensor.untyped_storage().nbytes() == own else tensor.clone()
