"""Where a run's values are logged to, other than its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

BACKENDS = {
    "tensorboard": "TensorboardVisBackend",
    "wandb": "WandbVisBackend",
    "mlflow": "MLflowPicturesVisBackend",
}

PROJECT = "mim_plugins"


def log_to(cfg: Config, names: Sequence[str]) -> None:
    """Adds backends of mmengine to a config's visualizer, which keeps its own.

    Runs are named like their working directory.

    Args:
        cfg: The config, with its ``work_dir``.
        names: Of :data:`BACKENDS`.

    Raises:
        ValueError: If a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in BACKENDS:
            raise ValueError(
                f"log_to: there is no {name!r}, take one of {', '.join(BACKENDS)}"
            )
        if find_spec(name) is None:
            raise ValueError(
                f"--{name} needs the package of this name, which is not installed: "
                f"pip install {name}"
            )
        if not cfg.get("visualizer"):
            cfg.visualizer = dict(
                type="Visualizer", vis_backends=[dict(type="BestEffortVisBackend")]
            )
        backends = list(cfg.visualizer.get("vis_backends") or [])
        if not any(backend["type"] == BACKENDS[name] for backend in backends):
            backends.append(dict(type=BACKENDS[name], **_options(name, cfg.work_dir)))
            cfg.visualizer.vis_backends = backends


def _options(name: str, work_dir: str) -> dict[str, Any]:
    run = "/".join(Path(work_dir).absolute().parts[-2:])
    if name == "wandb":
        return dict(init_kwargs=dict(project=PROJECT, name=run))
    if name == "mlflow":
        database = Path(work_dir, "mlflow.db").absolute()
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        return dict(exp_name=PROJECT, run_name=run, tracking_uri=uri)
    return {}
