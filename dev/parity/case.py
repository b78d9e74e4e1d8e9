"""A golden case: what an official implementation computed, and with what."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .paddle_files import expected_arrays, paddle_files

ARRAYS = ("inputs.npz", "outputs.npz")
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class GoldenCase:
    """One case folder, read.

    Args:
        name: Path of the folder as given.
        config: ``case.json``.
        weights: The official state dict; empty for a function without weights.
        inputs: What the official model was fed; empty where the case is files to read.
        outputs: What it computed, or what the files hold.
    """

    name: str
    config: dict
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, np.ndarray]

    @classmethod
    def load(cls, folder: str | Path) -> GoldenCase:
        """Reads a case folder.

        Raises:
            FileNotFoundError: If the folder or one of its files is missing.
        """
        path = Path(folder)
        _require(path, "case.json")
        config = json.loads((path / "case.json").read_text())
        if files := paddle_files(config):
            _require(path, *files)
            outputs = expected_arrays(path, files)
            return cls(str(folder), config, {}, {}, outputs)
        has_weights = "function" not in config.get("model", {})
        _require(path, *ARRAYS, *([WEIGHTS] if has_weights else []))
        return cls(
            name=str(folder),
            config=config,
            weights=load_file(path / WEIGHTS) if has_weights else {},
            inputs={k: torch.from_numpy(v) for k, v in _arrays(path / "inputs.npz")},
            outputs=dict(_arrays(path / "outputs.npz")),
        )

    def to(self, device: torch.device | str) -> GoldenCase:
        """The case with its weights and inputs on a device."""
        return replace(
            self,
            weights={k: v.to(device) for k, v in self.weights.items()},
            inputs={k: v.to(device) for k, v in self.inputs.items()},
        )


def _require(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not a golden case: {', '.join(missing)} missing"
        )


def _arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        return [(name, archive[name]) for name in archive.files]
