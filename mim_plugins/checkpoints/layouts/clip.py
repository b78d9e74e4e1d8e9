"""Image towers of CLIP in every layout they come in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import Layout, Options, State, drop
from .key_rules import KeyRules, listed, numbers

WHAT_TO_GIVE = (
    "give the OpenAI CLIP ViT-B/16 weights (ViT-B-16.pt as downloaded), a state dict "
    "of such a model or of its image tower, an open_clip file or folder, or a Hugging "
    "Face folder (openai/clip-vit-base-patch16)"
)

# OpenAI's and open_clip's image tower (`visual.`), Hugging Face's (`vision_model.`),
# whose q, k and v are fused before, and ours.
_LAYERS = ("transformer.resblocks.{i}.", "encoder.layers.{i}.", "vit.layers.{i}.")
_BLOCK = (
    ("ln_1.{p}", "layer_norm1.{p}", "ln1.{p}"),
    ("attn.in_proj_{p}", "self_attn.qkv_proj.{p}", "attn.qkv.{p}"),
    ("attn.out_proj.{p}", "self_attn.out_proj.{p}", "attn.proj.{p}"),
    ("ln_2.{p}", "layer_norm2.{p}", "ln2.{p}"),
    ("mlp.c_fc.{p}", "mlp.fc1.{p}", "ffn.layers.0.0.{p}"),
    ("mlp.c_proj.{p}", "mlp.fc2.{p}", "ffn.layers.1.{p}"),
)
_TOWER = (
    ("class_embedding", "embeddings.class_embedding", "vit.cls_token"),
    ("positional_embedding", "embeddings.position_embedding.weight", "vit.pos_embed"),
    (
        "conv1.weight",
        "embeddings.patch_embedding.weight",
        "vit.patch_embed.projection.weight",
    ),
    ("ln_pre.{p}", "pre_layrnorm.{p}", "vit.pre_norm.{p}"),  # spelt so in the library
    *(tuple(a + b for a, b in zip(_LAYERS, names, strict=True)) for names in _BLOCK),
    ("ln_post.{p}", "post_layernorm.{p}", "vit.ln1.{p}"),
    ("proj", "visual_projection.weight", "proj.weight"),
)
OPENAI_RULES = KeyRules((openai, ours) for openai, _, ours in _TOWER)
HUGGING_FACE_RULES = KeyRules((theirs, ours) for _, theirs, ours in _TOWER)

# What a CLIP has next to its image tower: the text tower, the projections into the
# common space, and mere counts.
_OTHER_PARTS = (
    r"(text|text_model|transformer|ln_final|token_embedding)\..+"
    r"|positional_embedding|text_projection(\.weight|\.bias)?|visual_projection\.weight"
    r"|logit_(scale|bias)|input_resolution|context_length|vocab_size|attn_mask"
)


def image_tower(
    tensors: Mapping[str, Tensor], file: Path
) -> tuple[KeyRules, dict[str, Tensor]]:
    """The tensors of the image tower without their prefix, and the rules for them.

    Raises:
        ValueError: If there is no CLIP Vision Transformer in the file.
    """
    mark = re.compile(r"((?:.*?\.)??)(embeddings\.)?class_embedding")
    match = next(filter(None, map(mark.fullmatch, tensors)), None)
    if match is None:
        raise _no_tower(tensors, file)
    prefix, is_hugging_face = match[1], match[2] is not None
    found = {k[len(prefix) :]: x for k, x in tensors.items() if k.startswith(prefix)}
    if not is_hugging_face:
        return OPENAI_RULES, found
    # The projection is next to the tower; positions are a mere count.
    name = "visual_projection.weight"
    projection = tensors.get(prefix.removesuffix("vision_model.") + name)
    if projection is not None:
        found[name] = projection
    found.pop("embeddings.position_ids", None)
    return HUGGING_FACE_RULES, _fuse_qkv(found)


def _no_tower(tensors: Mapping[str, Tensor], file: Path) -> ValueError:
    """What a file without an image tower is refused with."""
    keys = [k for k in tensors if "visual." in k or "vision" in k] or list(tensors)
    if any("attnpool." in key for key in keys):
        problem = "a CLIP with a ResNet, which has no patch tokens"
    elif len(keys) < len(tensors):
        problem = "an image tower that is no Vision Transformer of CLIP's"
    elif any("token_embedding" in key for key in keys):
        problem = "the text half of a CLIP, and no image tower"
    else:
        problem = "no image tower of a CLIP Vision Transformer"
    some = ", ".join(keys[:6]) + (" ..." if len(keys) > 6 else "")
    return ValueError(
        f"{file} holds {problem}: among its keys ({some}) is no class_embedding. "
        f"Instead, {WHAT_TO_GIVE}"
    )


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stacks separate query, key and value projections, in this order."""
    fused = dict(state)
    for key in state:
        match = re.fullmatch(r"(.+\.)q_proj\.(weight|bias)", key)
        parts = match and [f"{match[1]}{name}_proj.{match[2]}" for name in "qkv"]
        if match and parts and all(part in state for part in parts):
            fused[f"{match[1]}qkv_proj.{match[2]}"] = torch.cat(
                [fused.pop(part) for part in parts]
            )
    return fused


def convert_tower(
    rules: KeyRules, found: dict[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Renames and reshapes a tower, in float32.

    Raises:
        ValueError: If keys are unknown or missing, or shapes do not fit together,
            naming them, or positions are not those of a square image.
    """
    try:
        state = rules.convert(found)
    except KeyError as error:
        raise ValueError(
            f"the image tower in {file} is of another architecture than CLIP's Vision "
            f"Transformer: {error.args[0]}. Instead, {WHAT_TO_GIVE}"
        ) from error
    names = (
        ours.format(i=i, p=p)
        for _, ours in rules.rules
        for i in range(max(depth_of(state), 1) if "{i}" in ours else 1)
        for p in ("weight", "bias")
    )
    missing = {str(rules.to_official(name)) for name in names} - found.keys()
    if missing:
        raise ValueError(
            f"the image tower in {file} lacks {listed(missing)}: {WHAT_TO_GIVE}, "
            "projection included"
        )
    _check_shapes(rules, state, file)
    state = {key: value.float() for key, value in state.items()}
    state["vit.cls_token"] = state["vit.cls_token"].view(1, 1, -1)
    state["vit.pos_embed"] = state["vit.pos_embed"].unsqueeze(0)
    if rules is OPENAI_RULES:
        # Stored to be multiplied from the right, (width, out_dims).
        state["proj.weight"] = state["proj.weight"].T.contiguous()
    positions = state["vit.pos_embed"].shape[1] - 1
    if math.isqrt(positions) ** 2 != positions:
        raise ValueError(
            f"the image tower in {file} has {positions} positions, which are no square "
            f"grid: {WHAT_TO_GIVE}"
        )
    return state


def _check_shapes(rules: KeyRules, state: Mapping[str, Tensor], file: Path) -> None:
    """Checks that all tensors of a tower, as stored, are of one width."""
    width = state["vit.cls_token"].numel()
    hidden = (*state["vit.layers.0.ffn.layers.0.0.bias"].shape, 0)[0]
    shapes: dict[str, tuple[int | None, ...]] = {  # None: of any size
        "cls_token": (width,),
        "pos_embed": (None, width),
        "projection.weight": (width, 3, None, None),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "ffn.layers.0.0.weight": (hidden, width),
        "ffn.layers.0.0.bias": (hidden,),
        "ffn.layers.1.weight": (width, hidden),
        "proj.weight": (width, None) if rules is OPENAI_RULES else (None, width),
    }
    for key, value in state.items():
        wanted = next(
            (shape for end, shape in shapes.items() if key.endswith(end)), (width,)
        )
        if len(wanted) != value.ndim or any(
            w not in (None, n) for w, n in zip(wanted, value.shape, strict=True)
        ):
            sizes = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(
                f"the image tower in {file} does not fit together: "
                f"{rules.to_official(key)} has the shape {tuple(value.shape)}, but "
                f"({sizes}) is needed next to the other tensors. Instead, "
                f"{WHAT_TO_GIVE}"
            )


def depth_of(state: Mapping[str, Tensor]) -> int:
    """Number of blocks of a converted tower."""
    return len(numbers(state, r"vit\.layers\.(\d+)\."))


def _encoder(state: State, options: Options) -> State:
    """The encoder of a CLIP's image tower as ours, ``backbone.``, in float32."""
    file = Path(options.source)
    tower = convert_tower(*image_tower(state, file), file)
    return {
        f"backbone.{key.removeprefix('vit.')}": value
        for key, value in tower.items()
        if key.startswith("vit.")
    }


def _split(state: State, options: Options) -> tuple[State, dict[str, str]]:
    """Says what is not of the encoder; all is kept: the projection helps to check."""
    place = next((k for k in state if k.endswith("class_embedding")), "")
    tower = place.removesuffix("class_embedding").removesuffix("embeddings.")
    parent = re.sub(r"(visual|vision_model)\.$", "", tower)
    inside, outside = re.escape(tower), re.escape(parent)
    projection = rf"{inside}proj|{outside}visual_projection\.weight"
    rules = [
        (projection, "the projection into the space of texts"),
        (r".*position_ids", "a mere count"),
        (
            rf"(?!{inside}){outside}({_OTHER_PARTS})",
            "of the text tower, or a mere count",
        ),
    ]
    kept, left = drop(state, rules)
    unknown = [key for key in kept if not key.startswith(tower)]
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys are of no part of a CLIP: {listed(unknown, 6)}"
        )
    return dict(state), left


LAYOUT = Layout(
    name="clip",
    title="the layout of a CLIP image tower",
    marks=(
        r"(.*\.)?(visual\.|vision_model\.embeddings\.)class_embedding$",
        r"class_embedding$",
    ),
    split=_split,
    one_to_one=False,  # of Hugging Face's, three matrices become one
    to_native=_encoder,
)
