"""Sharded parameters (FSDP): which parts are, and the optimiser's groups."""

import os
from pathlib import Path
from socket import socket

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    FUNCTIONS,
    MODEL_WRAPPERS,
    RUNNERS,
    STRATEGIES,
    DefaultScope,
)
from mmengine.utils import digit_version
from samples import (
    ROOT,
    TINY_ARCH,
    ade20k_layout,
    laid_out_only,
    small_segmentor,
)
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.multiprocessing import start_processes
from torch.testing._internal.distributed.fake_pg import FakeStore

from mim_plugins.engine import train
from mim_plugins.models import RelPosVisionTransformer

CONFIG = ROOT / "configs/mirl/segmentation/vitb48_800e_upernet-fsdp_ade20k.py"


@pytest.fixture
def two_processes():
    """A group of two of which this is the first; nothing is sent or received."""
    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    distributed.destroy_process_group()


def segmentor() -> nn.Module:
    model = nn.Module()
    model.backbone = RelPosVisionTransformer(
        arch=dict(TINY_ARCH),
        img_size=32,
        patch_size=8,
        out_type="featmap",
        out_indices=(0, 1, 2, 3),
        layer_scale_init_value=1.0,
        with_cp=True,
    )
    model.decode_head = nn.Conv2d(24, 3, 3)
    return model


def groups_of(model):
    cfg = dict(
        constructor="LayerDecayOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
        paramwise_cfg=dict(
            layer_decay_rate=0.9, flat_decay_mult=0.0, bias_decay_mult=0.0
        ),
    )
    wrapper = build_optim_wrapper(model, cfg)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }
    return {
        name.replace("_fsdp_wrapped_module.", ""): found[id(p)]
        for name, p in model.named_parameters()
    }


def test_groups__of_sharded_parameters_are_those_of_whole_ones(two_processes):
    wanted = groups_of(segmentor())
    policy = FUNCTIONS.get("shard_transformer_blocks")
    sharded = FullyShardedDataParallel(
        segmentor(),
        auto_wrap_policy=policy,
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    blocks = [m for m in sharded.modules() if isinstance(m, FullyShardedDataParallel)]
    assert len(blocks) == 1 + TINY_ARCH["num_layers"]
    # Shapes are lost: half of the numbers are here, in flat tensors.
    assert {p.ndim for p in sharded.parameters()} == {1}
    assert groups_of(sharded) == wanted


def test_config__names_what_there_is():
    cfg = Config.fromfile(CONFIG)
    wrapper = cfg.strategy.model_wrapper
    assert RUNNERS.get(cfg.runner_type) and STRATEGIES.get(cfg.strategy.type)
    assert issubclass(MODEL_WRAPPERS.get(wrapper.type), FullyShardedDataParallel)
    assert FUNCTIONS.get(wrapper.auto_wrap_policy)


def train_as(rank: int, port: int, config: Path, work_dir: Path) -> None:
    """One of two processes."""
    group = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in group.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    train(config, work_dir=str(work_dir), launcher="pytorch")


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version("2.4")
    or torch.cuda.is_available(),
    reason="this torch shards on GPUs only, or would do so in forked processes",
)
def test_config__trains_sharded_and_saves_a_whole_checkpoint(tmp_path):
    models = pytest.importorskip("mmseg.models")
    ade20k_layout(tmp_path / "data")
    cfg = Config.fromfile(CONFIG)
    small_segmentor(cfg, tmp_path / "data", tmp_path / "out")
    cfg.dump(tmp_path / CONFIG.name)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked rather than spawned: packages have been imported.
    arguments = (port, tmp_path / CONFIG.name, tmp_path / "out")
    start_processes(train_as, arguments, nprocs=2, start_method="fork")
    (log,) = (tmp_path / "out").rglob("*.log")
    # Embeddings, four blocks and the rest, each with a weight decay and without.
    assert "optimiser: 12 parameter groups" in log.read_text()
    state = torch.load(tmp_path / "out/iter_1.pth", weights_only=False)["state_dict"]
    with DefaultScope.overwrite_default_scope("mmseg"), laid_out_only():
        whole = models.build_segmentor(cfg.model).state_dict()
    assert {k: x.shape for k, x in state.items()} == {
        k: x.shape for k, x in whole.items()
    }
