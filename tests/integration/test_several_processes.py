"""One process, several with whole models (DDP) and with shards (FSDP): the same run."""

import json
import os
import sys
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.utils import digit_version
from samples import ROOT
from torch.multiprocessing import start_processes

from mim_plugins.engine import train

sys.path.append(str(ROOT / "tests/engine"))
from test_exact_resume import config, folder  # noqa: E402, F401

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="forked processes cannot use the GPU"
)

STEPS = 20
DDP = dict(runner_type="FlexibleRunner", strategy=dict(type="DDPStrategy"))
FSDP = dict(
    runner_type="FlexibleRunner",
    strategy=Config.fromfile(ROOT / "configs/_base_/fsdp.py").strategy.to_dict(),
)
new_torch = digit_version(torch.__version__) >= digit_version("2.4")
sharded = pytest.mark.skipif(not new_torch, reason="this torch shards on GPUs only")


def settings(**changes: Any) -> Config:
    """Four images a step, without dropout; 9 images are two steps an epoch."""
    cfg = config(
        **{
            "model.backbone.drop_rate": 0.0,
            "model.backbone.drop_path_rate": 0.0,
            "model.train_cfg": None,
            "custom_hooks": [],
            "train_cfg.max_epochs": STEPS // 2,
            # A step larger than a gradient of rounding errors asks for.
            "optim_wrapper.optimizer": dict(
                _delete_=True, type="SGD", lr=0.05, momentum=0.9
            ),
            "log_processor.window_size": 1,
            "default_hooks.checkpoint.interval": 5,
        }
        | changes
    )
    return cfg


def work(rank: int, world: int, port: int, work_dir: str, resume: str | None) -> None:
    """One of several processes."""
    variables = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    train("config.py", work_dir=work_dir, resume=resume, launcher="pytorch")
    # Without the destructors, which may wait for threads of gloo.
    os._exit(0)


def start(world: int, work_dir: str, cfg: Config, resume: str | None = None) -> Any:
    """Train on some processes, with four images a step."""
    cfg.train_dataloader.batch_size = 4 // world
    cfg.experiment_name = work_dir
    cfg.dump("config.py")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (world, port, work_dir, resume)
    return start_processes(
        work, arguments, nprocs=world, start_method="fork", join=False
    )


def losses(world: int, work_dir: str, *arguments: Any) -> torch.Tensor:
    """Train, and return the logged loss of every step."""
    processes = start(world, work_dir, *arguments)
    while not processes.join():
        pass
    (file,) = Path(work_dir).glob("*/vis_data/scalars.json")
    lines = file.read_text().splitlines()
    return torch.tensor(np.array([json.loads(line)["loss"] for line in lines]))


def test_ddp__follows_one_process_and_goes_on_with_another_number(
    folder: Path,  # noqa: F811
) -> None:
    one = losses(1, "one", settings())
    two = losses(2, "two", settings())
    assert len(one) == len(two) == STEPS
    # What is logged is the mean over the processes.
    torch.testing.assert_close(two, one, rtol=1e-5, atol=0)
    rest = losses(1, "rest", settings(), "two/iter_5.pth")
    torch.testing.assert_close(rest, one[5:], rtol=1e-5, atol=0)
    rest = losses(2, "more", settings(), "one/iter_15.pth")
    torch.testing.assert_close(rest, one[15:], rtol=1e-5, atol=0)
    flexible = losses(2, "flexible", settings(**DDP))
    torch.testing.assert_close(flexible, one, rtol=1e-4, atol=0)


@sharded
def test_fsdp__follows_one_process_and_goes_on_with_another_number_of_shards(
    folder: Path,  # noqa: F811
) -> None:
    one = losses(1, "one", settings())
    two = losses(2, "two", settings(**FSDP))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=0)
    rest = losses(1, "fewer", settings(**FSDP), "two/iter_5.pth")
    torch.testing.assert_close(rest, one[5:], rtol=1e-4, atol=0)
