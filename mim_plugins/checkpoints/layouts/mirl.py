"""The official layout of MIRL, in Paddle's files and in PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from . import Layout, Options, State, has_paddle_matrices, oblong_matrices
from .deepmim import num_decoders
from .key_rules import (
    BLOCK_RULES,
    CLASSIFIER_RULES,
    ENCODER_RULES,
    KeyRules,
    block_rules,
    has_key,
    heads_by_width,
    numbers,
)

_MAGNITUDE = re.compile(r"decoder_pred\d+\.weight_g")

_ATTENTION, _MLP = BLOCK_RULES[1:3], BLOCK_RULES[4:]
_CROSS_BLOCK_RULES = [
    ("norm1.{p}", "ln1.{p}"),
    *_ATTENTION,
    ("norm2.{p}", "ln_query.{p}"),
    ("norm3.{p}", "ln_memory.{p}"),
    ("cross_attn.q.{p}", "cross_attn.q.{p}"),
    ("cross_attn.kv.{p}", "cross_attn.kv.{p}"),
    ("cross_attn.proj.{p}", "cross_attn.proj.{p}"),
    ("norm4.{p}", "ln2.{p}"),
    *_MLP,
]


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of an official state dict, inferred from its keys.

    Raises:
        KeyError: If the keys are of none of MIRL's layouts.
    """
    keys = set(keys)
    if "decoder_embed0_1.weight" in keys:
        return _pretrain_rules(1 + max(numbers(keys, r"decoder_embed(\d+)\.weight$")))
    if "patch_embed.proj.weight" in keys and "decoder_embed.weight" not in keys:
        return KeyRules(CLASSIFIER_RULES)
    raise KeyError(
        "not an official MIRL checkpoint: it has neither decoder_embed0_1 nor a plain "
        "encoder with patch_embed.proj"
    )


def is_paddle_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether linear weights are (in, out), by the first block's oblong qkv.

    Raises:
        KeyError: If there is no such block.
    """
    key = "blocks.0.attn.qkv.weight"
    if key not in state:
        raise KeyError(f"not an official MIRL checkpoint: it has no {key}")
    return has_paddle_matrices(state)


def transpose_linears(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns Paddle's layout into PyTorch's, or back.

    In MIRL's models every tensor of two dimensions is the weight of a linear layer,
    square ones included, whose shape would not show it.
    """
    return {k: v.t().contiguous() if v.ndim == 2 else v for k, v in state.items()}


def convert_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts an official MIRL state dict to our keys and PyTorch's layout.

    Args:
        state: Of pre-training, or of a fine-tuned classifier, or of the encoder alone,
            in Paddle's layout or (as the authors' converted file) in PyTorch's.

    Raises:
        KeyError: If a key is not accounted for.
    """
    rules = rules_for(state)
    state = transpose_linears(state) if is_paddle_layout(state) else dict(state)
    for key in filter(_MAGNITUDE.fullmatch, state):
        state[key] = state[key][None]
    return rules.convert(state)


def convert_to_official(
    state: Mapping[str, Tensor], paddle_layout: bool = True
) -> dict[str, Tensor]:
    """Converts our state dict of a MIRL model or its classifier to the official keys.

    Args:
        state: All keys of the model.
        paddle_layout: Whether linear weights become (in, out), as in Paddle's files.

    Raises:
        KeyError: If a key is not accounted for.
    """
    segments = num_decoders(state)
    rules = _pretrain_rules(segments) if segments else KeyRules(CLASSIFIER_RULES)
    official = rules.convert(state, to="official")
    for key in filter(_MAGNITUDE.fullmatch, official):
        official[key] = official[key][0]
    return transpose_linears(official) if paddle_layout else official


def _pretrain_rules(num_segments: int) -> KeyRules:
    """Rules of a pre-training checkpoint with so many segments, six in the paper's."""
    rules = [
        *ENCODER_RULES,
        ("norm_low.{p}", "neck.norms.0.{p}"),
        ("decoder_embed0_1.{p}", "neck.low_embed.{p}"),
    ]
    for g in range(num_segments):
        blocks, ours = f"decoder_blocks{g}.{{j}}.", f"neck.decoders.{g}."
        weight = ours + "decoder_pred.parametrizations.weight."
        rules += [
            (f"mask_token{g}", ours + "mask_token"),
            (f"decoder_pos_embed{g}", ours + "decoder_pos_embed"),
            (f"decoder_embed{g}.{{p}}", ours + "decoder_embed.{p}"),
            *block_rules(blocks, ours + "decoder_blocks.{j}.", _CROSS_BLOCK_RULES),
            (f"decoder_norm{g}.{{p}}", ours + "ln1.{p}"),
            (f"decoder_pred{g}.weight_g", weight + "original0"),
            (f"decoder_pred{g}.weight_v", weight + "original1"),
            (f"decoder_pred{g}.{{p}}", ours + "decoder_pred.{p}"),
        ]
        if g < num_segments - 1:
            # The last segment's is the encoder's own, `norm`.
            rules.append((f"norm{g}.{{p}}", f"neck.norms.{g + 1}.{{p}}"))
    return KeyRules(rules)


def _to_native(state: State, options: Options) -> State:
    """Renames every key, in PyTorch's layout, unless some matrices were transposed."""
    paddle, torch = oblong_matrices(state)
    if paddle and torch:
        raise KeyError(
            f"{len(paddle)} matrices are (in, out) as in PaddlePaddle, such as "
            f"{paddle[0]}, and {len(torch)} (out, in) as in PyTorch, such as "
            f"{torch[0]}: it was converted in part, which its square ones do not "
            "show; give the original .pdparams"
        )
    return convert_official(state)


LAYOUT = Layout(
    name="mirl",
    title="MIRL's official layout",
    marks=(r"decoder_embed0_1\.", r"blocks\.\d+\.attn\.qkv\."),
    condition=lambda state: (
        "decoder_embed0_1.weight" in state or has_paddle_matrices(state)
    ),
    to_native=_to_native,
    num_heads=heads_by_width,
    record=lambda state, options: {"paddle": is_paddle_layout(state)},
    writes=lambda native, recorded: (
        has_key(native, r"neck\.low_embed\.") or recorded.get("layout") == "mirl"
    ),
    to_official=lambda native, recorded, _: convert_to_official(
        native, recorded.get("paddle", True)
    ),
)
