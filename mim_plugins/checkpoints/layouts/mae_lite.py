"""The official layouts of MAE-Lite: pre-training, distillation and fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from . import deepmim, hiera, simmim
from .key_rules import KeyRules
from .layout import Layout, Options, State, drop, has_key
from .timm import VIT_RULES
from .vit import (
    CLASSIFIER_RULES,
    ENCODER_RULES,
    RELATIVE_POSITION_RULES,
    heads_by_width,
)

T = TypeVar("T")

# What a training wrapper holds: the student, the teacher, and the adapters of what is
# distilled. Files of multi-GPU runs have a further `module.` in front.
STUDENT, TEACHER = "model", "tch_model"
ADAPTERS = {"attn_adapter": "attention", "hidden_adapter": "hidden"}

# Fine-tuning with a supervised teacher: the norms belong to the head.
TOKEN_DISTILLATION_RULES = [
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
    known = (STUDENT, TEACHER, *ADAPTERS)
    if not any(name.startswith(f"{STUDENT}.") for name in names):
        return {STUDENT: names}
    parts: dict[str, dict[str, T]] = {}
    unknown = []
    for name, value in names.items():
        part, _, rest = name.partition(".")
        if part in known:
            parts.setdefault(part, {})[rest] = value
        else:
            unknown.append(name)
    if unknown:
        raise KeyError(
            f"{len(unknown)} keys belong to no part of a MAE-Lite training wrapper "
            f"({', '.join(known)}): {', '.join(sorted(unknown)[:10])}"
        )
    return parts


def rules_for(keys: Iterable[str]) -> KeyRules:
    """The rules of one Vision Transformer's keys, which have no prefix.

    Raises:
        KeyError: If they are of none of the known layouts.
    """
    keys = set(keys)
    if "head_dist.weight" in keys:
        return KeyRules(TOKEN_DISTILLATION_RULES)
    if any("q_bias" in key or "relative_position" in key for key in keys):
        return KeyRules([*CLASSIFIER_RULES, *RELATIVE_POSITION_RULES])
    rules = deepmim.rules_for(keys)
    extra = extra_block_of(keys)
    if extra is None:
        return rules
    own = [
        (f"blocks.{extra}.{official}.{{p}}", f"extra_block.{ours}.{{p}}")
        for official, ours in (("norm1", "ln1"), ("attn.qkv", "attn.qkv"))
    ]
    # The first rule that fits is taken.
    return KeyRules([*own, *rules.rules])


def extra_block_of(keys: Iterable[str]) -> int | None:
    """The index of D2-MAE's block of attention logits alone, which has no MLP."""
    keys = set(keys)
    found = (re.fullmatch(r"blocks\.(\d+)\.norm1\.weight", key) for key in keys)
    for index in (int(match[1]) for match in found if match):
        if f"blocks.{index}.mlp.fc1.weight" not in keys:
            return index
    return None


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
    converted = convert_network(parts[STUDENT])
    for part, name in ADAPTERS.items():
        adapters = parts.get(part, {})
        converted |= adapter_rules(adapters, name).convert(adapters)
    return converted


def convert_teacher(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the teacher in a distillation checkpoint to our keys.

    Raises:
        KeyError: If there is none, or a key is not accounted for.
    """
    parts = parts_of(state)
    if TEACHER not in parts:
        raise KeyError(f"no teacher in this checkpoint: no key starts with {TEACHER}.")
    return convert_network(parts[TEACHER])


def convert_network(state: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the keys of one network, which have no prefix."""
    if hiera.is_hiera(state):
        return hiera.convert_official(state)
    if simmim.is_swin(state):
        return simmim.convert_official(state)
    return rules_for(state).convert(state)


def adapter_rules(keys: Iterable[str], name: str) -> KeyRules:
    """Rules of the adapters of one distilled quantity, in the order of their numbers.

    Args:
        keys: ``adapter11.weight`` and the like.
        name: The name of the quantity's loss.
    """
    found = (re.fullmatch(r"adapter(\d+)\.weight", key) for key in keys)
    numbers = sorted(int(match[1]) for match in found if match)
    return KeyRules(
        [
            (f"adapter{number}.weight", f"distillation.{name}.adapters.{place}.weight")
            for place, number in enumerate(numbers)
        ]
    )


def num_heads_of(state: Mapping[str, Tensor]) -> int | None:
    """The attention heads of an official Vision Transformer or Hiera's first stage.

    Adapters and relative-position tables show them; else its width does, of a Vision
    Transformer if the file is one of pre-training (or of a training wrapper). None if
    nothing shows them: timm's DeiT-Tiny, with 3 heads, has the keys and shapes of
    MAE-Lite's bare ones.
    """
    parts = parts_of(state)
    student = parts[STUDENT]
    # A Swin Transformer's heads show in the shapes of its tables, stage by stage.
    if simmim.is_swin(student):
        return None
    if hiera.is_hiera(student):
        return _heads_of_hiera(student, parts.get("attn_adapter", {}))
    for weight in parts.get("attn_adapter", {}).values():
        return weight.shape[1]
    for key, table in student.items():
        if key.endswith("relative_position_bias_table"):
            return table.shape[1]
    wrapped = any(key.startswith(("module.", f"{STUDENT}.")) for key in state)
    if "cls_token" in student and (wrapped or "decoder_embed.weight" in student):
        return heads_by_width(student)
    return None


def _heads_of_hiera(
    student: Mapping[str, Tensor], adapters: Mapping[str, Tensor]
) -> int | None:
    """Heads of a Hiera's first stage; they double with each stage."""
    for key, weight in adapters.items():
        match = re.fullmatch(r"adapter(\d+)\.weight", key)
        if match:
            return weight.shape[1] >> hiera.stage_of(int(match[1]), student)
    return hiera.HEADS.get(student["patch_embed.proj.weight"].shape[0])


def _wrapped(state: State, numbers: list[int], img_size: int) -> State:
    """Our state dict in the layout of the training wrapper.

    Args:
        state: Of the student, with what distillation trains.
        numbers: The teacher's blocks that adapters belong to, in order.
        img_size: Side of the images in pixels.

    Raises:
        KeyError: If there is no place for a key, or an adapter's number is not known.
    """
    student, official = {}, {}
    for key, value in state.items():
        match = re.fullmatch(r"distillation\.(\w+)\.adapters\.(\d+)\.weight", key)
        if match is None:
            student[key] = value
            continue
        if int(match[2]) >= len(numbers):
            raise KeyError(
                f"{key} is numbered by the teacher's blocks in the official layout, "
                "which only a file converted from it records"
            )
        part = {ours: name for name, ours in ADAPTERS.items()}[match[1]]
        official[f"{part}.adapter{numbers[int(match[2])]}.weight"] = value
    extra = {k: student.pop(k) for k in list(student) if k.startswith("extra_block.")}
    if has_key(student, [r"backbone\.stages\."]):
        network = simmim.convert_to_official(student | extra, img_size)
    else:
        network = _network_to_official(student)
        blocks = (re.match(r"blocks\.(\d+)\.", key) for key in network)
        place = 1 + max(int(match[1]) for match in blocks if match)
        names = {"ln1": "norm1", "attn": "attn"}
        for key, value in extra.items():
            _, module, rest = key.split(".", 2)
            network[f"blocks.{place}.{names[module]}.{rest}"] = value
    prefixed = {f"{STUDENT}.{key}": value for key, value in network.items()}
    return {**prefixed, **official}


def _network_to_official(student: State) -> State:
    """One Vision Transformer or Hiera under official keys, without a prefix."""
    if has_key(student, [r"backbone\.layers\.\d+\.proj\."]):
        return hiera.convert_to_official(student)
    if has_key(student, [r"neck\.decoders\."]):
        rules = deepmim.pretrain_rules(None)
    elif has_key(student, [r"head\.norm_dist\."]):
        rules = KeyRules(TOKEN_DISTILLATION_RULES)
    else:
        rules = KeyRules([*VIT_RULES, *RELATIVE_POSITION_RULES])
    return rules.convert(student, to="official")


def _split(state: State, options: Options) -> tuple[State, dict[str, str]]:
    """Takes the student, or the teacher under its own keys.

    Raises:
        KeyError: If there is no teacher.
    """
    if options.part == "student":
        of_teacher = (rf"{TEACHER}\..*", "the frozen teacher; --part teacher takes it")
        return drop(state, [of_teacher])
    others = (rf"(?!{TEACHER}\.).*", "the student; --part student takes it")
    kept, dropped = drop(state, [others])
    if not kept:
        raise KeyError(
            f"it holds no teacher: no key starts with {TEACHER}.; leave out "
            "--part teacher"
        )
    return {key[len(TEACHER) + 1 :]: x for key, x in kept.items()}, dropped


def _record(state: State, options: Options) -> dict[str, Any]:
    """The numbers of the teacher's blocks that adapters belong to."""
    if options.part == "teacher":
        return {}
    adapters = (re.search(r"_adapter\.adapter(\d+)\.", key) for key in state)
    return {"adapters": sorted({int(match[1]) for match in adapters if match})}


def _to_official(native: State, recorded: Mapping[str, Any], img_size: int) -> State:
    if recorded.get("layout") == "mae-lite" or has_key(native, [_DISTILLED]):
        return _wrapped(native, recorded.get("adapters", []), img_size)
    return KeyRules(TOKEN_DISTILLATION_RULES).convert(native, to="official")


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
        or has_key(native, [_DISTILLED, r"head\.norm_dist\."])
    ),
    to_official=_to_official,
)
