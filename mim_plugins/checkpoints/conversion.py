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
from .files.reading import strip_prefixes
from .layouts import Layout, Options, candidates, layouts, native
from .layouts.key_rules import listed
from .layouts.sanity_checks import (
    check_blocks,
    check_dimensions,
    check_paddle_matrices,
)
from .metadata import NUM_HEADS
from .report import Report

State = dict[str, Tensor]


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
            :func:`.localmim_swin.convert_official`.
        part: ``'student'``, or ``'teacher'`` for the one in a distillation checkpoint.

    Raises:
        ValueError: If the layout is unknown or ambiguous, a key is not accounted for,
            or a tensor is missing or of no possible shape.
    """
    total = len(state)
    state, heads = _split_segmentor(strip_prefixes(state))
    layout = _find_layout(state, layout, source)
    options = Options(source, part, merge_order)
    if layout is not native() and Path(source).suffix in (".pdparams", ".pd"):
        check_paddle_matrices(state, source)
    kept = state
    try:
        kept, dropped = layout.without_dropped(state, options)
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
        check_dimensions(kept, source)
        raise ValueError(
            f"{source} was taken for {layout.title}, but a tensor in it has a shape "
            f"that fits none there: {brief(error)}"
        ) from error
    if num_heads is not None:
        metadata[NUM_HEADS] = num_heads
    if layout.one_to_one:
        check_dimensions(kept, source)
    check_blocks(converted, source)
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
    report.notes += layout.advice(result, num_heads)
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
    kept, report.dropped = native().without_dropped(dict(state), Options(source))
    known = layouts().get(metadata.get("layout", ""))
    found = [x for x in (known, *layouts().values()) if x and x.writes(kept, metadata)]
    try:
        if not found:
            raise KeyError(f"{listed(kept, 4)} are of no model with an official layout")
        official = found[0].to_official(kept, metadata, img_size)
    except KeyError as error:
        raise ValueError(
            f"{source}: the official layout has no place for every tensor: "
            f"{error.args[0]}. Export the encoder alone (--encoder-only), or to timm"
        ) from error
    report.converted = list(official)
    return official, report


def encoder_only(state: Mapping[str, Tensor]) -> tuple[State, dict[str, str]]:
    """The encoder's tensors, and why others were left out."""
    kept = {key: x for key, x in state.items() if key.startswith("backbone.")}
    left = {k: "the encoder alone is asked for" for k in state if k not in kept}
    return kept, left


def _split_segmentor(state: State) -> tuple[State, State]:
    """Splits an official segmentor into its backbone, without prefix, and the rest.

    mmseg's heads have had the same keys in all its versions.
    """
    official = re.compile(r"backbone\.(layers\.\d+\.)?blocks\.")
    if not any(official.match(key) for key in state):
        return state, {}
    heads = {
        k: x for k, x in state.items() if re.match(r"(decode|auxiliary)_head\.", k)
    }
    rest = {k.removeprefix("backbone."): x for k, x in state.items() if k not in heads}
    return rest, heads


def _find_layout(
    state: Mapping[str, Tensor], layout: str | Layout, source: str
) -> Layout:
    """The layout of a name, or the one that is detected.

    Raises:
        ValueError: If there is no such layout, or the keys are of none, or of several.
    """
    if isinstance(layout, Layout):
        return layout
    if layout != "auto":
        if layout not in layouts():
            raise ValueError(
                f"unknown layout {layout!r}: choose auto, {', '.join(layouts())}"
            )
        return layouts()[layout]
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
