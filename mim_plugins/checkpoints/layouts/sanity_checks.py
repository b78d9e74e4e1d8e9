"""Sanity checks of converted checkpoints: shapes by name, and complete blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .key_rules import listed

# How many dimensions a tensor has, by the end of its key, official or ours; the first
# that fits counts.
_DIMENSIONS: list[tuple[str, tuple[int, ...]]] = [
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

_KINDS = [(re.compile(pattern), dims) for pattern, dims in _DIMENSIONS]

# Blocks of encoders and decoders, under our keys.
_BLOCK = re.compile(
    r"((backbone|neck)\.(?:layers|stages\.\d+\.blocks|(?:decoders\.\d+\.)?"
    r"decoder_blocks))\.(\d+)\.(.+)"
)

# What some blocks have and others not: a change of width, relative positions of some
# windows, and what is computed.
_OF_SOME = re.compile(r"proj\.|attn\.rel_pos_|.*_index$")

# What every block of an encoder has, whether or not a neighbour shows it.
_NORMS = {False: ("ln1", "ln2"), True: ("norm1", "norm2")}


def check_dimensions(state: Mapping[str, Tensor], source: str) -> None:
    """Makes sure that tensors have as many dimensions as their kind.

    Args:
        state: Tensors by key, official or ours, without wrappers around the keys.
        source: Where they are from, for the message.

    Raises:
        ValueError: If one has not, naming it.
    """
    for key, value in state.items():
        name = re.sub(r"^((tch_)?model|encoder|backbone)\.", "", key)
        wanted = next((dims for kind, dims in _KINDS if kind.fullmatch(name)), None)
        if wanted is not None and (value.ndim not in wanted or not value.numel()):
            raise ValueError(
                f"{source}: {key} has the shape {tuple(value.shape)}; a tensor of this "
                f"name has {' or '.join(map(str, wanted))} dimensions, none empty. The "
                "file is damaged, or was changed: give the original one"
            )


def check_blocks(state: Mapping[str, Tensor], source: str) -> None:
    """Makes sure that no block of an encoder or decoder lacks a tensor.

    Args:
        state: Tensors by our keys.
        source: Where they are from, for the message.

    Raises:
        ValueError: If one does, or the patch embedding is not there.
    """
    blocks: dict[str, dict[str, dict[int, set[str]]]] = {"backbone": {}, "neck": {}}
    for key in state:
        if match := _BLOCK.fullmatch(key):
            place, part, number, name = match.groups()
            numbered = blocks[part].setdefault(place, {})
            numbered.setdefault(int(number), set()).add(name)
    absent: list[str] = []
    for part, places in blocks.items():
        kinds = [names for found in places.values() for names in found.values()]
        wanted: set[str] = set().union(*kinds)
        if part == "backbone" and kinds:
            absent += _absent_embedding(state)
            wanted |= _of_every_block("backbone.stages.0.blocks" in places, wanted)
        for place, found in places.items():
            absent += [
                f"{place}.{number}.{name}"
                for number in range(1 + max(found))
                for name in wanted
                if name not in found.get(number, ()) and not _OF_SOME.match(name)
            ]
    absent += _absent_merges(state, blocks["backbone"])
    if absent:
        raise ValueError(
            f"{source} is incomplete: it lacks what becomes {listed(absent, 4)} "
            f"({len(absent)} tensors), which other blocks have or every encoder needs. "
            "It was cut or pruned: give the original file"
        )


def _absent_embedding(state: Mapping[str, Tensor]) -> list[str]:
    """Tensors of the patch embedding, which has no bias in CLIP's towers alone."""
    names = ["weight"] if "backbone.pre_norm.weight" in state else ["weight", "bias"]
    keys = [f"backbone.patch_embed.projection.{name}" for name in names]
    return [key for key in keys if key not in state]


def _of_every_block(is_swin: bool, known: set[str]) -> set[str]:
    """What a block of an encoder has at least."""
    attention = "attn.w_msa" if is_swin else "attn"
    layers = [*_NORMS[is_swin], f"{attention}.proj"]
    if not any(name.startswith("ffn.w") for name in known):
        layers += ["ffn.layers.0.0", "ffn.layers.1"]
    wanted = {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
    return wanted | {f"{attention}.qkv.weight"}


def _absent_merges(
    state: Mapping[str, Tensor], places: Mapping[str, object]
) -> list[str]:
    """Tensors of a Swin Transformer's mergings, behind all stages but the last."""
    numbers = [int(p.split(".")[2]) for p in places if p.startswith("backbone.stages.")]
    names = ("norm.weight", "norm.bias", "reduction.weight")
    return [
        key
        for stage in range(max(numbers, default=0))
        for name in names
        if (key := f"backbone.stages.{stage}.downsample.{name}") not in state
    ]


def oblong_matrices(state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Oblong matrices that are (in, out), as PaddlePaddle's, and that are (out, in)."""
    ways: dict[bool, list[str]] = {True: [], False: []}
    for key, weight in state.items():
        bias = state.get(key.replace(".weight", ".bias").replace("weight_v", "bias"))
        if weight.ndim == 2 and bias is not None and weight.shape[0] != weight.shape[1]:
            ways[weight.shape[1] == len(bias)].append(key)
    return ways[True], ways[False]


def check_paddle_matrices(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses a file of Paddle's whose matrices somebody transposed, if all of them.

    Whoever goes by their shapes leaves the square ones as they were.

    Raises:
        ValueError: If it is one.
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
