"""Runs LocalMIM's golden cases on our modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mim_plugins.models.targets import HOGTarget

from .case import GoldenCase
from .deepmim import Produced

# What the official HOG layer lets one choose and nobody does.
HOG_CONSTANTS = {"max_angle": math.pi, "stride": 1, "padding": 1, "dilation": 1}


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    args = case.config["model"]
    if "cases" in args:
        return run_hog(case)
    raise NotImplementedError(
        f"LocalMIM variant {case.config.get('variant')!r} is not built yet"
    )


def run_hog(case: GoldenCase) -> Produced:
    """The HOG target by itself, on many images and settings."""
    arrays: dict[str, Tensor] = {}
    for args in case.config["model"]["cases"]:
        for name, value in HOG_CONSTANTS.items():
            if not math.isclose(args.get(name, value), value):
                raise NotImplementedError(f"HOG with {name}={args[name]}")
        tag = args["name"]
        target = HOGTarget(args["nbins"], args["pool"], args["bias"])
        weights = {
            f"gradients.0.{name.split('.')[-1]}": value
            for name, value in case.weights.items()
            if name.startswith(f"{tag}.conv.")
        }
        target.load_state_dict(weights)
        images = case.inputs[f"{tag}/images"]
        arrays[f"{tag}/target"] = target.histograms(images)[0].flatten(1, 2)
        gradient = torch.stack(target.responses(images)[0], dim=2)
        arrays[f"{tag}/grad_ch0"] = gradient[:, 0]
    return {**arrays}
