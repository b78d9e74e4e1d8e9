"""Checks of arguments that come from configs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real


def is_number(value: object) -> bool:
    """Whether a value is a finite number, not a bool or a string."""
    return (
        isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    )


def as_numbers(name: str, values: object, what: str) -> list:
    """Numbers as a list.

    Args:
        name: The argument, for the message.
        values: What was given for it.
        what: What the argument takes, likewise.

    Raises:
        ValueError: If they are not numbers, or not a sequence.
    """
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not all(map(is_number, values))
    ):
        raise ValueError(f"{name} is {what}; got {values!r}")
    return list(values)
