"""The official layouts of MAE-Lite: pre-training, distillation and fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from . import Layout, Options, State, deepmim, drop, hiera, simmim
from .key_rules import (
    CLASSIFIER_RULES,
    ENCODER_RULES,
    RELATIVE_POSITION_RULES,
    KeyRules,
    Rules,
    block_rules,
    has_key,
    heads_by_width,
    numbers,
)
from .simmim import extra_block_of
from .timm import VIT_RULES

T = TypeVar("T")

# What a training wrapper holds: the student, the teacher, and the adapters of what is
# distilled. Files of multi-GPU runs have a further `module.` in front.
_STUDENT, _TEACHER = "model", "tch_model"
_ADAPTERS = {"attn_adapter": "attention", "hidden_adapter": "hidden"}

# Fine-tuning with a supervised teacher: the norms belong to the head.
_TOKEN_DISTILLATION_RULES = [
    *ENCODER_RULES,
    ("fc_norm.{p}", "head.norm.{p}"),
    ("head.{p}", "head.fc.{p}"),
    ("dist_norm.{p}", "head.norm_dist.{p}"),
    ("head_dist.{p}", "head.fc_dist.{p}"),
]


def parts_of(state: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Splits the state dict of a training wrapper into its parts, without prefixes.

    Args:
        state: With ``module.model.``, ``model.`` and the like before every key, or,
            as a released encoder or teacher, without any.

    Returns:
        The tensors of ``model``, and of ``tch_model``, ``attn_adapter`` and
        ``hidden_adapter`` if there are any.

    Raises:
        KeyError: If some keys belong to no part.
    """
    names = {key.removeprefix("module."): value for key, value in state.items()}
    known = (_STUDENT, _TEACHER, *_ADAPTERS)
    if not has_key(names, rf"{_STUDENT}\."):
        return {_STUDENT: names}
    parts: dict[str, dict[str, T]] = {}
    for name, value in names.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    unknown = [name for name in names if name.partition(".")[0] not in known]
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys belong to no part of a MAE-Lite training wrapper "
            f"({', '.join(known)}): {', '.join(sorted(unknown)[:10])}"
        )
    return parts


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of one Vision Transformer's official keys, which have no prefix.

    Raises:
        KeyError: If they are of none of the known layouts.
    """
    keys = set(keys)
    if "head_dist.weight" in keys:
        return KeyRules(_TOKEN_DISTILLATION_RULES)
    if any("q_bias" in key or "relative_position" in key for key in keys):
        return KeyRules([*CLASSIFIER_RULES, *RELATIVE_POSITION_RULES])
    rules = deepmim.rules_for(keys)
    extra = extra_block_of(keys)
    if extra is None:
        return rules
    return KeyRules([*_extra_block_rules(extra), *rules.rules])


def convert_official(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts an official MAE, DeepMIM or MAE-Lite state dict to our keys.

    Args:
        state: Of pre-training with or without distillation, or of a classifier, on ViT,
            Hiera or Swin. The teacher in it is left out; :func:`convert_teacher` takes
            it.

    Raises:
        KeyError: If a key is not accounted for.
    """
    parts = parts_of(state)
    converted = _convert_network(parts[_STUDENT])
    for part, name in _ADAPTERS.items():
        adapters = parts.get(part, {})
        rules = KeyRules(
            (f"adapter{number}.weight", f"distillation.{name}.adapters.{i}.weight")
            for i, number in enumerate(numbers(adapters, r"adapter(\d+)\.weight$"))
        )
        converted |= rules.convert(adapters)
    return converted


def convert_teacher(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the teacher in a distillation checkpoint to our keys.

    Raises:
        KeyError: If there is none, or a key is not accounted for.
    """
    parts = parts_of(state)
    if _TEACHER not in parts:
        raise KeyError(f"no teacher in this checkpoint: no key starts with {_TEACHER}.")
    return _convert_network(parts[_TEACHER])


def num_heads_of(state: Mapping[str, Tensor]) -> int | None:
    """The attention heads of an official Vision Transformer or Hiera's first stage.

    Adapters and relative-position tables show them; else its width does, of a Vision
    Transformer if the file is one of pre-training (or of a training wrapper). None if
    nothing shows them: timm's DeiT-Tiny, with 3 heads, has the keys and shapes of
    MAE-Lite's bare ones.
    """
    parts = parts_of(state)
    student, adapters = parts[_STUDENT], parts.get("attn_adapter", {})
    # A Swin Transformer's heads show in the shapes of its tables, stage by stage.
    if simmim.is_swin(student):
        return None
    if hiera.is_hiera(student):
        for number in numbers(adapters, r"adapter(\d+)\.weight$"):
            # They double with each stage, and projections begin all but the first.
            starts = numbers(student, r"blocks\.(\d+)\.proj\.weight$")
            stage = sum(start <= number for start in starts)
            return adapters[f"adapter{number}.weight"].shape[1] >> stage
        return hiera.HEADS.get(student["patch_embed.proj.weight"].shape[0])
    for weight in adapters.values():
        return weight.shape[1]
    for key, table in student.items():
        if key.endswith("relative_position_bias_table"):
            return table.shape[1]
    wrapped = has_key(state, r"module\.", rf"{_STUDENT}\.")
    pretraining = wrapped or "decoder_embed.weight" in student
    return heads_by_width(student) if pretraining else None


def _convert_network(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the keys of one network, which have no prefix."""
    if hiera.is_hiera(state):
        return hiera.convert_official(state)
    if simmim.is_swin(state):
        return simmim.convert_official(state)
    return rules_for(state).convert(state)


def _extra_block_rules(index: int) -> Rules:
    """Rules of D2-MAE's block of attention logits alone."""
    parts = [("norm1.{p}", "ln1.{p}"), ("attn.qkv.{p}", "attn.qkv.{p}")]
    return block_rules(f"blocks.{index}.", "extra_block.", parts)


def _wrapped(state: State, teacher_blocks: list[int], img_size: int) -> State:
    """Our state dict of a student, with what distillation trains, in the wrapper."""
    student: State = {}
    extra: State = {}
    adapters: State = {}
    parts = {ours: name for name, ours in _ADAPTERS.items()}
    for key, value in state.items():
        match = re.fullmatch(r"distillation\.(\w+)\.adapters\.(\d+)\.weight", key)
        if match is None:
            of_extra = key.startswith("extra_block.")
            (extra if of_extra else student)[key] = value
            continue
        if int(match[2]) >= len(teacher_blocks):
            raise KeyError(
                f"{key} is numbered by the teacher's blocks in the official layout, "
                "which only a file converted from it records"
            )
        number = teacher_blocks[int(match[2])]
        adapters[f"{parts[match[1]]}.adapter{number}.weight"] = value
    if has_key(student, r"backbone\.stages\."):
        network = simmim.convert_to_official(student | extra, img_size)
    else:
        network = _network_to_official(student)
        place = 1 + max(numbers(network, r"blocks\.(\d+)\."))
        network |= KeyRules(_extra_block_rules(place)).convert(extra, to="official")
    return {f"{_STUDENT}.{key}": value for key, value in network.items()} | adapters


def _network_to_official(student: State) -> State:
    """One Vision Transformer or Hiera under official keys, without a prefix."""
    if has_key(student, r"backbone\.layers\.\d+\.proj\."):
        return hiera.convert_to_official(student)
    if has_key(student, r"neck\.decoders\."):
        rules = deepmim.pretrain_rules(None)
    elif has_key(student, r"head\.norm_dist\."):
        rules = KeyRules(_TOKEN_DISTILLATION_RULES)
    else:
        rules = KeyRules([*VIT_RULES, *RELATIVE_POSITION_RULES])
    return rules.convert(student, to="official")


def _split(state: State, options: Options) -> tuple[State, dict[str, str]]:
    """Takes the student, or the teacher under its own keys."""
    if options.part == "student":
        of_teacher = (rf"{_TEACHER}\..*", "the frozen teacher; --part teacher takes it")
        return drop(state, [of_teacher])
    others = (rf"(?!{_TEACHER}\.).*", "the student; --part student takes it")
    kept, dropped = drop(state, [others])
    if not kept:
        raise KeyError(
            f"it holds no teacher: no key starts with {_TEACHER}.; leave out "
            "--part teacher"
        )
    return {key[len(_TEACHER) + 1 :]: x for key, x in kept.items()}, dropped


def _record(state: State, options: Options) -> dict[str, Any]:
    """The numbers of the teacher's blocks that adapters belong to."""
    if options.part == "teacher":
        return {}
    return {"adapters": numbers(state, r".*_adapter\.adapter(\d+)\.")}


def _to_official(native: State, recorded: Mapping[str, Any], img_size: int) -> State:
    if recorded.get("layout") == "mae-lite" or has_key(native, _DISTILLED):
        return _wrapped(native, recorded.get("adapters", []), img_size)
    return KeyRules(_TOKEN_DISTILLATION_RULES).convert(native, to="official")


_DISTILLED = r"(extra_block|distillation)\."

# The training wrapper: a student, its teacher and the adapters.
LAYOUT = Layout(
    name="mae-lite",
    title="the layout of MAE-Lite's training wrapper",
    marks=(
        r"(module\.)?model\.(cls_token$|pos_embed$|patch_embed\.|blocks\.)",
        r"(module\.)?model\.(encoder|layers)\.",
    ),
    split=_split,
    to_native=lambda state, options: convert_official(state),
    num_heads=num_heads_of,
    record=_record,
    writes=lambda native, recorded: (
        recorded.get("layout") == "mae-lite"
        or has_key(native, _DISTILLED, r"head\.norm_dist\.")
    ),
    to_official=_to_official,
)
