"""What a layout of checkpoints is: foreign keys, and how they become ours and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]

# Masks of shifted windows, which Swin Transformers compute and some files hold.
SHIFT_MASK = re.compile(r"layers\.\d+\.blocks\.\d+\.attn_mask$")


@dataclass(frozen=True)
class Options:
    """What a user decides about a conversion to our keys.

    Args:
        source: Where the tensors are from, for messages.
        part: ``'student'``, or ``'teacher'`` for the one in a distillation checkpoint.
        merge_order: What pre-training weights of a LocalMIM Swin do, see
            :func:`.localmim_swin.convert_official`.
    """

    source: str = "checkpoint"
    part: str = "student"
    merge_order: str = "trained"


class Layout:
    """A layout of checkpoints, one object in one file of this folder.

    A new one is a file with a subclass and its only object, ``LAYOUT``: it is found,
    detected, converted and offered by the command line without another edit.
    """

    # As the command line takes it, and in words.
    name: str
    title: str

    # It is detected by a key that starts with one of the marks, unless one starts with
    # one of the others; regular expressions.
    marks: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    # Entries of a file that hold a state dict in this layout alone.
    wrappers: tuple[str, ...] = ()

    # What is left out on purpose: patterns of complete keys, and the reasons.
    dropped: tuple[tuple[str, str], ...] = ()

    # Whether every native key comes from one foreign key, so that they can be counted.
    one_to_one = True

    def detects(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict is in this layout, as its keys (and shapes) show."""
        return has_key(state, self.marks) and not has_key(state, self.unless)

    def is_chosen_by(self, model_keys: Iterable[str]) -> bool:
        """Whether a model decides for this layout where others fit as well.

        Args:
            model_keys: Keys of the model that loads the checkpoint.
        """
        return False

    def split(
        self, state: Mapping[str, Tensor], options: Options
    ) -> tuple[State, dict[str, str]]:
        """Splits off what is left out on purpose, with the reasons.

        Raises:
            KeyError: If the part that is asked for is not in it.
        """
        if options.part == "teacher":
            raise KeyError("it holds no teacher; leave out --part teacher")
        return drop(state, self.dropped)

    def to_native(self, state: State, options: Options) -> Mapping[str, Tensor]:
        """Converts to our keys.

        Raises:
            KeyError: If a key is not accounted for.
        """
        raise NotImplementedError

    def num_heads(self, state: Mapping[str, Tensor]) -> int | None:
        """Attention heads, of a Hiera of its first stage; None if it is not known."""
        return None

    def metadata(self, state: Mapping[str, Tensor], options: Options) -> dict[str, Any]:
        """What must be known to convert back and cannot be inferred from our keys."""
        return {}

    def notes(self, native: Mapping[str, Tensor], heads: int | None) -> list[str]:
        """Sentences for the user, who is to build the model.

        Args:
            native: The converted state dict.
            heads: Attention heads, if known.
        """
        cls = native.get("backbone.cls_token")
        if cls is None:
            return []
        if heads is not None:
            return [f"{heads} attention heads of {cls.shape[-1] // heads} channels"]
        return [
            "the number of attention heads cannot be inferred from the weights: a "
            "model with another one loads without complaint and computes something "
            "else (DeiT-Tiny has 3, MAE-Lite's ViT-Tiny 12; DeiT-Small 6, MAE-Lite's "
            "and MIRL's 12)"
        ]

    def writes(self, native: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
        """Whether our state dict is of a model whose official layout this is.

        Args:
            native: Our state dict.
            metadata: As of :meth:`metadata`, with the ``layout`` it was converted from,
                if it was; that layout is asked first.
        """
        return False

    def to_official(
        self, native: State, metadata: Mapping[str, Any], img_size: int
    ) -> State:
        """Converts from our keys, the inverse of :meth:`to_native`.

        Args:
            native: Our state dict.
            metadata: As of :meth:`metadata`, if it was converted from this layout.
            img_size: Side of the images in pixels, on which the masks of shifted
                windows depend that official Swin files hold.

        Raises:
            KeyError: If a key is not accounted for.
        """
        raise NotImplementedError


def has_key(keys: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether a key starts with one of some patterns."""
    found = [re.compile(pattern) for pattern in patterns]
    return any(pattern.match(key) for key in keys for pattern in found)


def drop(
    state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]
) -> tuple[State, dict[str, str]]:
    """Splits off the keys that complete patterns match, with the reasons."""
    rules = [*rules, (rf".*{SHIFT_MASK.pattern}", "masks of shifted windows, computed")]
    kept, dropped = {}, {}
    for key, value in state.items():
        reason = next((why for mark, why in rules if re.fullmatch(mark, key)), None)
        if reason is None:
            kept[key] = value
        else:
            dropped[key] = reason
    return kept, dropped
