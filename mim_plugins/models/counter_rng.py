"""A counter-based random number generator: the same numbers on every device."""

from __future__ import annotations

import torch
from torch import Tensor


def counter_uniform(seeds: Tensor, length: int) -> Tensor:
    """Draws uniform numbers in [0, 1) from seeds and a counter, (N,) -> (N, length).

    The mixing is SplitMix64's finaliser (Steele et al., "Fast Splittable
    Pseudorandom Number Generators", 2014), in wrapping int64 arithmetic, so that
    every device gives the same numbers.
    """
    counter = torch.arange(1, length + 1, device=seeds.device, dtype=torch.int64)
    # 0x9E3779B97F4A7C15 and the two multipliers below, as signed 64-bit integers.
    state = _mix64(seeds[:, None].to(torch.int64)) + counter * -7046029254386353131
    # 24 bits fill a float32 mantissa exactly.
    return (_mix64(state) >> 40 & 0xFFFFFF).to(torch.float32) / 2**24


def _mix64(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * -4658895280553007687
    state = (state ^ _shift_right(state, 27)) * -7723592293110705685
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts int64 arithmetically."""
    return state >> bits & (1 << (64 - bits)) - 1
