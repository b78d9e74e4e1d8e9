"""The same global batch on one and on two processes: same loss, same gradients."""

import os
from datetime import timedelta

import torch
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmpretrain.registry import MODELS
from samples import tiny_model
from torch import distributed as dist

import mim_plugins  # noqa: F401  (for the processes this file starts)

BATCH = 8


def step(model, module, part: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of a part of the fixed batch, masks by the samples' seeds."""
    images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    samples = dict(seed=torch.arange(BATCH)[part])
    losses = model(images[part], samples, mode="loss")
    loss = sum(losses.values())
    loss.backward()
    return loss.detach(), {
        name: p.grad for name, p in module.named_parameters() if p.grad is not None
    }


def build():
    torch.manual_seed(0)
    model = MODELS.build(tiny_model())
    model.init_weights()
    return model


def worker(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        # A process that is stuck is an error within a minute, not a hang.
        timeout=timedelta(seconds=60),
    )
    torch.set_num_threads(1)
    module = build()
    model = MMDistributedDataParallel(module)
    loss, grads = step(model, module, slice(rank, None, 2))
    dist.all_reduce(loss)
    if rank == 0:
        torch.save((loss / 2, grads), f"{folder}/result.pth")
    dist.barrier()
    # Without the destructors: a thread of gloo may need the interpreter's lock to let
    # go of a tensor, while the destructor that waits for the thread holds it.
    os._exit(0)


def test_two_processes__equal_one(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    loss, grads = torch.load(tmp_path / "result.pth", weights_only=True)
    model = build()
    wanted_loss, wanted = step(model, model, slice(None))
    assert abs(loss - wanted_loss) <= 1e-6 * abs(wanted_loss)
    assert set(grads) == set(wanted)
    for name, grad in wanted.items():
        bound = 1e-5 * grad.abs().max()
        assert (grads[name] - grad).abs().max() <= bound, name
