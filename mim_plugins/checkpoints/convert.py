"""From a checkpoint in any layout to ours, with an account of every tensor."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from . import beit, clip, deepmim, hiera, localmim, localmim_swin, mae_lite, mirl
from . import simmim as simmim_layout
from . import timm as timm_layout
from .clip_parts import beside_tower
from .detect import (
    LAYOUTS,
    OURS,
    detect,
    norm_follows_pooling_or_not,
    strip_wrappers,
)
from .own_keys import take_own
from .report import Report, listed
from .soundness import check_dimensions, check_whole
from .stand_ins import brief
from .swin import SHIFT_MASK

State = dict[str, Tensor]

# What is left out on purpose, by layout; an asterisk stands for all.
_DROPPED: dict[str, list[tuple[str, str]]] = {
    "mae-lite": [(r"tch_model\..*", "the frozen teacher; --part teacher takes it")],
    "beit": [(beit.PREDICTION.pattern, "predicted visual tokens in pre-training")],
    OURS: [(r"data_preprocessor\..*", "follows from the config")],
    "*": [(rf".*{SHIFT_MASK.pattern}", "masks of shifted windows, computed anew")],
}


@dataclass
class Conversion:
    """Tensors under our keys, and what is known about them.

    Args:
        state: Tensors by key; ``backbone.`` those of mmpretrain's encoders.
        layout: Name of the layout they came in.
        report: What became of every tensor.
        notes: What must be known to go back to the official layout, or to build the
            model, and no tensor says; plain values.
    """

    state: OrderedDict[str, Tensor]
    layout: str
    report: Report
    notes: dict[str, Any] = field(default_factory=dict)


def convert(
    state: Mapping[str, Tensor],
    layout: str = "auto",
    *,
    source: str = "checkpoint",
    merge_order: str = "trained",
    part: str = "student",
) -> Conversion:
    """Converts a state dict to our keys.

    Args:
        state: Tensors by key: pre-training with or without decoder, an encoder alone,
            or a classifier, wrapped for parallel training or not.
        layout: A name in :data:`~mim_plugins.checkpoints.detect.LAYOUTS`, or
            ``'auto'`` to tell it by the keys.
        source: Where it is from, for messages.
        merge_order: What pre-training weights of a LocalMIM Swin do, see
            :func:`.localmim_swin.convert_official`.
        part: ``'student'``, or ``'teacher'`` for the one in a distillation checkpoint.

    Raises:
        ValueError: If the layout is unknown or ambiguous, a key is not accounted for,
            or a tensor is missing or of no possible shape.
    """
    wrapped = len(state)
    state, heads = _split_segmentor(strip_wrappers(state))
    layout = _name_layout(state, layout, source)
    if layout != OURS and Path(source).suffix in (".pdparams", ".pd"):
        _check_paddle(state, source)
    try:
        kept, dropped = _without_dropped(state, layout, part)
        if part == "teacher":
            kept = _teacher_of(kept, source)
        converted = _converter(layout, kept, merge_order, source)(kept)
        notes = _notes(state, kept, layout, part)
    except KeyError as error:
        raise ValueError(
            f"{source} was taken for {LAYOUTS[layout]}, but does not fit it: "
            f"{error.args[0]}. If its layout is another, name it (--from); if it is a "
            "model of another architecture, it has no place here"
        ) from error
    except (RuntimeError, IndexError, TypeError) as error:  # torch's, of shapes
        check_dimensions(kept, source)
        raise ValueError(
            f"{source} was taken for {LAYOUTS[layout]}, but a tensor in it has a shape "
            f"that fits none there: {brief(error)}"
        ) from error
    if layout != "clip":  # has checks of its own
        check_dimensions(kept, source)
    check_whole(converted, source)
    result = OrderedDict({**converted, **heads})
    # Of CLIPs in Hugging Face's layout three matrices become one.
    if layout != "clip" and len(result) + len(dropped) != wrapped:
        raise ValueError(
            f"{source}: of {wrapped} tensors {len(result)} were converted and "
            f"{len(dropped)} dropped: two of them have one name in {LAYOUTS[layout]}"
        )
    metadata = getattr(converted, "_metadata", OrderedDict())
    result._metadata = metadata  # type: ignore[attr-defined]
    report = Report(source, LAYOUTS[layout], wrapped, list(result), dropped=dropped)
    if layout == "mirl" and not notes["paddle"]:
        report.notes.append(
            "its oblong matrices are (out, in), as in PyTorch; whether the square ones "
            "were transposed with them cannot be checked: prefer the .pdparams"
        )
    if layout != OURS:
        report.notes += _advice(result, notes)
    return Conversion(result, layout, report, notes)


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


def _name_layout(state: Mapping[str, Tensor], layout: str, source: str) -> str:
    """Checks the name of a layout, or finds it.

    Raises:
        ValueError: If there is no such layout, or the keys are of none, or of two.
    """
    if layout == "auto":
        found = detect(state)
        if found is None:
            raise ValueError(
                f"{source} is in no known layout ({', '.join(LAYOUTS)}); it has keys "
                f"such as {listed(state, 6)}. Give the checkpoint of a Vision "
                "Transformer, Swin Transformer or Hiera"
            )
        layout = found
        if layout == "timm" and norm_follows_pooling_or_not(state):
            raise ValueError(
                f"{source} is a Swin Transformer whose final norm comes before the "
                "pooling (Swin's own code, timm, MAE-Lite) or behind it (LocalMIM's "
                "fine-tuning); no tensor tells. Say which: --from timm or --from "
                "localmim"
            )
    if layout not in LAYOUTS:
        raise ValueError(
            f"unknown layout {layout!r}: choose auto, {', '.join(LAYOUTS)}"
        )
    return layout


def _without_dropped(
    state: Mapping[str, Tensor], layout: str, part: str
) -> tuple[State, dict[str, str]]:
    """Splits off what is left out on purpose, with the reasons."""
    rules = [*_DROPPED.get(layout, []), *_DROPPED["*"]]
    if part == "teacher":
        rules = [
            (r"(?!tch_model\.).*", "the student; --part student takes it"),
            *_DROPPED["*"],
        ]
    if layout == "clip":
        return dict(state), beside_tower(state)
    kept, dropped = {}, {}
    for key, value in state.items():
        reason = next((why for mark, why in rules if re.fullmatch(mark, key)), None)
        if reason is None:
            kept[key] = value
        else:
            dropped[key] = reason
    return kept, dropped


def _converter(
    layout: str, state: Mapping[str, Any], merge_order: str, source: str
) -> Callable[[State], Mapping[str, Tensor]]:
    """The converter of a layout."""
    if layout == "localmim":
        if any(key.startswith(("encoder.layers.", "layers.")) for key in state):
            return lambda x: localmim_swin.convert_official(x, merge_order)
        return localmim.convert_official
    converters: dict[str, Callable[[Any], Mapping[str, Tensor]]] = {
        OURS: take_own,
        "deepmim": deepmim.convert_official,
        "mae": deepmim.convert_official,
        "mirl": _mirl,
        "mae-lite": mae_lite.convert_official,
        "simmim": simmim_layout.convert_official,
        "hiera": hiera.convert_official,
        "timm": timm_layout.convert_official,
        "beit": beit.convert_official,
        "clip": lambda x: clip.encoder_of(x, source),
    }
    return converters[layout]


def _mirl(state: State) -> Mapping[str, Tensor]:
    """MIRL's, once all oblong matrices say alike whether they are Paddle's.

    Raises:
        KeyError: If they do not.
    """
    paddle, torch = _oblong(state)
    if paddle and torch:
        raise KeyError(
            f"{len(paddle)} matrices are (in, out) as in PaddlePaddle, such as "
            f"{paddle[0]}, and {len(torch)} (out, in) as in PyTorch, such as "
            f"{torch[0]}: it was converted in part, its square ones cannot be "
            "told; give the original .pdparams"
        )
    return mirl.convert_official(state)


def _oblong(state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Oblong matrices that are (in, out), as Paddle's, and that are (out, in)."""
    ways: dict[bool, list[str]] = {True: [], False: []}
    for key, weight in state.items():
        bias = state.get(key.replace(".weight", ".bias").replace("weight_v", "bias"))
        if weight.ndim == 2 and bias is not None and weight.shape[0] != weight.shape[1]:
            ways[weight.shape[1] == len(bias)].append(key)
    return ways[True], ways[False]


def _check_paddle(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses a file of Paddle's whose matrices somebody transposed, if all of them.

    Whoever goes by their shapes leaves the square ones as they were.

    Raises:
        ValueError: If it is one.
    """
    paddle, torch = _oblong(state)
    square = [k for k, x in state.items() if x.ndim == 2 and x.shape[0] == x.shape[1]]
    if torch and not paddle and square:
        raise ValueError(
            f"{source}: its {len(torch)} oblong matrices, such as {torch[0]}, are "
            "(out, in), as in no file of PaddlePaddle; its "
            f"{len(square)} square ones, such as {square[0]}, do not show whether they "
            "were transposed with them. Give the original file; or, if all were "
            "transposed, save it with torch as .pth"
        )


def _teacher_of(state: Mapping[str, Tensor], source: str) -> State:
    """The teacher in a distillation checkpoint, under its own keys.

    Raises:
        ValueError: If there is none.
    """
    prefix = f"{mae_lite.TEACHER}."
    teacher = {k[len(prefix) :]: x for k, x in state.items() if k.startswith(prefix)}
    if not teacher:
        raise ValueError(
            f"{source} has no teacher in it: no key starts with {prefix}; leave out "
            "--part teacher"
        )
    return teacher


def _notes(
    state: Mapping[str, Tensor], kept: Mapping[str, Tensor], layout: str, part: str
) -> dict[str, Any]:
    """What no tensor under our keys tells any more."""
    notes: dict[str, Any] = {"layout": layout}
    if layout == "mae-lite" and part == "student":
        adapters = (re.search(r"_adapter\.adapter(\d+)\.", key) for key in kept)
        notes["adapters"] = sorted({int(match[1]) for match in adapters if match})
    if layout == "mirl":
        notes["paddle"] = mirl.is_paddle_layout(kept)
    heads = num_heads(state, layout)
    if heads is not None:
        notes["num_heads"] = heads
    return notes


def num_heads(state: Mapping[str, Tensor], layout: str) -> int | None:
    """The attention heads that an official network was trained with.

    Of a Hiera those of its first stage. None where neither a tensor nor the layout
    tells: a bare encoder or a classifier may be of DeiT, with 3 heads at a width of
    192, or of MAE-Lite, with 12.
    """
    if layout in ("mae", "mae-lite", "beit", "hiera"):
        return mae_lite.num_heads_of(state)
    told = layout in ("deepmim", "mirl") or (
        layout == "localmim" and any(key.startswith("decoder.") for key in state)
    )
    if told and "cls_token" in state:
        return mae_lite.OFFICIAL_HEADS.get(state["cls_token"].shape[-1])
    return None


def _advice_on_merging(
    state: Mapping[str, Tensor], notes: Mapping[str, Any]
) -> list[str]:
    """What LocalMIM's official Swin Transformers have of their own."""
    if notes["layout"] != "localmim" or "neck.norm.weight" in state:
        return []
    return [
        "pre-trained with LocalMIM's official token coordinates "
        "(MIMSwinTransformer(merge_coordinates='official')); the official fine-tuning "
        "reads the weights of patch merging in another order, which merge_order="
        "'official_transfer' reproduces"
    ]


def _advice(state: Mapping[str, Tensor], notes: Mapping[str, Any]) -> list[str]:
    """What a user should know to build the model."""
    heads, cls = notes.get("num_heads"), state.get("backbone.cls_token")
    if cls is None:
        return _advice_on_merging(state, notes)
    if heads is None:
        return [
            "the number of attention heads is in no tensor: a model with another one "
            "loads without complaint and computes something else (DeiT-Tiny has 3, "
            "MAE-Lite's ViT-Tiny 12; DeiT-Small 6, MAE-Lite's and MIRL's 12)"
        ]
    return [f"{heads} attention heads of {cls.shape[-1] // heads} channels"]
