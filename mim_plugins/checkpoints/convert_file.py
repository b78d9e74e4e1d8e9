"""Converts whole files: what ``tools/convert_checkpoint.py`` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from .conversion import Conversion, convert, to_official
from .files import Checkpoint, check_destination, read, save_state, write_atomically
from .files.local_files import check_file
from .layouts import SHIFT_MASK
from .layouts.export import to_timm
from .layouts.hugging_face import model_card, preprocessor_config, to_hugging_face
from .layouts.key_rules import has_key
from .layouts.native import LAYOUT as NATIVE
from .layouts.resize import grid_in, resize_state
from .metadata import (
    GRID,
    MERGE_COORDINATES,
    NUM_HEADS,
    image_statistics,
    recorded_classes,
)
from .report import Report

# Entry of a file's `meta` that holds the metadata of a conversion.
_METADATA = "mim_plugins_conversion"

_OURS = "mmpretrain"

# Files of a folder of transformers.
_FOLDER = ("model.safetensors", "config.json", "preprocessor_config.json", "README.md")


def convert_file(
    src: str | Path,
    dst: str | Path,
    *,
    layout: str = "auto",
    to: str = _OURS,
    encoder_only: bool = False,
    part: str = "student",
    img_size: Sequence[int] | None = None,
    old_size: Sequence[int] | None = None,
    window_size: int | None = None,
    antialias: bool = False,
    num_heads: int | None = None,
    merge_order: str = "trained",
    key: str | None = None,
    trust: bool = False,
    force: bool = False,
) -> list[Report]:
    """Converts a checkpoint file to another layout.

    Args:
        src: The file to read: torch, safetensors, PaddlePaddle, or CLIP's TorchScript.
        dst: The file to write; for ``to='hf'`` the folder.
        layout: That of ``src``, see :func:`.conversion.convert`.
        to: ``'mmpretrain'``, ``'official'``, ``'timm'`` or ``'hf'``.
        encoder_only: Whether to leave out all but the encoder.
        part: Of a distillation checkpoint, ``'student'`` or ``'teacher'``.
        img_size: Side, or height and width, in pixels to resize positions to.
        old_size: Height and width ``src`` is for, where they are not square.
        window_size: Side of a Swin Transformer's windows to resize tables to.
        antialias: Whether resizing to smaller grids averages.
        num_heads: Attention heads, where the file does not record them.
        merge_order: Of pre-trained LocalMIM Swin Transformers.
        key: Of several networks in ``src`` the one to take, such as ``'student'``.
        trust: Whether reading ``src`` may run code.
        force: Whether to replace what is at ``dst``.

    Returns:
        The account of the conversion to ours, if one was needed, and of that to the
        layout asked for.

    Raises:
        FileExistsError: If something is at ``dst``.
        FileNotFoundError: If there is no such file, or no folder to write to.
        ValueError: If the file, or an option, does not fit, or has no effect.
    """
    paddle = Path(dst).suffix in (".pdparams", ".pd")
    if paddle and to == _OURS:
        raise ValueError(f"{dst}: ours is no layout of PaddlePaddle, name it .pth")
    size, old = _pair(img_size, "--img-size"), _pair(old_size, "--old-size")
    for option, number in (("--window-size", window_size), ("--num-heads", num_heads)):
        if number is not None and number < 1:
            raise ValueError(f"{option} is at least 1, got {number}")
    if old is not None and size is None and to != "hf":
        raise ValueError(
            "--old-size says what --img-size starts from, and has no effect without "
            "it: give --img-size, too"
        )
    if antialias and size is None and window_size is None:
        raise ValueError(
            "--antialias says how to resize, and has no effect without --img-size or "
            "--window-size"
        )
    check_file(src)
    _check_destination(src, Path(dst), to, force)
    checkpoint = read(src, trust=trust, key=key)
    if merge_order != "trained" and not any(
        key.startswith("encoder.") for key in checkpoint.tensors
    ):
        raise ValueError(
            f"--merge-order {merge_order} is for LocalMIM's official pre-trained Swin "
            "Transformers alone, which this file is not: leave it out"
        )
    found = checkpoint.candidates
    conversion = convert(
        checkpoint.tensors,
        found[0] if layout == "auto" and len(found) == 1 else layout,
        source=str(src),
        merge_order=merge_order,
        part=part,
    )
    state, done = conversion.state, conversion.report
    done.dropped |= checkpoint.left_out
    done.notes += checkpoint.notes
    metadata = _recorded(checkpoint)
    if conversion.layout is not NATIVE:
        metadata |= conversion.metadata
    if num_heads is not None:
        trained = metadata.setdefault(NUM_HEADS, num_heads)
        if trained != num_heads:
            raise ValueError(
                f"--num-heads {num_heads}: {src} was trained with {trained} attention "
                "heads"
            )
    if encoder_only:
        _keep_encoder(conversion)
    old = _old_size(metadata, state, old, src)
    # Official Swin files hold masks that depend on the image size; nothing else does.
    to_masks = to == "official" and "backbone.pos_embed" not in state
    new_size = None if to_masks else size
    if new_size is not None or window_size is not None:
        done.resized = resize_state(state, new_size, window_size, old, antialias)
        if new_size is not None and GRID in metadata:
            metadata[GRID] = list(grid_in(new_size, state))
    if to == _OURS:
        meta = {_METADATA: metadata, "source": str(Path(src).name)}
        _record(state, metadata)
        save_state(state, dst, meta=meta)
        return [done]
    if paddle and to != "official":
        raise ValueError(
            f"{dst} would be a file of PaddlePaddle, which only MIRL's official "
            "layout has: give --to official, or another ending"
        )
    if to == "timm":
        converted, report = to_timm(
            state,
            metadata.get(NUM_HEADS),
            img_size=size or old,
            statistics=image_statistics(checkpoint.content),
            source=str(src),
        )
        save_state(converted, dst)
    elif to == "official":
        if paddle:
            metadata["layout"] = "mirl"
        report = _to_official(conversion, metadata | {"paddle": paddle}, dst, size)
    else:
        content = checkpoint.content
        report = _to_folder(conversion, metadata, Path(dst), size or old, content)
    if conversion.layout is not NATIVE:
        return [done, report]
    # One account of both steps.
    report.total = done.total
    report.dropped = done.dropped | report.dropped
    report.resized = done.resized | report.resized
    return [report]


def _to_official(
    conversion: Conversion,
    metadata: dict[str, Any],
    dst: str | Path,
    size: tuple[int, int] | None,
) -> Report:
    """Writes the file of the official code."""
    height, width = size or (224, 224)
    is_swin = "backbone.pos_embed" not in conversion.state
    if is_swin and height != width:
        raise ValueError(
            "official Swin files hold masks of square images: give --img-size one "
            f"side, not {height} {width}"
        )
    try:
        converted, report = to_official(
            conversion.state, metadata, source=conversion.report.source, img_size=height
        )
    except RuntimeError as error:  # of mmpretrain's masks
        raise ValueError(
            f"--img-size {height}: the maps of this Swin Transformer do not divide "
            "into its windows"
        ) from error
    if is_swin and size and not any(SHIFT_MASK.search(key) for key in converted):
        raise ValueError(
            "--img-size has no effect: in this official layout nothing of a Swin "
            "Transformer depends on it; leave it out"
        )
    save_state(converted, dst, wrapper="model")
    return report


def _to_folder(
    conversion: Conversion,
    metadata: dict[str, Any],
    folder: Path,
    size: tuple[int, int] | None,
    content: Mapping[str, Any],
) -> Report:
    """Writes the folder of transformers."""
    source, heads = conversion.report.source, metadata.get(NUM_HEADS)
    if heads is None:
        raise ValueError(
            "transformers' config.json needs the number of attention heads, which "
            f"{source} does not record: give --num-heads (12 for "
            "ViT-B and MAE-Lite's ViT-Tiny and ViT-Small, 16 for ViT-L and ViT-H)"
        )
    converted, config, report = to_hugging_face(
        conversion.state,
        heads,
        img_size=size,
        classes=recorded_classes(content),
        source=source,
    )
    statistics = image_statistics(content)
    if not statistics.recorded:
        report.notes.append(
            "preprocessor_config.json has ImageNet's mean and deviation: none are "
            "recorded"
        )
    texts = {
        "config.json": json.dumps(config, indent=2),
        "preprocessor_config.json": json.dumps(
            preprocessor_config(config, statistics), indent=2
        ),
        "README.md": model_card(config, statistics, source),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_state(converted, folder / "model.safetensors")
    for name, text in texts.items():
        write_atomically(folder / name, partial(Path.write_text, data=f"{text}\n"))
    return report


def _recorded(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file records of itself, and of an earlier conversion."""
    meta = checkpoint.content.get("meta")
    conversion = meta.get(_METADATA, {}) if isinstance(meta, Mapping) else {}
    modules = {
        NUM_HEADS: checkpoint.num_heads(),
        GRID: checkpoint.grid(),
        MERGE_COORDINATES: checkpoint.merge_coordinates,
    }
    return {k: x for k, x in modules.items() if x is not None} | conversion


def _old_size(
    metadata: dict[str, Any],
    state: Mapping[str, Tensor],
    given: tuple[int, int] | None,
    src: str | Path,
) -> tuple[int, int] | None:
    """Height and width of the images a file is for: recorded, given, or unknown."""
    positions = state.get("backbone.pos_embed")
    patch = state.get("backbone.patch_embed.projection.weight")
    if positions is None or patch is None or positions.ndim != 3:
        return given
    recorded = metadata.get(GRID)
    if recorded is None:
        if given is not None:
            metadata[GRID] = list(grid_in(given, state))
        return given
    # Hiera's patches overlap, so that their size is not their step.
    if has_key(state, r"backbone\.layers\.\d+\.proj\."):
        return given
    height, width = (n * s for n, s in zip(recorded, patch.shape[2:], strict=True))
    if given is not None and given != (height, width):
        raise ValueError(
            f"--old-size {given[0]} {given[1]}: {src} records images of "
            f"{height}x{width} pixels; leave it out"
        )
    return height, width


def _keep_encoder(conversion: Conversion) -> None:
    """Leaves out all but the encoder, with an account of it."""
    state, report = conversion.state, conversion.report
    for key in [key for key in state if not key.startswith("backbone.")]:
        report.dropped[key] = "the encoder alone is asked for"
        del state[key]
    report.converted = list(state)


def _record(state: Any, metadata: Mapping[str, Any]) -> None:
    """Records in a state dict what cannot be inferred from it, for a model."""
    names = (NUM_HEADS, GRID, MERGE_COORDINATES)
    recorded = {name: metadata[name] for name in names if name in metadata}
    if recorded:
        state._metadata.setdefault("backbone", {}).update(recorded)


def _pair(size: Sequence[int] | None, option: str) -> tuple[int, int] | None:
    """Height and width, of one number or two."""
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1:
        raise ValueError(f"{option} takes a side, or height and width, got {size}")
    return size[0], size[-1]


def _check_destination(src: str | Path, dst: Path, to: str, force: bool) -> None:
    """Refuses what would be lost, or cannot be written, before anything is read."""
    if to != "hf":
        return check_destination(dst, force, src)
    if dst.exists() and not dst.is_dir():
        raise ValueError(f"{dst} is a file: --to hf writes a folder, name another one")
    if dst.is_dir():
        for name in _FOLDER:
            check_destination(Path(dst, name), force, src)
