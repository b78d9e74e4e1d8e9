"""Sharded parameters (FSDP): which parts are, and the optimiser's groups."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS
from samples import ROOT, TINY_ARCH
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from mim_plugins.models import RelPosVisionTransformer


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
    # Shapes tell nothing any more: half of the numbers are here, in flat tensors.
    assert {p.ndim for p in sharded.parameters()} == {1}
    assert groups_of(sharded) == wanted


def test_config__names_what_there_is():
    path = "configs/mirl/segmentation/vitb48_800e_upernet-fsdp_ade20k.py"
    cfg = Config.fromfile(ROOT / path)
    from mmengine.registry import MODEL_WRAPPERS, RUNNERS, STRATEGIES

    wrapper = cfg.strategy.model_wrapper
    assert RUNNERS.get(cfg.runner_type) and STRATEGIES.get(cfg.strategy.type)
    assert issubclass(MODEL_WRAPPERS.get(wrapper.type), FullyShardedDataParallel)
    assert FUNCTIONS.get(wrapper.auto_wrap_policy)
