"""Fits a converted checkpoint to the model that loads it, or says why it does not."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Size, Tensor, nn

from .convert import convert
from .detect import OURS, detect
from .report import Report, listed
from .resize import resize_offsets, resize_position_embedding, resize_window_table

# What an encoder may start afresh: norms behind the last block, which pre-training,
# pooling and dense tasks have in different places; relative positions and layer scale,
# which fine-tuning adds; and buffers.
FRESH = re.compile(
    r"(ln1|ln2|norm\d*|fc_norm)\.(weight|bias)$"
    r"|.*relative_position_(index|bias_table)$|.*gamma_?[12](\.weight)?$"
    r"|.*rel_pos_[hw]$|mask_token$"
)

# What an encoder may have no use for: those norms, and what is computed.
UNUSED = re.compile(r"(ln1|ln2|norm\d*)\.(weight|bias)$|.*_index$|(cls|mask)_token$")

# Attention biases, of which one model has one form and another the other.
_BIAS = re.compile(r"(layers\.\d+\.attn\.)(qkv\.bias|[qv]_bias)$")


@dataclass(frozen=True)
class Target:
    """The model a checkpoint is loaded into.

    Args:
        encoder: Its encoder.
        prefix: What comes before the encoder's keys, ``'backbone.'`` or nothing.
        shapes: Shapes of all its tensors by key.
    """

    encoder: nn.Module
    prefix: str
    shapes: dict[str, Size]

    @classmethod
    def of(cls, module: nn.Module) -> Target:
        """Looks at a model, wrapped for parallel training or not."""
        if is_model_wrapper(module):
            module = module.module  # type: ignore[assignment]
        encoder = getattr(module, "backbone", None)
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        if isinstance(encoder, nn.Module):
            return cls(encoder, "backbone.", shapes)
        return cls(module, "", shapes)

    @property
    def has_our_keys(self) -> bool:
        """Whether the encoder's keys are those of mmpretrain's transformers."""
        return detect(self.of_encoder) == OURS

    @property
    def of_encoder(self) -> dict[str, Size]:
        """Shapes of the encoder's tensors, by key without prefix."""
        return {
            key[len(self.prefix) :]: shape
            for key, shape in self.shapes.items()
            if key.startswith(self.prefix)
        }

    @property
    def num_heads(self) -> int | None:
        """Attention heads of a Vision Transformer, or of a Hiera's first stage."""
        layers: Any = getattr(self.encoder, "layers", None)
        if not layers:
            return None
        return getattr(getattr(layers[0], "attn", None), "num_heads", None)


def check_heads(target: Target, heads: int | None, source: str) -> None:
    """Refuses weights that were trained with another number of attention heads.

    Raises:
        ValueError: If they were.
    """
    own = target.num_heads if heads is not None else None
    if own is not None and own != heads:
        raise ValueError(
            f"{source} was trained with {heads} attention heads, the model has {own}: "
            "every tensor would fit and every output be wrong. Give the backbone an "
            f"arch with num_heads={heads} (MAE-Lite's ViT-Tiny and ViT-Small have 12; "
            "mmpretrain's 'deit-tiny' has 3, 'deit-small' 6; of Hiera it is the first "
            "stage's number)"
        )


def convert_for(
    target: Target,
    tensors: Mapping[str, Tensor],
    layout: str,
    source: str,
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
) -> tuple[OrderedDict[str, Tensor], Report]:
    """Converts an official state dict and fits it to a model.

    Args:
        target: The model.
        tensors: The official state dict.
        layout: Its layout.
        source: Where it is from, for messages.
        merge_order: As of :func:`.convert.convert`.
        antialias: As of :func:`.resize.resize_position_embedding`.
        exact: Leave every tensor as it is, and all that the model has no place for
            among them; without a model around the encoder, all of the encoder.

    Returns:
        The state dict under the model's keys, and the account of it.

    Raises:
        ValueError: If it is another architecture's, or trained with other heads.
    """
    conversion = convert(tensors, layout, source=source, merge_order=merge_order)
    report = conversion.report
    check_heads(target, conversion.notes.get("num_heads"), source)
    prefix = "backbone."
    encoder: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for key, value in conversion.state.items():
        inside = key.startswith(prefix)
        (encoder if inside else rest)[key[len(prefix) :] if inside else key] = value
    if not exact:
        encoder = _fit_encoder(target, encoder, report, source, antialias)
    state = OrderedDict((target.prefix + key, x) for key, x in encoder.items())
    if target.prefix:
        state |= rest if exact else _fit_rest(target, rest, report)
    else:
        report.dropped |= {key: "no part of an encoder" for key in rest}
    report.converted = list(state)
    report.missing |= {
        key: "starts afresh"
        for key in target.shapes
        if not key.startswith("data_preprocessor.")
        and not key.endswith(("_index", "num_batches_tracked"))
        and key not in state
        and not other_bias(key, state)
    }
    # Entries are by module: the encoder's is to be found where the encoder is.
    metadata = getattr(conversion.state, "_metadata", {})
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (target.prefix.rstrip(".") if name == "backbone" else name, entry)
        for name, entry in metadata.items()
    )
    return state, report


def _fit_encoder(
    target: Target,
    state: dict[str, Tensor],
    report: Report,
    source: str,
    antialias: bool,
) -> dict[str, Tensor]:
    """The encoder's tensors in the sizes the model has.

    Raises:
        ValueError: If the model lacks some, or has more, or other widths.
    """
    own, model = target.of_encoder, type(target.encoder).__name__
    with_cls = "cls_token" in state
    convertible = hasattr(target.encoder, "_convert_biases")
    missing = [k for k in own if k not in state and not FRESH.match(k)]
    unexpected = [k for k in state if k not in own]
    if convertible:
        # Its own hook turns one form of attention biases into the other.
        missing = [k for k in missing if not other_bias(k, state)]
        unexpected = [
            k for k in unexpected if not _BIAS.match(k) and "rel_pos_bias." not in k
        ]
    for key in [k for k in unexpected if UNUSED.match(k)]:
        report.dropped[key] = f"{model} has no such part"
        del state[key]
        unexpected.remove(key)
    if missing or unexpected:
        problems = [
            f"the model's {len(missing)} {listed(missing, 4)} are not in it"
            if missing
            else "",
            f"the model has no place for its {len(unexpected)} {listed(unexpected, 4)}"
            if unexpected
            else "",
        ]
        raise ValueError(
            f"{source} is a checkpoint of another architecture than the {model} that "
            f"is to load it: {'; '.join(filter(None, problems))}. Set arch, patch_size "
            "and the class of the backbone to what was trained"
        )
    _resize(target, state, report, with_cls, antialias)
    wrong = {
        k: f"{tuple(state[k].shape)} instead of {tuple(own[k])}"
        for k in state
        if k in own and state[k].shape != own[k] and not _resized_by_model(k, target)
    }
    if wrong:
        some = ", ".join(f"{key} {what}" for key, what in list(wrong.items())[:4])
        raise ValueError(
            f"{source} has other sizes than the {model} that is to load it: {some}"
            + (" ..." if len(wrong) > 4 else "")
            + ". Set arch, patch_size and in_channels of the backbone to what was "
            "trained"
        )
    return state


def other_bias(key: str, state: Mapping[str, Any]) -> bool:
    """Whether a key is of a block's attention biases, which are there in some form."""
    match = _BIAS.search(key)
    return match is not None and any(
        key[: match.end(1)] + name in state for name in ("qkv.bias", "q_bias")
    )


def _fit_rest(
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
    encoder: Any = target.encoder
    own = target.of_encoder
    for key, value in list(state.items()):
        shape = own.get(key)
        regrid = key == "pos_embed" and of_another_grid(encoder, value)
        if shape is None or shape == value.shape and not regrid:
            continue
        if key == "pos_embed" and shape[-1] == value.shape[-1]:
            state[key] = _resize_positions(encoder, value, shape, with_cls, antialias)
        elif key.endswith("w_msa.relative_position_bias_table"):
            side = round(len(value) ** 0.5)
            if side**2 != len(value) or shape[1:] != value.shape[1:]:
                continue
            window = (round(shape[0] ** 0.5) + 1) // 2
            state[key] = resize_window_table(value, window, antialias)
        elif key.endswith("bias_table") and shape[1:] == value.shape[1:]:
            state[key] = resize_offsets(value, encoder.patch_resolution, antialias)
        if state[key].shape == shape:
            before, after = value.shape, tuple(shape)
            what = f"{tuple(before)} to {after}"
            if regrid and before == after:
                what += ", of a square grid to one of {}x{}".format(*own_grid(encoder))
            report.resized[target.prefix + key] = what
    for key in report.resized:
        name = key[len(target.prefix) :]
        state.pop(name.replace("bias_table", "index") if "table" in name else "", None)


def own_grid(encoder: Any) -> tuple[int, int]:
    """Rows and columns of an encoder's patches; zeros if it has no plain grid."""
    rows, cols = getattr(encoder, "patch_resolution", None) or (0, 0)
    return rows, cols


def of_another_grid(encoder: Any, table: Tensor) -> bool:
    """Whether positions of a square grid are as many as an oblong encoder has.

    Args:
        encoder: The encoder.
        table: Position embedding, (1, extra + positions, C); official files are of
            square images.
    """
    rows, cols = own_grid(encoder)
    extra = int(getattr(encoder, "num_extra_tokens", 1))
    positions = table.shape[1] - extra
    square = math.isqrt(max(positions, 0)) ** 2 == positions
    return rows != cols and positions == rows * cols and square


def _resize_positions(
    encoder: Any, table: Tensor, shape: Size, with_cls: bool, antialias: bool
) -> Tensor:
    """An absolute position embedding of the model's size, if the model has a grid."""
    grid = getattr(encoder, "patch_resolution", None)
    if grid is None or len(shape) != table.ndim:
        return table
    extra = int(getattr(encoder, "num_extra_tokens", 1))
    rows, cols = grid
    # A model without class token takes no position of it from the checkpoint.
    spare = with_cls and extra == 0
    if shape[1] != rows * cols + extra:
        return table
    return resize_position_embedding(
        table[:, int(spare) :], (rows, cols), extra, antialias=antialias
    )


def _resized_by_model(key: str, target: Target) -> bool:
    """Whether an encoder without a plain grid of tokens has its own way of resizing."""
    grid = getattr(target.encoder, "patch_resolution", None)
    return key == "pos_embed" and (grid is None or len(target.of_encoder[key]) != 3)
