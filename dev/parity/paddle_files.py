"""Golden cases that are files of PaddlePaddle, with the arrays they must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from mim_plugins.checkpoints.files.paddle import read_paddle_state_dict
from mim_plugins.checkpoints.layouts.mirl import transpose_linears

SUFFIXES = (".pdparams", ".pd")

# Which form of a file's content is stored in `<start of its name>_expected<form>.npz`.
AS_STORED = ("", "_paddle_layout")
TRANSPOSED = "_torch_layout"
FOLDED = "_folded_pred_torch_layout"


def expected_arrays(folder: Path, files: list[str]) -> dict[str, np.ndarray]:
    """All arrays that the files of a case must give, as ``file:form:key``."""
    arrays = {}
    for file in files:
        for path in sorted(folder.glob("*_expected*.npz")):
            start, form = path.stem.split("_expected")
            if file.startswith(start):
                with np.load(path, allow_pickle=False) as archive:
                    for key in archive.files:
                        arrays[f"{file}:{form}:{key}"] = archive[key]
    return arrays


def paddle_files(config: dict) -> list[str]:
    """Names of the Paddle files that a case speaks of; several may share a line."""
    names = [name for line in config.get("files", ()) for name in line.split(" / ")]
    return [name for name in names if name.endswith(SUFFIXES)]


def read_forms(path: Path) -> dict[str, Tensor]:
    """The content of a file, as stored and transposed, as ``file:form:key``."""
    state = read_paddle_state_dict(path)
    forms = {form: state for form in AS_STORED} | {TRANSPOSED: transpose_linears(state)}
    return {
        f"{path.name}:{form}:{key}": value
        for form, tensors in forms.items()
        for key, value in tensors.items()
    }
