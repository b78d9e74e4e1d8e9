"""Counter-based random numbers: the published mixing, and their distribution."""

import numpy as np
import torch

from mim_plugins.models.counter_rng import counter_uniform


def test_counter_uniform__matches_splitmix64_and_is_uniform():
    def splitmix64(state: int) -> int:
        bits = 2**64 - 1
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & bits
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & bits
        return state ^ (state >> 31)

    seeds = [0, 1, 2**62 + 5]
    values = counter_uniform(torch.tensor(seeds), 7)
    for row, seed in zip(values.tolist(), seeds, strict=True):
        states = [splitmix64(seed) + (i + 1) * 0x9E3779B97F4A7C15 for i in range(7)]
        expected = [(splitmix64(s % 2**64) >> 40) / 2**24 for s in states]
        assert row == expected

    many = counter_uniform(torch.arange(2000), 50).flatten().numpy()
    assert many.min() >= 0 and many.max() < 1
    counts = np.histogram(many, bins=20, range=(0, 1))[0]
    # 20 bins of 5,000 on average; 5 standard deviations are about 350.
    assert np.abs(counts - 5000).max() < 350
