"""A loss that is not finite on one of two processes: both skip the step."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from toy_run import loader, make_runner

from mim_plugins.engine.environment import connect_over_gloo


def train(folder: Path, rank: int, count: int) -> None:
    """Spoils a loss of the second process, and writes what each has in the end."""
    data = loader(batch_size=2)
    data["sampler"] = dict(type="DefaultSampler", shuffle=True)
    runner = make_runner(
        folder,
        launcher="pytorch",
        env_cfg=dict(dist_cfg=dict(backend="gloo")),
        model_wrapper_cfg=dict(
            type="MMDistributedDataParallel",
            broadcast_buffers=False,
            find_unused_parameters=False,
            device_ids=None,
        ),
        train_dataloader=data,
        optim_wrapper=dict(
            type="OptimWrapper",
            accumulative_counts=count,
            optimizer=dict(type="AdamW", lr=1e-3),
        ),
        custom_hooks=[dict(type="StopNonFiniteHook")],
    )
    model = runner.model.module
    loss = model.loss

    def spoiling(inputs, data_samples):
        losses = loss(inputs, data_samples)
        if runner.iter == 2 and rank == 1:
            # Its gradient is finite: nothing of it would reach the other process.
            losses["loss_1"] = losses["loss_1"] + torch.inf
        return losses

    model.loss = spoiling
    runner.train()
    steps = {
        float(x["step"]) for x in runner.optim_wrapper.state_dict()["state"].values()
    }
    state = {**model.state_dict(), "steps": steps}
    torch.save(state, folder / f"rank{rank}.pth")


def worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        WORLD_SIZE="2",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
    )
    connect_over_gloo("pytorch")
    for count in (1, 2):
        path = Path(folder, str(count))
        path.mkdir(exist_ok=True)
        train(path, rank, count)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads and the interpreter's lock


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(str(folder), port), nprocs=2)
    return folder


@pytest.mark.parametrize("count", [1, 2])
def test_loss_of_one_process__is_skipped_by_both(trained: Path, count: int) -> None:
    """With accumulation, too, where gradients are exchanged in the last iteration."""
    folder = trained / str(count)
    states = [
        torch.load(folder / f"rank{rank}.pth", weights_only=False) for rank in (0, 1)
    ]
    # Of two epochs with three iterations each, one iteration is left out.
    wanted = {1: 5.0, 2: 2.0}[count]
    for state in states:
        assert state.pop("steps") == {wanted}
    for key, value in states[0].items():
        assert value.isfinite().all()
        assert torch.equal(value, states[1][key]), key
    log = next(folder.glob("work/*/*.log")).read_text()
    number, epoch = {1: (3, 1), 2: (4, 2)}[count]
    assert (
        f"iteration {number} (epoch {epoch}): loss_1 is inf. To run the batch again"
    ) in log
    # Of the process it was, and the weights, which all have.
    names = {path.name for path in folder.glob("work/non_finite/*")}
    assert names == {f"iter_{number}_rank1.pth", f"iter_{number}_weights.pth"}
    (batch,) = torch.load(
        folder / f"work/non_finite/iter_{number}_rank1.pth", weights_only=True
    )["batches"]
    assert batch["iteration"] == 3
