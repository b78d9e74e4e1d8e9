"""Values that are logged to services, next to the files of the working directory."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from mim_plugins.engine.config import log_services
from mim_plugins.engine.config.log_services import log_to


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(log_services, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_backends__are_added_to_those_of_the_config(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    local = dict(type="BestEffortVisBackend")
    cfg = Config(
        dict(
            work_dir="work_dirs/mae/vitb",
            visualizer=dict(type="UniversalVisualizer", vis_backends=[local]),
        )
    )
    log_to(cfg, ["tensorboard", "wandb", "mlflow"])
    log_to(cfg, ["wandb"])  # there already
    first, tensorboard, wandb, mlflow = cfg.visualizer.vis_backends
    assert first == local and tensorboard == dict(type="TensorboardVisBackend")
    assert wandb.init_kwargs == dict(project="mim_plugins", name="mae/vitb")
    database = Path("work_dirs/mae/vitb/mlflow.db").absolute()
    assert mlflow.tracking_uri == f"sqlite:///{database}"
    assert all(VISBACKENDS.get(x.type) for x in cfg.visualizer.vis_backends)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    cfg = Config(dict(work_dir="x", visualizer=None))
    log_to(cfg, ["mlflow"])
    assert cfg.visualizer.vis_backends[0].type == "BestEffortVisBackend"
    assert cfg.visualizer.vis_backends[1].tracking_uri == "http://localhost:5000"


def test_unknown_name_and_absent_package__are_refused(monkeypatch):
    cfg = Config(dict(work_dir="x", visualizer=None))
    with pytest.raises(ValueError, match="no 'comet', take one of tensorboard, wandb"):
        log_to(cfg, ["comet"])
    monkeypatch.setattr(log_services, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--wandb needs .*pip install wandb"):
        log_to(cfg, ["wandb"])
    assert cfg.visualizer is None
