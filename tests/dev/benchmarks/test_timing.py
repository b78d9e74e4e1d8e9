import pytest
import torch

from dev.benchmarks.timing import (
    Stopwatch,
    interleave,
    matmul_rate,
    paired_ratio,
    saved_bytes,
)


def test_implementations_take_turns_and_the_first_round_is_discarded():
    calls = []

    def run(name):
        calls.append(name)
        return len(calls)

    results = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=2)
    assert "".join(calls) == "ababab"
    assert results == {"a": [3, 5], "b": [4, 6]}
    with pytest.raises(ValueError, match="at least 1, got 0"):
        interleave({}, rounds=0)


def test_ratios_are_taken_pair_by_pair():
    ratio = paired_ratio([1.0, 2.0, 4.0], [2.0, 2.0, 20.0])
    assert (ratio.median, ratio.min, ratio.max) == (2.0, 1.0, 5.0)


def test_stopwatch_times_every_stretch():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(3):
        watch.mark()
        torch.rand(200, 200) @ torch.rand(200, 200)
    assert len(watch.laps()) == 2
    assert min(watch.laps()) > 0
    assert watch.wall_seconds() > 0


def test_saved_bytes_counts_each_storage_once_without_parameters():
    weight = torch.rand(4, 3, requires_grad=True)

    def forward():
        x = torch.rand(5, 4)  # saved for the weight's gradient, 80 bytes
        y = (x @ weight).exp()  # saved once by exp and once by the square: 60 bytes
        return (y**2).sum()

    assert saved_bytes(forward, [weight]) == 80 + 60


def test_matrix_product_rate_is_plausible():
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32, repeats=2) < 1e13
