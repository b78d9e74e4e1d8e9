"""Adapts a checkpoint to the model that loads it, or says why it does not fit."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from ..conversion import convert
from ..files import Checkpoint
from ..layouts import Layout
from ..layouts.key_rules import listed
from ..layouts.native import LAYOUT as NATIVE
from ..layouts.resize import (
    resize_bias_table,
    resize_offset_table,
    resize_position_embedding,
)
from ..metadata import NUM_HEADS
from ..report import Report
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
_ONE_FORM = r"\1qkv.bias"

_RANDOM = "randomly initialised"


def state_for(
    target: Target,
    checkpoint: Checkpoint,
    *,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
    prefix: str | None = None,
    pretrain_img_size: int | Sequence[int] | None = None,
    partial: bool = False,
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
        pretrain_img_size: Side, or height and width, in pixels of the images that the
            position embedding is of, where the file does not record its grid.
        partial: Whether less than 95 % of the encoder's elements may be loaded.

    Raises:
        ValueError: If it is another architecture's, was trained with other heads, or
            holds too little for the model.
    """
    grid = checkpoint.grid(prefix)
    if pretrain_img_size is not None:
        grid = target.grid_of_size(pretrain_img_size)
    found = checkpoint.candidates if target.has_native_keys else []
    chosen = (x for x in found if x.chosen_by(target.shapes))
    layout = next(chosen, found[0]) if found else None
    if layout is not None and layout is not NATIVE:
        state, report = adapt_official(
            target, checkpoint, layout, merge_order, antialias, exact, grid, partial
        )
        report.dropped |= checkpoint.left_out
        report.notes += checkpoint.notes
        print_log(f"converted on load\n{report}", logger="current")
        return state
    state = _native_state(target, checkpoint, prefix)
    if (layout is not None or partial) and not exact:
        report = Report(checkpoint.path, NATIVE.title, len(state), done="loaded")
        report.notes += checkpoint.notes
        _resize(target, state, target.prefix, report, grid, antialias, False)
        native_report(target, state, report, partial)
        print_log(f"loaded\n{report}", logger="current")
    if target.has_native_keys and not exact:
        _check_loaded_keys(target, state, checkpoint.path, partial)
    return state


def native_report(
    target: Target, state: Mapping[str, Tensor], report: Report, partial: bool = False
) -> None:
    """Adds to a report what becomes of every tensor that needs no conversion.

    torch would load what fits and pass over the rest; mmengine says so in warnings.

    Args:
        target: The model.
        state: What it loads.
        report: The report, with what was resized.
        partial: As of :func:`state_for`.

    Raises:
        ValueError: If a tensor the encoder cannot do without is missing, or of a size
            that no image size explains.
    """
    own, inside = target.encoder_shapes, below(target.prefix, state)
    wrong = []
    for key, value in inside.items():
        if key not in own:
            lack = "such part" if _UNUSED.match(key) else "place for it"
            report.dropped[key] = f"{target.name} has no {lack}"
        elif own[key] == value.shape:
            report.converted.append(key)
        else:  # the model resizes it, or torch refuses it
            sizes = f"{tuple(value.shape)} to {tuple(own[key])}"
            report.resized[target.prefix + key] = sizes
            if not _OF_IMAGE_SIZE.search(key) or len(own[key]) != value.ndim:
                wrong.append(f"{key} {sizes}")
    missing = _missing(target, inside)
    report.missing = dict.fromkeys(missing, _RANDOM)
    needed = [key for key in missing if not _OPTIONAL.match(key)]
    # Of a part alone, such as a head, nothing of the encoder is meant to be loaded.
    if inside and needed and not partial:
        problem = f"the model's {len(needed)} {listed(needed, 4)} are not in it"
        raise _other_architecture(target, report.source, problem)
    if inside and wrong:
        problem = f"{len(wrong)} tensors have other sizes: {listed(wrong, 4)}"
        raise _other_architecture(target, report.source, problem)


def adapt_official(
    target: Target,
    checkpoint: Checkpoint,
    layout: Layout,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
    grid: tuple[int, int] | None = None,
    partial: bool = False,
) -> tuple[OrderedDict[str, Tensor], Report]:
    """Converts an official state dict and adapts it to a model, see :func:`state_for`.

    Raises:
        ValueError: If it does not fit the model.
    """
    conversion = convert(
        checkpoint.tensors, layout, source=checkpoint.path, merge_order=merge_order
    )
    report = conversion.report
    target.check_heads(conversion.metadata.get(NUM_HEADS), checkpoint.path)
    _name_norm_of_latent(target, conversion.state)
    encoder = below(PREFIX, conversion.state)
    if not exact:
        _adapt_encoder(target, encoder, report, antialias, grid, partial)
    state = OrderedDict((target.prefix + key, x) for key, x in encoder.items())
    for key, value in conversion.state.items():  # decoders and heads
        if key.startswith(PREFIX):
            continue
        if not target.prefix:
            report.dropped[key] = "no part of an encoder"
        elif exact or target.shapes.get(key) == value.shape:
            state[key] = value
        elif key not in target.shapes:
            report.dropped[key] = "the model has no such part"
        else:
            report.dropped[key] = "of another size, such as another number of classes"
    report.converted = list(state)
    held = {_BIAS.sub(_ONE_FORM, key) for key in state}
    missing = (k for k in target.shapes if _BIAS.sub(_ONE_FORM, k) not in held)
    computed = re.compile(r"data_preprocessor\..*|.*(_index|num_batches_tracked)")
    report.missing |= {k: _RANDOM for k in missing if not computed.fullmatch(k)}
    # Entries are by module: the encoder's is to be found where the encoder is.
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (target.prefix.rstrip(".") if name == "backbone" else name, entry)
        for name, entry in getattr(conversion.state, "_metadata", {}).items()
    )
    return state, report


def _name_norm_of_latent(target: Target, state: dict[str, Tensor]) -> None:
    """Gives a SimMIM's norm to its decoder where the latent is not the last stage's.

    The outputs of the last two stages are equally wide, so that an official file does
    not say of which of them its norm is; the model does.
    """
    for key in [key for key in state if re.fullmatch(r"backbone\.norm\d\.\w+", key)]:
        own = f"neck.norm.{key.rpartition('.')[2]}"
        if key not in target.shapes and own in target.shapes and own not in state:
            state[own] = state.pop(key)


def _native_state(
    target: Target, checkpoint: Checkpoint, prefix: str | None
) -> OrderedDict[str, Tensor]:
    """Tensors that need no conversion, with ``backbone.`` if the model has it."""
    tensors, metadata = checkpoint.tensors, dict(checkpoint.metadata)
    target.check_heads(checkpoint.num_heads(prefix), checkpoint.path)
    coordinates = getattr(target.encoder, "merge_coordinates", None)
    if checkpoint.merge_coordinates == "official" != coordinates:
        print_log(
            f"{checkpoint.path} was pre-trained with LocalMIM's official token "
            "coordinates, which are scrambled after the first patch merging. Only "
            "MIMSwinTransformer(merge_coordinates='official') computes, under a mask, "
            "what it was trained for; a plain Swin Transformer has the true ones, as "
            "the official fine-tuning has",
            logger="current",
            level=logging.WARNING,
        )
    has_prefix = any(key.startswith(PREFIX) for key in tensors)
    bare = NATIVE in checkpoint.candidates and not has_prefix
    if prefix is None and not target.prefix and has_prefix:
        prefix = PREFIX
    if prefix is not None and not (bare and f"{prefix.rstrip('.')}." == PREFIX):
        prefix = f"{prefix.rstrip('.')}."
        if not any(key.startswith(prefix) for key in tensors):
            raise ValueError(
                f"init_cfg: no key of {checkpoint.path} starts with prefix={prefix!r}; "
                f"it has {listed(tensors, 6)}"
            )
        tensors = below(prefix, tensors)
        entries = below(prefix, {f"{name}.": x for name, x in metadata.items()})
        metadata = {name.rstrip("."): entry for name, entry in entries.items()}
    elif bare and target.prefix:
        tensors = {PREFIX + key: x for key, x in tensors.items()}
        metadata = {f"{PREFIX}{k}".rstrip("."): x for k, x in metadata.items()}
    state = OrderedDict(tensors)
    state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return state


def _adapt_encoder(
    target: Target,
    state: dict[str, Tensor],
    report: Report,
    antialias: bool,
    grid: tuple[int, int] | None,
    partial: bool,
) -> None:
    """Brings the encoder's tensors to the sizes the model has, in place."""
    own = target.encoder_shapes
    _resize(target, state, "", report, grid, antialias, True)
    missing = [k for k in _missing(target, state) if not _OPTIONAL.match(k)]
    unexpected = []
    for key in [k for k in state if k not in own]:
        if target.converts_biases and (_BIAS.match(key) or "rel_pos_bias." in key):
            continue
        if _UNUSED.match(key):
            report.dropped[key] = f"{target.name} has no such part"
            del state[key]
        else:
            unexpected.append(key)
    problems = []
    if missing and not partial:
        problems.append(
            f"the model's {len(missing)} {listed(missing, 4)} are not in it"
        )
    if unexpected:
        problems.append(
            f"the model has no place for its {len(unexpected)} {listed(unexpected, 4)}"
        )
    if problems:
        raise _other_architecture(target, report.source, "; ".join(problems))
    # An encoder without a plain grid of tokens has its own way of resizing positions.
    resizes = target.grid is None or len(own.get("pos_embed", ())) != 3
    wrong = {
        f"{key} {tuple(x.shape)} instead of {tuple(own[key])}"
        for key, x in state.items()
        if own.get(key, x.shape) != x.shape and not (key == "pos_embed" and resizes)
    }
    if wrong:
        raise ValueError(
            f"{report.source} has other sizes than the {target.name} that is to load "
            f"it: {listed(wrong, 4)}. Set arch, patch_size and in_channels of the "
            "backbone to what was trained"
        )


def _resize(
    target: Target,
    state: dict[str, Tensor],
    prefix: str,
    report: Report,
    recorded: tuple[int, int] | None,
    antialias: bool,
    is_official: bool,
) -> None:
    """Resizes position embeddings and tables of relative positions, in place."""
    extra, grid = target.num_extra_tokens, target.grid or (0, 0)
    # A model without class token takes no position of it.
    spare = int(extra == 0 and f"{prefix}cls_token" in state)
    for key, size in target.position_tables.items():
        table = state.get(f"{prefix}pos_embed")
        if table is None or prefix + key in state:
            continue
        old, _ = target.grid_of(table, recorded, is_official, report.source)
        made = resize_position_embedding(table, size, extra, old, antialias)[:, extra:]
        state[prefix + key] = made
        what = f"made from pos_embed: {tuple(table.shape)} to {tuple(made.shape)}"
        report.resized[target.prefix + key] = what
    for key, shape in target.encoder_shapes.items():
        if prefix + key not in state:
            continue
        value = resized = state[prefix + key]
        what = f"{tuple(value.shape)} to {tuple(shape)}"
        if key == "pos_embed":
            if shape != (1, math.prod(grid) + extra, value.shape[-1]):
                continue
            table = value[:, spare:]
            if spare:
                del state[f"{prefix}cls_token"]
                report.dropped["cls_token"] = f"{target.name} has no such part"
            old, note = target.grid_of(table, recorded, is_official, report.source)
            report.notes += filter(None, [note])
            resized = table
            if table.shape != shape or old not in (None, grid):
                resized = resize_position_embedding(table, grid, extra, old, antialias)
            if value.shape == shape:
                what += ", of {}x{} patches to {}x{}".format(*(old or grid), *grid)
        elif value.shape == shape:
            continue
        elif key.endswith("bias_table") and shape[1:] == value.shape[1:]:
            if "w_msa." not in key:
                resized = resize_offset_table(value, grid, antialias)
            elif math.isqrt(len(value)) ** 2 == len(value):
                resized = resize_bias_table(value, math.isqrt(shape[0]), antialias)
        if resized is value or resized.shape != shape or resized.equal(value):
            continue
        state[prefix + key] = resized
        report.resized[target.prefix + key] = what
        if key.endswith("bias_table"):
            state.pop(prefix + key.replace("bias_table", "index"), None)


def _missing(target: Target, encoder: Mapping[str, Any]) -> list[str]:
    """Keys of the encoder that a checkpoint lacks, but for what is computed."""
    absent = [k for k in target.encoder_shapes if k not in encoder]
    if target.converts_biases:
        held = {_BIAS.sub(_ONE_FORM, key) for key in encoder}
        absent = [key for key in absent if _BIAS.sub(_ONE_FORM, key) not in held]
    return [key for key in absent if not key.endswith("_index")]


def _other_architecture(target: Target, source: str, problem: str) -> ValueError:
    return ValueError(
        f"{source} is a checkpoint of another architecture than the {target.name} "
        f"that is to load it: {problem}. Set arch, patch_size and the class of the "
        "backbone to what was trained"
    )


def _check_loaded_keys(
    target: Target, state: Mapping[str, Tensor], source: str, partial: bool
) -> None:
    """Makes sure that an encoder with our keys gets nearly all of its elements.

    torch passes over what does not fit; mmengine says so in warnings.
    """
    fitting = [key for key in state if key in target.shapes]
    of_encoder = [key for key in fitting if key.startswith(target.prefix)]
    # A part without encoder, such as a head, may be meant.
    meant = any(key.startswith(target.prefix) for key in state)
    if state and not of_encoder and (meant or not fitting):
        raise ValueError(
            f"{source} has nothing for the {target.name} that is to load it: none of "
            f"the model's keys is in it, which has {listed(state, 4)}. Give a "
            "checkpoint of this architecture; Hugging Face's layout, and that of other "
            "networks, is not converted"
        )
    sizes = {
        key: shape.numel()
        for key, shape in target.encoder_shapes.items()
        if not key.endswith("_index") and not _OPTIONAL.match(key)
    }
    loaded = sum(size for key, size in sizes.items() if target.prefix + key in state)
    if of_encoder and loaded < 0.95 * sum(sizes.values()) and not partial:
        missing = [key for key in sizes if target.prefix + key not in state]
        raise ValueError(
            f"{source} holds {loaded / sum(sizes.values()):.0%} of the elements of the "
            f"{target.name} that is to load it; {len(missing)} tensors are missing, "
            f"{listed(missing, 4)}. Give a complete checkpoint, or, if the rest is to "
            "be randomly initialised, partial=True in init_cfg"
        )
