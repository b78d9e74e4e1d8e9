"""Random state that belongs to a sample, not to a process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_MASK64 = (1 << 64) - 1


def sample_key(seed: int, epoch: int, index: int) -> int:
    """Hashes a run's seed, the epoch and the sample's index to 63 bits.

    The key depends on nothing else, so whatever is drawn from it is the same on any
    rank, in any worker and after a restart. It is the SplitMix64 finaliser applied to
    the three numbers in turn ("Fast splittable pseudorandom number generators", 2014,
    https://doi.org/10.1145/2660193.2660195).

    Args:
        seed: Seed of the run.
        epoch: Epoch, or any other count of passes.
        index: Index of the sample.

    Returns:
        A non-negative int64.
    """
    state = 0
    for value in (seed, epoch, index):
        state = _mix(state ^ (value & _MASK64))
    return state >> 1


def _mix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
    return state ^ (state >> 31)


def seed_rng(key: int) -> None:
    """Seeds the generators that transforms draw from: random, numpy, torch (CPU).

    ``torch.manual_seed`` is avoided: it takes a hundred times as long, since it seeds
    the generators of all devices as well, which belong to the model.

    Args:
        key: A non-negative number, such as :func:`sample_key` gives.
    """
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.default_generator.manual_seed(key)


@contextmanager
def preserve_rng_state(seed: int | None = None) -> Iterator[None]:
    """Restores the random state of the process on leaving.

    A loader without workers runs in the process that trains: seeding for a sample
    must not reset the draws of the model, such as dropout. Nor must an evaluation
    during training change it. The generators are those of :func:`seed_rng` and, in a
    process that uses CUDA, that of the current GPU.

    Args:
        seed: Seed of these generators inside; None leaves them as they are.
    """
    state = (
        random.getstate(),
        np.random.get_state(),
        torch.default_generator.get_state(),
    )
    # Asking would initialise CUDA.
    on_gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        if seed is not None:
            seed_rng(seed)
            if on_gpu is not None:
                torch.cuda.manual_seed(seed)
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.default_generator.set_state(state[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
