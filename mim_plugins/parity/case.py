"""A golden case: what an official implementation computed, and with what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

FILES = ("case.json", "weights.safetensors", "inputs.npz", "outputs.npz")


@dataclass(frozen=True)
class GoldenCase:
    """One case folder, read.

    Args:
        name: Path of the folder as given.
        config: ``case.json``.
        weights: The official state dict.
        inputs: What the official model was fed.
        outputs: What it computed.
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
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} is not a golden case: {', '.join(missing)} missing"
            )
        return cls(
            name=str(folder),
            config=json.loads((path / "case.json").read_text()),
            weights=load_file(path / "weights.safetensors"),
            inputs={k: torch.from_numpy(v) for k, v in _arrays(path / "inputs.npz")},
            outputs=dict(_arrays(path / "outputs.npz")),
        )


def _arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        return [(name, archive[name]) for name in archive.files]
