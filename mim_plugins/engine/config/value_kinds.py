"""Kinds of values that keys of a config take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What is allowed for a key.

    Args:
        fits: Whether a value is allowed.
        wanted: The same in words, which follow "must be".
    """

    fits: Callable[[Any], bool]
    wanted: str


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    over: float | None = None,
    under: float | None = None,
    whole: bool = False,
) -> Kind:
    """Finite numbers.

    Args:
        low: The least.
        high: The greatest.
        over: A limit that is not allowed itself.
        under: Likewise.
        whole: Whether only whole numbers are.
    """
    kinds: Any = int if whole else Real

    def fits(value: Any) -> bool:
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (low is None or value >= low)
            and (high is None or value <= high)
            and (over is None or value > over)
            and (under is None or value < under)
        )

    limits = {"of at least": low, "over": over, "at most": high, "under": under}
    words = [f"{word} {x:.10g}" for word, x in limits.items() if x is not None]
    kind = "a whole number" if whole else "a number"
    return Kind(fits, f"{kind} {' and '.join(words)}".strip())


def one_of(*choices: Any) -> Kind:
    """A few values."""
    return Kind(
        lambda value: any(type(value) is type(x) and value == x for x in choices),
        f"one of {', '.join(map(repr, choices))}",
    )


def either(kind: Kind, *choices: Any) -> Kind:
    """The values of a kind, and a few others.

    Args:
        kind: The kind.
        *choices: The others.
    """
    others = one_of(*choices)
    return Kind(
        lambda value: kind.fits(value) or others.fits(value),
        f"{kind.wanted}, or {' or '.join(map(repr, choices))}",
    )


def many(kind: Kind) -> Kind:
    """The values of a kind, or a sequence of them.

    Args:
        kind: The kind.
    """

    def fits(value: Any) -> bool:
        if is_sequence(value):
            return len(value) > 0 and all(map(fits, value))
        return kind.fits(value)

    return Kind(fits, f"{kind.wanted}, or a list of such")


def span(kind: Kind) -> Kind:
    """Two values of a kind, in order.

    Args:
        kind: The kind.
    """

    def fits(value: Any) -> bool:
        if not is_sequence(value) or len(value) != 2:
            return False
        return all(map(kind.fits, value)) and value[0] <= value[1]

    return Kind(fits, f"two numbers, the smaller first, each {kind.wanted}")


def is_sequence(value: Any) -> bool:
    """Whether a value is a list or a tuple, and no string.

    Args:
        value: Any.
    """
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are_parts(value: Any) -> bool:
    return is_sequence(value) and all(_is_part(x) and "type" in x for x in value)


COUNT = number(1, whole=True)
INDEX = number(0, whole=True)
SHARE = number(0, 1)
BELOW_ONE = number(0, under=1)
POSITIVE = number(over=0)
FACTOR = number(0)
FLAG = Kind(lambda value: isinstance(value, bool), "True or False")
STRING = Kind(lambda value: isinstance(value, str), "a string")
TEXT = Kind(lambda value: isinstance(value, str) and value != "", "a string, not empty")
PART = Kind(_is_part, "a dict")
PARTS = Kind(_are_parts, "a list of dicts, each with a type")
PART_OR_PARTS = Kind(
    lambda value: _is_part(value) or _are_parts(value),
    "a dict, or a list of dicts, each with a type",
)
SIZE = Kind(
    lambda value: many(COUNT).fits(value) and (COUNT.fits(value) or len(value) <= 3),
    "a whole number of at least 1, or two of them (rows, columns)",
)
BETAS = Kind(
    lambda value: (
        is_sequence(value) and len(value) in (2, 3) and all(map(BELOW_ONE.fits, value))
    ),
    "two numbers of at least 0 and under 1",
)
ASCENDING = Kind(
    lambda value: (
        is_sequence(value)
        and all(map(INDEX.fits, value))
        and list(value) == sorted(value)
    ),
    "a list of whole numbers in ascending order",
)
NORM_TYPE = Kind(
    lambda value: value in (math.inf, "inf") or POSITIVE.fits(value),
    "a number over 0, or inf",
)
CLASS = Kind(lambda value: TEXT.fits(value) or callable(value), "the name of a class")
