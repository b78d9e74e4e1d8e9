"""Adapts a checkpoint to the model that loads it, or says why it does not fit."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Size, Tensor

from ..conversion import convert
from ..files import Checkpoint
from ..layouts import Layout, native
from ..layouts.key_rules import listed
from ..layouts.resize import (
    resize_offsets,
    resize_position_embedding,
    resize_window_table,
)
from ..metadata import NUM_HEADS
from ..report import Report
from .loaded_keys import check_loaded_keys
from .target import PREFIX, Target, below

# What an encoder may lack in a checkpoint: norms after the last block, which
# pre-training, pooling and dense tasks have in different places; relative positions and
# layer scale, which fine-tuning adds; and buffers.
_OPTIONAL = re.compile(
    r"(ln1|ln2|norm\d*|fc_norm)\.(weight|bias)$"
    r"|.*relative_position_(index|bias_table)$|.*gamma_?[12](\.weight)?$"
    r"|.*rel_pos_[hw]$|mask_token$"
)

# What an encoder may have no use for: those norms, and what is computed.
_UNUSED = re.compile(r"(ln1|ln2|norm\d*)\.(weight|bias)$|.*_index$|(cls|mask)_token$")

# What depends on the image size, and is resized by the model that loads it.
_OF_IMAGE_SIZE = re.compile(r"pos_embed|relative_position|rel_pos|attn_mask")

# Attention biases, of which one model has one form and another the other.
_BIAS = re.compile(r"(layers\.\d+\.attn\.)(qkv\.bias|[qv]_bias)$")

RANDOM = "randomly initialised"


def state_for(
    target: Target,
    checkpoint: Checkpoint,
    *,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
    prefix: str | None = None,
) -> OrderedDict[str, Tensor]:
    """What a model loads of a checkpoint, under the model's keys.

    The log gets an account of every tensor.

    Args:
        target: The model.
        checkpoint: What was read.
        merge_order: As of :func:`.conversion.convert`.
        antialias: As of :func:`.resize.resize_position_embedding`.
        exact: Leave every tensor as it is, and all that the model has no place for
            among them; of a file with more than an encoder, for an encoder alone, all
            of the encoder.
        prefix: Of the part that is to be loaded of a native file, if not all.

    Raises:
        ValueError: If it is another architecture's, was trained with other heads, or
            holds nothing for the model.
    """
    layout = _layout_for(target, checkpoint)
    if layout is None or layout is native():
        state = _native_state(target, checkpoint, prefix)
        if layout is not None and not exact:
            report = native_report(target, state, checkpoint.path)
            print_log(f"loaded\n{report}", logger="current")
    else:
        state, report = adapt_official(
            target, checkpoint, layout, merge_order, antialias, exact
        )
        print_log(f"converted on load\n{report}", logger="current")
    if not exact:
        check_loaded_keys(target, state, checkpoint.path)
    return state


def _layout_for(target: Target, checkpoint: Checkpoint) -> Layout | None:
    """The layout to convert from; None if unknown, or the model has other keys."""
    found = checkpoint.candidates if target.has_native_keys else []
    chosen = (x for x in found if x.chosen_by(target.shapes))
    return next(chosen, found[0]) if found else None


def _native_state(
    target: Target, checkpoint: Checkpoint, prefix: str | None
) -> OrderedDict[str, Tensor]:
    """Tensors that need no conversion, with or without ``backbone.`` as in the model.

    Raises:
        ValueError: If there is nothing below the prefix, or other heads were trained.
    """
    tensors, metadata = checkpoint.tensors, dict(checkpoint.metadata)
    target.check_heads(checkpoint.num_heads(prefix), checkpoint.path)
    if checkpoint.merge_coordinates == "official" != target.merge_coordinates:
        print_log(
            f"{checkpoint.path} was pre-trained with LocalMIM's official token "
            "coordinates, which are scrambled after the first patch merging. Only "
            "MIMSwinTransformer(merge_coordinates='official') computes, under a mask, "
            "what it was trained for; a plain Swin Transformer has the true ones, as "
            "the official fine-tuning has",
            logger="current",
            level=logging.WARNING,
        )
    if prefix is None and not target.prefix and tensors:
        prefix = PREFIX if any(k.startswith(PREFIX) for k in tensors) else None
    bare = native() in checkpoint.candidates and not any(
        key.startswith(PREFIX) for key in tensors
    )
    if prefix is not None and not (bare and f"{prefix.rstrip('.')}." == PREFIX):
        prefix = f"{prefix.rstrip('.')}."
        if not any(key.startswith(prefix) for key in tensors):
            raise ValueError(
                f"init_cfg: no key of {checkpoint.path} starts with prefix={prefix!r}; "
                f"it has {listed(tensors, 6)}"
            )
        tensors = below(prefix, tensors)
        metadata = {
            f"{name}."[len(prefix) :].rstrip("."): entry
            for name, entry in metadata.items()
            if f"{name}.".startswith(prefix)
        }
    elif bare and target.prefix:
        tensors = {PREFIX + key: x for key, x in tensors.items()}
        metadata = {f"{PREFIX}{k}".rstrip("."): x for k, x in metadata.items()}
    return _with_metadata(tensors, metadata)


def native_report(target: Target, state: Mapping[str, Tensor], source: str) -> Report:
    """What becomes of every tensor that needs no conversion.

    torch would load what fits and pass over the rest; mmengine says so in warnings.

    Raises:
        ValueError: If a tensor the encoder cannot do without is missing, or of a size
            that no image size explains.
    """
    own = target.encoder_shapes
    inside = {key: x.shape for key, x in below(target.prefix, state).items()}
    report = Report(source, native().title, len(state), done="loaded")
    for key, shape in inside.items():
        if key not in own:
            report.dropped[key] = (
                f"{target.name} has no such part"
                if _UNUSED.match(key)
                else f"{target.name} has no place for it"
            )
        elif own[key] == shape:
            report.converted.append(key)
        else:
            report.resized[key] = f"{tuple(shape)} to {tuple(own[key])}"
    positions = state.get(f"{target.prefix}pos_embed")
    if positions is not None and target.is_other_grid(positions):
        rows, cols = target.grid or (0, 0)
        report.notes.append(
            f"the positions are taken to be of {rows}x{cols} patches, as the model's; "
            "if they are of a square image, resize them with "
            "tools/convert_checkpoint.py --img-size HEIGHT WIDTH"
        )
    missing = _missing(target, inside)
    report.missing = dict.fromkeys(missing, RANDOM)
    needed = [key for key in missing if not _OPTIONAL.match(key)]
    wrong = [
        f"{key} {report.resized[key]}"
        for key in report.resized
        if not _OF_IMAGE_SIZE.search(key) or len(own[key]) != len(inside[key])
    ]
    # Of a part alone, such as a head, nothing of the encoder is meant to be loaded.
    if inside and (needed or wrong):
        problem = (
            f"the model's {len(needed)} {listed(needed, 4)} are not in it"
            if needed
            else f"{len(wrong)} tensors have other sizes: {listed(wrong, 4)}"
        )
        raise ValueError(
            f"{source} is a checkpoint of another architecture than the {target.name} "
            f"that is to load it: {problem}. Set arch, patch_size and the class of the "
            "backbone to what was trained"
        )
    return report


def adapt_official(
    target: Target,
    checkpoint: Checkpoint,
    layout: Layout,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
) -> tuple[OrderedDict[str, Tensor], Report]:
    """Converts an official state dict and adapts it to a model."""
    conversion = convert(
        checkpoint.tensors, layout, source=checkpoint.path, merge_order=merge_order
    )
    report = conversion.report
    target.check_heads(conversion.metadata.get(NUM_HEADS), checkpoint.path)
    encoder = below(PREFIX, conversion.state)
    rest = {k: x for k, x in conversion.state.items() if not k.startswith(PREFIX)}
    if not exact:
        _adapt_encoder(target, encoder, report, checkpoint.path, antialias)
    state = OrderedDict((target.prefix + key, x) for key, x in encoder.items())
    if target.prefix:
        state |= rest if exact else _fitting(target, rest, report)
    else:
        report.dropped |= dict.fromkeys(rest, "no part of an encoder")
    report.converted = list(state)
    report.missing |= {
        key: RANDOM
        for key in target.shapes
        if not key.startswith("data_preprocessor.")
        and not key.endswith(("_index", "num_batches_tracked"))
        and key not in state
        and not _has_other_bias(key, state)
    }
    # Entries are by module: the encoder's is to be found where the encoder is.
    metadata = {
        target.prefix.rstrip(".") if name == "backbone" else name: entry
        for name, entry in getattr(conversion.state, "_metadata", {}).items()
    }
    return _with_metadata(state, metadata), report


def _adapt_encoder(
    target: Target,
    state: dict[str, Tensor],
    report: Report,
    source: str,
    antialias: bool,
) -> None:
    """Brings the encoder's tensors to the sizes the model has, in place.

    Raises:
        ValueError: If the model lacks some, or has more, or other widths.
    """
    own, with_cls = target.encoder_shapes, "cls_token" in state
    missing = [k for k in _missing(target, state) if not _OPTIONAL.match(k)]
    unexpected = [k for k in state if k not in own]
    if target.converts_biases:
        unexpected = [
            k for k in unexpected if not _BIAS.match(k) and "rel_pos_bias." not in k
        ]
    for key in [k for k in unexpected if _UNUSED.match(k)]:
        report.dropped[key] = f"{target.name} has no such part"
        del state[key]
        unexpected.remove(key)
    problems = [
        f"{what} {len(keys)} {listed(keys, 4)}{end}"
        for what, keys, end in (
            ("the model's", missing, " are not in it"),
            ("the model has no place for its", unexpected, ""),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"{source} is a checkpoint of another architecture than the {target.name} "
            f"that is to load it: {'; '.join(problems)}. Set arch, patch_size and the "
            "class of the backbone to what was trained"
        )
    _resize(target, state, report, with_cls, antialias)
    wrong = {
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k])}"
        for k in state
        if k in own and state[k].shape != own[k] and not _is_resized_by_model(k, target)
    }
    if wrong:
        raise ValueError(
            f"{source} has other sizes than the {target.name} that is to load it: "
            f"{listed(wrong, 4)}. Set arch, patch_size and in_channels of the backbone "
            "to what was trained"
        )


def _missing(target: Target, encoder: Mapping[str, Any]) -> list[str]:
    """Keys of the encoder that a checkpoint lacks, but for what is computed."""
    absent = [k for k in target.encoder_shapes if k not in encoder]
    return [
        key
        for key in absent
        if not key.endswith("_index")
        and not (target.converts_biases and _has_other_bias(key, encoder))
    ]


def _has_other_bias(key: str, state: Mapping[str, Any]) -> bool:
    """Whether a key is of a block's attention biases, which are there in some form."""
    match = _BIAS.search(key)
    return match is not None and any(
        key[: match.end(1)] + name in state for name in ("qkv.bias", "q_bias")
    )


def _fitting(
    target: Target, state: Mapping[str, Tensor], report: Report
) -> dict[str, Tensor]:
    """Decoders and heads, as far as the model has them in these sizes."""
    kept = {}
    for key, value in state.items():
        shape = target.shapes.get(key)
        if shape is None:
            report.dropped[key] = "the model has no such part"
        elif shape != value.shape:
            report.dropped[key] = "of another size, such as another number of classes"
        else:
            kept[key] = value
    return kept


def _resize(
    target: Target,
    state: dict[str, Tensor],
    report: Report,
    with_cls: bool,
    antialias: bool,
) -> None:
    """Resizes position embeddings and tables of relative positions, in place."""
    own, resized = target.encoder_shapes, []
    for key, value in list(state.items()):
        shape = own.get(key)
        regrid = key == "pos_embed" and target.is_other_grid(value)
        if shape is None or shape == value.shape and not regrid:
            continue
        if key == "pos_embed" and shape[-1] == value.shape[-1]:
            state[key] = _resize_positions(target, value, shape, with_cls, antialias)
        elif key.endswith("w_msa.relative_position_bias_table"):
            side = round(len(value) ** 0.5)
            if side**2 != len(value) or shape[1:] != value.shape[1:]:
                continue
            window = (round(shape[0] ** 0.5) + 1) // 2
            state[key] = resize_window_table(value, window, antialias)
        elif key.endswith("bias_table") and shape[1:] == value.shape[1:]:
            state[key] = resize_offsets(value, target.grid or (0, 0), antialias)
        if state[key].shape == shape:
            what = f"{tuple(value.shape)} to {tuple(shape)}"
            if regrid and value.shape == shape:
                what += ", of a square grid to one of {}x{}".format(*target.grid or ())
            report.resized[target.prefix + key] = what
            resized.append(key)
    for key in resized:
        if key.endswith("bias_table"):
            state.pop(key.replace("bias_table", "index"), None)


def _resize_positions(
    target: Target, table: Tensor, shape: Size, with_cls: bool, antialias: bool
) -> Tensor:
    """An absolute position embedding of the model's size, if the model has a grid."""
    if target.grid is None or len(shape) != table.ndim:
        return table
    extra, (rows, cols) = target.num_extra_tokens, target.grid
    if shape[1] != rows * cols + extra:
        return table
    # A model without class token takes no position of it from the checkpoint.
    spare = with_cls and extra == 0
    return resize_position_embedding(
        table[:, int(spare) :], (rows, cols), extra, antialias=antialias
    )


def _is_resized_by_model(key: str, target: Target) -> bool:
    """Whether an encoder without a plain grid of tokens has its own way of resizing."""
    return key == "pos_embed" and (
        target.grid is None or len(target.encoder_shapes[key]) != 3
    )


def _with_metadata(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> OrderedDict[str, Tensor]:
    """A state dict that modules find their metadata in."""
    state = OrderedDict(tensors)
    state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return state
