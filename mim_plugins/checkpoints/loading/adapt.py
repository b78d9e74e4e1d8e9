"""Adapts a checkpoint to the model that loads it, or says why it does not fit."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
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
    found = checkpoint.candidates if target.has_native_keys else []
    chosen = (x for x in found if x.chosen_by(target.shapes))
    layout = next(chosen, found[0]) if found else None
    if layout is not None and layout is not NATIVE:
        state, report = adapt_official(
            target, checkpoint, layout, merge_order, antialias, exact
        )
        print_log(f"converted on load\n{report}", logger="current")
        return state
    state = _native_state(target, checkpoint, prefix)
    if layout is not None and not exact:
        report = native_report(target, state, checkpoint.path)
        print_log(f"loaded\n{report}", logger="current")
    if target.has_native_keys and not exact:
        _check_loaded_keys(target, state, checkpoint.path)
    return state


def native_report(target: Target, state: Mapping[str, Tensor], source: str) -> Report:
    """What becomes of every tensor that needs no conversion.

    torch would load what fits and pass over the rest; mmengine says so in warnings.

    Raises:
        ValueError: If a tensor the encoder cannot do without is missing, or of a size
            that no image size explains.
    """
    own, inside = target.encoder_shapes, below(target.prefix, state)
    report = Report(source, NATIVE.title, len(state), done="loaded")
    for key, value in inside.items():
        if key not in own:
            lack = "such part" if _UNUSED.match(key) else "place for it"
            report.dropped[key] = f"{target.name} has no {lack}"
        elif own[key] == value.shape:
            report.converted.append(key)
        else:
            report.resized[key] = f"{tuple(value.shape)} to {tuple(own[key])}"
    if "pos_embed" in inside and target.is_other_grid(inside["pos_embed"]):
        rows, cols = target.grid or (0, 0)
        report.notes.append(
            f"the positions are taken to be of {rows}x{cols} patches, as the model's; "
            "if they are of a square image, resize them with "
            "tools/convert_checkpoint.py --img-size HEIGHT WIDTH"
        )
    missing = _missing(target, inside)
    report.missing = dict.fromkeys(missing, _RANDOM)
    needed = [key for key in missing if not _OPTIONAL.match(key)]
    wrong = [
        f"{key} {sizes}"
        for key, sizes in report.resized.items()
        if not _OF_IMAGE_SIZE.search(key) or len(own[key]) != inside[key].ndim
    ]
    # Of a part alone, such as a head, nothing of the encoder is meant to be loaded.
    if inside and needed:
        problem = f"the model's {len(needed)} {listed(needed, 4)} are not in it"
        raise _other_architecture(target, source, problem)
    if inside and wrong:
        problem = f"{len(wrong)} tensors have other sizes: {listed(wrong, 4)}"
        raise _other_architecture(target, source, problem)
    return report


def adapt_official(
    target: Target,
    checkpoint: Checkpoint,
    layout: Layout,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
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
    encoder = below(PREFIX, conversion.state)
    if not exact:
        _adapt_encoder(target, encoder, report, antialias)
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
    target: Target, state: dict[str, Tensor], report: Report, antialias: bool
) -> None:
    """Brings the encoder's tensors to the sizes the model has, in place."""
    own, with_cls = target.encoder_shapes, "cls_token" in state
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
    if missing:
        problems.append(
            f"the model's {len(missing)} {listed(missing, 4)} are not in it"
        )
    if unexpected:
        problems.append(
            f"the model has no place for its {len(unexpected)} {listed(unexpected, 4)}"
        )
    if problems:
        raise _other_architecture(target, report.source, "; ".join(problems))
    _resize(target, state, report, with_cls, antialias)
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
    report: Report,
    with_cls: bool,
    antialias: bool,
) -> None:
    """Resizes position embeddings and tables of relative positions, in place."""
    extra, grid = target.num_extra_tokens, target.grid or (0, 0)
    outdated = []
    for key, value in list(state.items()):
        shape = target.encoder_shapes.get(key)
        regrid = key == "pos_embed" and target.is_other_grid(value)
        if shape is None or shape == value.shape and not regrid:
            continue
        resized = value
        if key == "pos_embed":
            if shape == (1, math.prod(grid) + extra, value.shape[-1]):
                # A model without class token takes no position of it.
                spare = int(with_cls and extra == 0)
                resized = resize_position_embedding(
                    value[:, spare:], grid, extra, antialias=antialias
                )
        elif key.endswith("bias_table") and shape[1:] == value.shape[1:]:
            if "w_msa." not in key:
                resized = resize_offset_table(value, grid, antialias)
            elif math.isqrt(len(value)) ** 2 == len(value):
                resized = resize_bias_table(value, math.isqrt(shape[0]), antialias)
        if resized is value or resized.shape != shape:
            continue
        state[key] = resized
        what = f"{tuple(value.shape)} to {tuple(shape)}"
        if value.shape == shape:
            what += ", of a square grid to one of {}x{}".format(*grid)
        report.resized[target.prefix + key] = what
        if key.endswith("bias_table"):
            outdated.append(key.replace("bias_table", "index"))
    for key in outdated:
        state.pop(key, None)


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
    target: Target, state: Mapping[str, Tensor], source: str
) -> None:
    """Makes sure that an encoder with our keys gets something of a checkpoint.

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
