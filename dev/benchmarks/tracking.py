"""Frames per second of a tracker: the network alone, and everything around it.

    python -m dev.benchmarks.tracking [CONFIG] [--threads 1] [--frames 60]

Weights are random: elimination keeps as many tokens as with trained ones. Variants are
run by turns, and medians given; decoding of frames does not count. With one thread the
time is the CPU time of the process, which others on the machine do not change.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import mim_plugins  # noqa: F401
from mim_plugins.evaluation.tracking.video import TimedNetwork, load_tracker
from mim_plugins.models import Tracker
from mim_plugins.models.trackers.onnx import OnnxNetwork, export_onnx
from mim_plugins.models.trackers.tracker import Network, TorchNetwork

CONFIG = "configs/distilled/tracking/d2-mae_vitt_lasot_300e.py"

# A frame as of LaSOT, and a box in its middle.
HEIGHT, WIDTH, BOX = 720, 1280, (560.0, 300.0, 160.0, 120.0)

WARM_UP = 3

Clock = Callable[[], float]


def measure(config: str, frames: int, clock: Clock) -> dict[str, float]:
    """Frames per second of every variant, and shares of what is not the network.

    Args:
        config: A config of a tracker.
        frames: Of each variant.
        clock: What tells the time in seconds.
    """
    network = load_tracker(None, config)
    assert isinstance(network, TorchNetwork)
    model = network.model
    template, search = (
        torch.rand(1, 3, size, size)
        for size in (network.template_size, network.search_size)
    )
    with torch.inference_mode():
        embedded = model.backbone.embed_template(template)

    def alone(keep_rate: float | None) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                tokens = model.backbone.embed_search(search)
                encoded = model.backbone.encode(embedded, tokens, keep_rate)
                return model.maps_of(encoded.search)

        return run

    timed = {"torch": TimedNetwork(network, clock)}
    variants = {"network": alone(1.0), "network, elimination": alone(None)}
    with tempfile.TemporaryDirectory() as folder:
        if _has_onnx():
            export_onnx(model, Path(folder, "tracker.onnx"))
            exported = OnnxNetwork(Path(folder, "tracker.onnx"))
            timed["onnxruntime"] = TimedNetwork(exported, clock)
        for name, inside in timed.items():
            variants[f"tracker, {name}"] = _tracking(inside)
        _by_turns(variants, WARM_UP, clock)
        for inside in timed.values():
            inside.seconds = 0.0
        seconds = _by_turns(variants, frames, clock)
    result = {name: 1 / median(values) for name, values in seconds.items()}
    for name, inside in timed.items():
        whole = sum(seconds[f"tracker, {name}"])
        result[f"share outside of the network, {name}"] = 1 - inside.seconds / whole
    return result


def _tracking(network: Network) -> Callable[[], object]:
    frame = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    tracker = Tracker(network).init(frame, BOX)

    def run() -> object:
        tracker.box = np.array(BOX)  # random weights would lead it anywhere
        return tracker.update(frame)

    return run


def _by_turns(
    variants: dict[str, Callable[[], object]], frames: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of every call."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(frames):
        for name, run in variants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def _has_onnx() -> bool:
    names = ("onnx", "onnxruntime")
    return all(importlib.util.find_spec(name) is not None for name in names)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", nargs="?", default=CONFIG)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    result = measure(args.config, args.frames, clock)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
