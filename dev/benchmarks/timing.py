"""Clocks, interleaving, ratios and memory: what every benchmark measures with."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch.autograd.graph import saved_tensors_hooks

MIB = 2**20

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """Median and range of a measured quantity."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Summary":
        """Summarise at least one value."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    @property
    def spread(self) -> float:
        """Range over median: 0 for a perfectly repeatable measurement."""
        return (self.max - self.min) / self.median

    def as_dict(self) -> dict[str, float]:
        """Return the fields for a report."""
        return asdict(self)


class Stopwatch:
    """Times the stretches between marks without stopping a GPU at each of them.

    On a GPU the marks are CUDA events, read once the last one has passed. On the CPU
    they hold the process's CPU time, which other processes do not disturb, if the
    code under test has one thread, and wall time otherwise.

    Args:
        device: Where the code under test runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.events: list[torch.cuda.Event] = []
        self.times: list[float] = []
        self.wall: list[float] = []

    @staticmethod
    def clock_name(device: torch.device) -> str:
        """Name the clock used for a device."""
        if device.type == "cuda":
            return "CUDA events"
        return "process CPU time" if torch.get_num_threads() == 1 else "wall time"

    def mark(self) -> None:
        """End a stretch and start the next."""
        if self.device.type == "cuda":
            if not self.events:
                torch.cuda.synchronize(self.device)
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self.events.append(event)
        elif torch.get_num_threads() == 1:
            self.times.append(time.process_time())
        else:
            self.times.append(time.perf_counter())
        self.wall.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Return the seconds of each stretch, waiting for the device first."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.wall[-1] = time.perf_counter()
            # Events report milliseconds.
            return [a.elapsed_time(b) / 1e3 for a, b in pairwise(self.events)]
        return [b - a for a, b in pairwise(self.times)]

    def wall_seconds(self) -> float:
        """Return the wall time between the first mark and the last."""
        return self.wall[-1] - self.wall[0]


def interleave(runs: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run implementations in turns, A B C A B C ..., so that all see the same machine.

    Args:
        runs: What to run for each name; each call returns one measurement.
        rounds: Measurements to keep; one more round is run first and discarded.

    Returns:
        The measurements of each name, in order, as many as ``rounds``.

    Raises:
        ValueError: If ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    results: dict[str, list[T]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            result = run()
            if index:
                results[name].append(result)
    return results


def paired_ratio(ours: list[float], theirs: list[float]) -> Summary:
    """Summarise round by round how many times as long the others took.

    Args:
        ours: Seconds of each round.
        theirs: Seconds of the others in the same rounds.
    """
    return Summary.of(b / a for a, b in zip(ours, theirs, strict=True))


def matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = 8, patience: float = 2.0
) -> float:
    """Measure the device's ceiling: its best rate on a large matrix product.

    Args:
        device: Where to measure.
        dtype: Operand type.
        repeats: Timed runs, of which the fastest counts; one more runs first.
        patience: Seconds after which no further run is started: a CPU without
            instructions for the type takes very long.

    Returns:
        Operations per second, two for each multiply-add.
    """
    size, products = (8192, 10) if device.type == "cuda" else (1024, 1)
    # Random operands: a GPU draws less power, and clocks higher, on zeros.
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    start = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < repeats and time.perf_counter() - start < patience:
        watch = Stopwatch(device)
        watch.mark()
        for _ in range(products):
            torch.mm(a, b)
        watch.mark()
        seconds += watch.laps()
    return 2 * size**3 * products / min(seconds)


def saved_bytes(
    forward: Callable[[], torch.Tensor], exclude: Iterable[torch.Tensor]
) -> int:
    """Add up what a forward pass keeps for its backward pass.

    Args:
        forward: Runs the forward pass and returns the loss.
        exclude: Tensors that are not counted, such as parameters.

    Returns:
        Bytes of all distinct storages saved by autograd.
    """
    excluded = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        # The graph of the loss keeps the storages alive, so that no two of them share
        # an address.
        loss = forward()
    del loss
    return sum(storages.values())
