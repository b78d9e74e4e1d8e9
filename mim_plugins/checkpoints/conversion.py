"""From any layout to ours and back, with an account of every tensor."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .files.allow_list import brief
from .files.state_dicts import strip_prefixes
from .layouts import Layout, Options, candidates, drop, layouts, oblong_matrices
from .layouts.key_rules import has_key, listed, numbers
from .layouts.native import LAYOUT as NATIVE
from .metadata import NUM_HEADS
from .report import Report

State = dict[str, Tensor]

# How many dimensions a tensor has, by the end of its key, official or ours; the first
# that fits counts.
_DIMENSIONS = [
    (r"(cls|dist)_token|(.*\.)?mask_token\d*", (3,)),
    (r"(.*\.)?(absolute_|decoder_)?pos_embed\d*", (3,)),
    (r"(.*\.)?patch_embed\.proj(ection)?\.weight", (4,)),
    (r"(.*\.)?(qkv|attn\.(w_msa\.)?proj|reduction|mlp\.fc[12]|ffn\.layers\.(0\.0|1))\.weight",
     (2,)),
    (r"(.*[._])?blocks\d*\.\d+\.proj\.weight", (2,)),
    (r"(.*\.)?(norm|ln|(fc|dist|decoder|encoder|fusion|latent)_norm)(_?\w+)?\.weight",
     (1,)),
    (r"(.*\.)?(attn\.)?relative_position_bias_table", (2,)),
    (r"(.*\.)?((\w+_)?bias|gamma_?\d?(\.weight)?|ls\d\.gamma)", (1,)),
    (r"head(\.fc|\.projection)?\.weight", (2,)),
    (r"(.*\.)?decoder_embed\d*(_\d)?\.weight", (2, 4)),
]  # fmt: skip

# Blocks of encoders and decoders, under our keys.
_BLOCK = re.compile(
    r"((backbone|neck)\.(?:layers|stages\.\d+\.blocks|(?:decoders\.\d+\.)?"
    r"decoder_blocks))\.(\d+)\.(.+)"
)

# What some blocks have and others not: a change of width, relative positions of some
# windows, and what is computed.
_OF_SOME_BLOCKS = re.compile(r"proj\.|attn\.rel_pos_|.*_index$")


@dataclass
class Conversion:
    """Tensors under our keys, and what is known about them.

    Args:
        state: Tensors by key; ``backbone.`` those of mmpretrain's encoders.
        layout: The layout they came in.
        report: What became of every tensor.
        metadata: What must be known to go back to that layout, or to build the model,
            and cannot be inferred from the weights; plain values.
    """

    state: OrderedDict[str, Tensor]
    layout: Layout
    report: Report
    metadata: dict[str, Any] = field(default_factory=dict)


def convert(
    state: Mapping[str, Tensor],
    layout: str | Layout = "auto",
    *,
    source: str = "checkpoint",
    merge_order: str = "trained",
    part: str = "student",
) -> Conversion:
    """Converts a state dict to our keys.

    Args:
        state: Tensors by key: pre-training with or without decoder, an encoder alone,
            or a classifier, wrapped for parallel training or not.
        layout: A layout or the name of one, see :func:`.layouts.layouts`; ``'auto'``
            detects it by the keys.
        source: Where it is from, for messages.
        merge_order: What pre-training weights of a LocalMIM Swin do, see
            :func:`.localmim.convert_official`.
        part: ``'student'``, or ``'teacher'`` for the one in a distillation checkpoint.

    Raises:
        ValueError: If the layout is unknown or ambiguous, a key is not accounted for,
            or a tensor is missing or of no possible shape.
    """
    total, heads = len(state), {}
    state = strip_prefixes(state)
    if has_key(state, r"backbone\.(layers\.\d+\.)?blocks\."):  # an official segmentor
        # mmseg's heads have had the same keys in all its versions.
        of_head = re.compile(r"(decode|auxiliary)_head\.")
        heads = {k: x for k, x in state.items() if of_head.match(k)}
        rest = (key for key in state if key not in heads)
        state = {key.removeprefix("backbone."): state[key] for key in rest}
    if not isinstance(layout, Layout):
        layout = _find_layout(state, layout, source)
    options = Options(source, part, merge_order)
    if layout is not NATIVE and Path(source).suffix in (".pdparams", ".pd"):
        _check_paddle_matrices(state, source)
    kept = state
    try:
        if layout.split is not None:
            kept, dropped = layout.split(state, options)
        elif part == "teacher":
            raise KeyError("it holds no teacher; leave out --part teacher")
        else:
            kept, dropped = drop(state, layout.dropped)
        converted = layout.to_native(kept, options)
        metadata = {"layout": layout.name, **layout.record(kept, options)}
        num_heads = layout.num_heads(kept if part == "teacher" else state)
    except KeyError as error:
        raise ValueError(
            f"{source} was taken for {layout.title}, but does not fit it: "
            f"{error.args[0]}. If its layout is another, name it (--from); if it is a "
            "model of another architecture, it cannot be converted"
        ) from error
    except (RuntimeError, IndexError, TypeError) as error:  # torch's, of shapes
        _check_dimensions(kept, source)
        raise ValueError(
            f"{source} was taken for {layout.title}, but a tensor in it has a shape "
            f"that fits none there: {brief(error)}"
        ) from error
    if num_heads is not None:
        metadata[NUM_HEADS] = num_heads
    if layout.one_to_one:
        _check_dimensions(kept, source)
    _check_blocks(converted, source)
    result = OrderedDict({**converted, **heads})
    if layout.one_to_one and len(result) + len(dropped) != total:
        raise ValueError(
            f"{source}: of {total} tensors {len(result)} were converted and "
            f"{len(dropped)} dropped: two of them have one name in {layout.title}"
        )
    result._metadata = getattr(  # type: ignore[attr-defined]
        converted, "_metadata", OrderedDict()
    )
    report = Report(source, layout.title, total, list(result), dropped=dropped)
    if metadata.get("paddle") is False:
        report.notes.append(
            "its oblong matrices are (out, in), as in PyTorch; whether the square ones "
            "were transposed with them cannot be checked: prefer the .pdparams"
        )
    report.notes += layout.advise(result, num_heads)
    return Conversion(result, layout, report, metadata)


def to_official(
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    *,
    source: str = "checkpoint",
    img_size: int = 224,
) -> tuple[State, Report]:
    """Converts our state dict to the layout of the official code of its method.

    Args:
        state: All keys of a pre-training model, of a classifier, or of an encoder.
        metadata: That of the :class:`Conversion` it came from, if it did.
        source: Where it is from, for messages.
        img_size: Side in pixels of the images: official Swin files hold the masks of
            shifted windows, which depend on it.

    Returns:
        The tensors under official keys, and the account of ours.

    Raises:
        ValueError: If the official layout has no place for a tensor.
    """
    metadata = metadata or {}
    report = Report(source, "mmpretrain's layout to the official one", len(state))
    kept, report.dropped = drop(state, NATIVE.dropped)
    known = layouts().get(metadata.get("layout", ""))
    found = [x for x in (known, *layouts().values()) if x and x.writes(kept, metadata)]
    try:
        if not found or found[0].to_official is None:
            raise KeyError(f"{listed(kept, 4)} are of no model with an official layout")
        official = found[0].to_official(kept, metadata, img_size)
    except KeyError as error:
        raise ValueError(
            f"{source}: the official layout has no place for every tensor: "
            f"{error.args[0]}. Export the encoder alone (--encoder-only), or to timm"
        ) from error
    report.converted = list(official)
    return official, report


def _find_layout(state: Mapping[str, Tensor], name: str, source: str) -> Layout:
    """The layout of a name, or the one that is detected."""
    if name in layouts():
        return layouts()[name]
    if name != "auto":
        raise ValueError(
            f"unknown layout {name!r}: choose auto, {', '.join(layouts())}"
        )
    found = candidates(state)
    if not found:
        raise ValueError(
            f"{source} is in no known layout ({', '.join(layouts())}); it has keys "
            f"such as {listed(state, 6)}. Give the checkpoint of a Vision "
            "Transformer, Swin Transformer or Hiera"
        )
    if len(found) > 1:
        raise ValueError(
            f"{source} may be in {' or in '.join(x.title for x in found)}: the final "
            "norm of this Swin Transformer comes before the pooling (Swin's own code, "
            "timm, MAE-Lite) or after it (LocalMIM's fine-tuning), which cannot be "
            f"inferred from the weights. Say which: --from "
            f"{' or --from '.join(x.name for x in found)}"
        )
    return found[0]


def _check_paddle_matrices(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses a file of Paddle's whose matrices somebody transposed, if all of them.

    Whoever goes by their shapes leaves the square ones as they were.
    """
    paddle, torch = oblong_matrices(state)
    square = [k for k, x in state.items() if x.ndim == 2 and x.shape[0] == x.shape[1]]
    if torch and not paddle and square:
        raise ValueError(
            f"{source}: its {len(torch)} oblong matrices, such as {torch[0]}, are "
            "(out, in), as in no file of PaddlePaddle; its "
            f"{len(square)} square ones, such as {square[0]}, do not show whether they "
            "were transposed with them. Give the original file; or, if all were "
            "transposed, save it with torch as .pth"
        )


def _check_dimensions(state: Mapping[str, Tensor], source: str) -> None:
    """Makes sure that tensors have as many dimensions as their kind."""
    for key, value in state.items():
        name = re.sub(r"^((tch_)?model|encoder|backbone)\.", "", key)
        wanted = next((n for kind, n in _DIMENSIONS if re.fullmatch(kind, name)), None)
        if wanted is not None and (value.ndim not in wanted or not value.numel()):
            raise ValueError(
                f"{source}: {key} has the shape {tuple(value.shape)}; a tensor of this "
                f"name has {' or '.join(map(str, wanted))} dimensions, none empty. The "
                "file is damaged, or was changed: give the original one"
            )


def _check_blocks(state: Mapping[str, Tensor], source: str) -> None:
    """Makes sure that no block of an encoder or decoder lacks a tensor."""
    blocks: dict[str, dict[str, dict[int, set[str]]]] = {"backbone": {}, "neck": {}}
    for key in state:
        if match := _BLOCK.fullmatch(key):
            place, part, number, name = match.groups()
            numbered = blocks[part].setdefault(place, {})
            numbered.setdefault(int(number), set()).add(name)
    absent: list[str] = []
    for part, places in blocks.items():
        names = {x for found in places.values() for own in found.values() for x in own}
        wanted = {name for name in names if not _OF_SOME_BLOCKS.match(name)}
        if part == "backbone" and places:
            of_blocks, others = _of_every_encoder(state, names)
            wanted |= of_blocks
            absent += [key for key in others if key not in state]
        absent += [
            f"{place}.{number}.{name}"
            for place, found in places.items()
            for number in range(1 + max(found))
            for name in wanted - found.get(number, set())
        ]
    if absent:
        raise ValueError(
            f"{source} is incomplete: it lacks what becomes {listed(absent, 4)} "
            f"({len(absent)} tensors), which other blocks have or every encoder needs. "
            "It was cut or pruned: give the original file"
        )


def _of_every_encoder(
    state: Mapping[str, Tensor], names: set[str]
) -> tuple[set[str], list[str]]:
    """What each block has, whether or not a neighbour shows it, and keys outside."""
    stages = numbers(state, r"backbone\.stages\.(\d+)\.blocks\.")
    attention, norm = ("attn.w_msa", "norm") if 0 in stages else ("attn", "ln")
    layers = [f"{norm}1", f"{norm}2", f"{attention}.proj"]
    if not any(name.startswith("ffn.w") for name in names):
        layers += ["ffn.layers.0.0", "ffn.layers.1"]
    of_blocks = {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
    keys = ["patch_embed.projection.weight"]
    if "backbone.pre_norm.weight" not in state:  # but for CLIP's towers
        keys.append("patch_embed.projection.bias")
    keys += [
        f"stages.{stage}.downsample.{name}"
        for stage in range(max(stages, default=0))
        for name in ("norm.weight", "norm.bias", "reduction.weight")
    ]
    return of_blocks | {f"{attention}.qkv.weight"}, [f"backbone.{key}" for key in keys]
