"""Converts whole files: what ``tools/convert_checkpoint.py`` does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .conversion import Conversion, convert, to_official
from .conversion import encoder_only as encoder_of
from .files import (
    Checkpoint,
    check_destination,
    read,
    save_state,
    write_atomically,
)
from .files.local_files import check_file
from .layouts import native
from .layouts.hugging_face import to_hugging_face
from .layouts.layout import SHIFT_MASK
from .layouts.resize import resize_state
from .layouts.timm_export import to_timm
from .metadata import MERGE_COORDINATES, NUM_HEADS
from .report import Report

# Entry of a file's `meta` that holds the metadata of a conversion.
METADATA = "mim_plugins_conversion"

OURS = "mmpretrain"


def convert_file(
    src: str | Path,
    dst: str | Path,
    *,
    layout: str = "auto",
    to: str = OURS,
    encoder_only: bool = False,
    part: str = "student",
    img_size: Sequence[int] | None = None,
    old_size: Sequence[int] | None = None,
    window_size: int | None = None,
    antialias: bool = False,
    num_heads: int | None = None,
    merge_order: str = "trained",
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
    if to == OURS and Path(dst).suffix in (".pdparams", ".pd"):
        raise ValueError(f"{dst}: ours is no layout of PaddlePaddle, name it .pth")
    size, old = _pair(img_size, "--img-size"), _pair(old_size, "--old-size")
    _check_number(window_size, "--window-size")
    _check_number(num_heads, "--num-heads")
    _check_sizes(to, size, old, window_size, antialias)
    _check_destination(src, dst, to, force)
    checkpoint = read(src, trust=trust)
    _check_merge_order(merge_order, checkpoint.tensors)
    if layout == "auto" and len(checkpoint.candidates) == 1:
        layout = checkpoint.candidates[0].name
    conversion = convert(
        checkpoint.tensors, layout, source=str(src), merge_order=merge_order, part=part
    )
    metadata = _recorded(checkpoint)
    if conversion.layout is not native():
        metadata |= conversion.metadata
    _check_heads(metadata, num_heads, src)
    if encoder_only:
        _keep_encoder(conversion)
    # Official Swin files hold masks that depend on the image size; nothing else does.
    has_positions = "backbone.pos_embed" in conversion.state
    to_masks = to == "official" and size is not None and not has_positions
    if (size is not None and not to_masks) or window_size is not None:
        conversion.report.resized = resize_state(
            conversion.state, None if to_masks else size, window_size, old, antialias
        )
    reports = [conversion.report]
    if to == OURS:
        meta = {METADATA: metadata, "source": str(Path(src).name)}
        _record(conversion.state, metadata)
        save_state(conversion.state, dst, meta=meta)
        return reports
    if conversion.layout is native():
        reports.clear()
    report = _export(conversion.state, metadata, dst, to, size or old, src)
    if not reports:  # one account of both steps
        done = conversion.report
        report.total = done.total
        report.dropped = done.dropped | report.dropped
        report.resized = done.resized | report.resized
    return [*reports, report]


def _export(
    state: Mapping[str, Tensor],
    metadata: dict[str, Any],
    dst: str | Path,
    to: str,
    size: tuple[int, int] | None,
    src: str | Path,
) -> Report:
    """Writes our tensors in another layout."""
    source, paddle = str(src), Path(dst).suffix in (".pdparams", ".pd")
    if paddle and to != "official":
        raise ValueError(
            f"{dst} would be a file of PaddlePaddle, which only MIRL's official "
            "layout has: give --to official, or another ending"
        )
    if to == "timm":
        converted, report = to_timm(state, source=source)
        save_state(converted, dst)
        return report
    if to == "official":
        height, width = size or (224, 224)
        swin = "backbone.pos_embed" not in state
        if swin and height != width:
            raise ValueError(
                "official Swin files hold masks of square images: give --img-size one "
                f"side, not {height} {width}"
            )
        try:
            converted, report = to_official(
                state,
                metadata | ({"layout": "mirl"} if paddle else {}) | {"paddle": paddle},
                source=source,
                img_size=height,
            )
        except RuntimeError as error:  # of mmpretrain's masks
            raise ValueError(
                f"--img-size {height}: the maps of this Swin Transformer do not divide "
                "into its windows"
            ) from error
        masks = any(SHIFT_MASK.search(key) for key in converted)
        if swin and size is not None and not masks:
            raise ValueError(
                "--img-size has no effect: in this official layout nothing of a Swin "
                "Transformer depends on it; leave it out"
            )
        save_state(converted, dst, wrapper="model")
        return report
    heads = metadata.get(NUM_HEADS)
    if heads is None:
        raise ValueError(
            "transformers' config.json needs the number of attention heads, which "
            f"{source} does not record: give --num-heads (12 for "
            "ViT-B and MAE-Lite's ViT-Tiny and ViT-Small, 16 for ViT-L and ViT-H)"
        )
    converted, config, report = to_hugging_face(
        state, heads, img_size=size, source=source
    )
    folder = Path(dst)
    folder.mkdir(parents=True, exist_ok=True)
    save_state(converted, folder / "model.safetensors")
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(folder / "config.json", lambda file: _write_text(file, text))
    return report


def _recorded(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file records of itself, and of an earlier conversion."""
    meta = checkpoint.content.get("meta")
    conversion = meta.get(METADATA, {}) if isinstance(meta, Mapping) else {}
    modules = {
        NUM_HEADS: checkpoint.num_heads(),
        MERGE_COORDINATES: checkpoint.merge_coordinates,
    }
    return {k: x for k, x in modules.items() if x is not None} | conversion


def _keep_encoder(conversion: Conversion) -> None:
    """Leaves out all but the encoder, with an account of it."""
    metadata = getattr(conversion.state, "_metadata", None)
    kept, left = encoder_of(conversion.state)
    conversion.state.clear()
    conversion.state.update(kept)
    if metadata is not None:
        conversion.state._metadata = metadata  # type: ignore[attr-defined]
    conversion.report.dropped |= left
    conversion.report.converted = list(kept)


def _check_heads(metadata: dict[str, Any], given: int | None, src: str | Path) -> None:
    """Records the heads a user gave.

    Raises:
        ValueError: If the file was trained with another number.
    """
    trained = metadata.get(NUM_HEADS)
    if given is None:
        return
    if trained is not None and trained != given:
        raise ValueError(
            f"--num-heads {given}: {src} was trained with {trained} attention heads"
        )
    metadata[NUM_HEADS] = given


def _record(state: Any, metadata: Mapping[str, Any]) -> None:
    """Records in a state dict what cannot be inferred from it, for a model."""
    names = (NUM_HEADS, MERGE_COORDINATES)
    recorded = {name: metadata[name] for name in names if name in metadata}
    if recorded and hasattr(state, "_metadata"):
        entry = dict(state._metadata.get("backbone", {}))
        state._metadata["backbone"] = {**entry, **recorded}


def _pair(size: Sequence[int] | None, option: str) -> tuple[int, int] | None:
    """Height and width, of one number or two.

    Raises:
        ValueError: If there are more, or they are not positive.
    """
    if size is None:
        return None
    if len(size) not in (1, 2) or min(size) < 1 or not math.prod(size):
        raise ValueError(f"{option} takes a side, or height and width, got {size}")
    return size[0], size[-1]


def _check_number(value: int | None, option: str) -> None:
    """Refuses a number that is none of heads or tokens.

    Raises:
        ValueError: If it is below 1.
    """
    if value is not None and value < 1:
        raise ValueError(f"{option} is at least 1, got {value}")


def _check_sizes(
    to: str,
    size: tuple[int, int] | None,
    old: tuple[int, int] | None,
    window: int | None,
    antialias: bool,
) -> None:
    """Refuses options on resizing where nothing is resized.

    Raises:
        ValueError: If there is one.
    """
    if old is not None and size is None and to != "hf":
        raise ValueError(
            "--old-size says what --img-size starts from, and has no effect without "
            "it: give --img-size, too"
        )
    if antialias and size is None and window is None:
        raise ValueError(
            "--antialias says how to resize, and has no effect without --img-size or "
            "--window-size"
        )


def _check_merge_order(merge_order: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuses an order of patch merging for what does not merge, or has it already.

    Raises:
        ValueError: If the file is no official pre-training of LocalMIM's Swin.
    """
    pretraining = any(key.startswith("encoder.") for key in tensors)
    if merge_order != "trained" and not pretraining:
        raise ValueError(
            f"--merge-order {merge_order} is for LocalMIM's official pre-trained Swin "
            "Transformers alone, which this file is not: leave it out"
        )


def _check_destination(src: str | Path, dst: str | Path, to: str, force: bool) -> None:
    """Refuses what would be lost, or cannot be written, before anything is read.

    Raises:
        FileExistsError: If it is there.
        FileNotFoundError: If there is nothing to read, or no folder to write to.
        ValueError: If source and destination are one, or of the wrong kind.
    """
    check_file(src)
    if to != "hf":
        return check_destination(dst, force, src)
    if Path(dst).exists() and not Path(dst).is_dir():
        raise ValueError(f"{dst} is a file: --to hf writes a folder, name another one")
    if Path(dst).is_dir():
        for name in ("model.safetensors", "config.json"):
            check_destination(Path(dst, name), force, src)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
