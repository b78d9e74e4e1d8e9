"""Loading processes that die or stand still are replaced; no batch differs."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from toy_run import ToyImages, loader, make_runner

from mim_plugins.engine.running.loading import batches

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)


@DATASETS.register_module(force=True)
class FailingImages(ToyImages):
    """Toy images; at one of them the loading process gets a signal, a few times."""

    def __init__(
        self, folder: str, at: int = 6, signum: int = 0, times: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.folder, self.at, self.signum, self.times = folder, at, signum, times

    def __getitem__(self, index: int) -> dict[str, Any]:
        done = len(list(Path(self.folder).glob("*.flag")))
        if self.signum and index == self.at and done < self.times:
            Path(self.folder, f"{done}.flag").touch()
            os.kill(os.getpid(), self.signum)
        return super().__getitem__(index)


def failing(folder: Path, signum: int, timeout: float = 0, **dataset: Any) -> dict:
    config = loader(batch_size=2)
    config["dataset"] = dict(
        type="FailingImages", folder=str(folder), signum=int(signum), **dataset
    )
    return {**config, "num_workers": 2, "timeout": timeout, "persistent_workers": True}


def loaded(folder: Path, signum: int, **options: Any) -> DataLoader:
    config = failing(folder, signum, **options)
    runner = make_runner(folder, train_dataloader=config)
    return runner.build_dataloader(config)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_killed_or_stopped__training_is_the_same(
    tmp_path: Path, signum: signal.Signals
) -> None:
    states, logs = [], []
    for name, sent in (("plain", 0), ("failing", signum)):
        torch.manual_seed(0)
        folder = tmp_path / name
        folder.mkdir()
        runner = make_runner(
            folder,
            train_dataloader=failing(folder, sent, timeout=2),
            train_cfg=dict(type="ResumableEpochLoop", max_epochs=2),
        )
        runner.train()
        assert (folder / "0.flag").exists() is bool(sent)
        states.append(runner.model.state_dict())
        logs.append(next(folder.glob("work/*/*.log")).read_text())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    assert "loading processes are replaced" not in logs[0]
    what = "has died" if signum == signal.SIGKILL else "no batch for 2 s from"
    assert what in logs[1]
    assert re.search(r"replaced, and loading goes on at batch [1-4] of the", logs[1])


def test_worker_killed_between_batches__does_not_disturb_the_step(
    tmp_path: Path,
) -> None:
    """Neither an exception in whatever is going on, nor in the next epoch's start."""
    data = loaded(tmp_path, 0, timeout=2)
    seen = []
    for epoch in range(2):
        for batch in batches(data):
            seen += batch["data_samples"]["sample_idx"].tolist()
            if epoch == 0 and len(seen) == 12:
                os.kill(data._iterator._workers[0].pid, signal.SIGKILL)
                data._iterator._workers[0].join()
    assert seen == [*range(12), *range(12)]
    del data


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_fails_with_a_batch_ready__is_replaced(
    tmp_path: Path, signum: signal.Signals
) -> None:
    """torch then waits, without a limit, for it to hand over the batch's memory."""
    data = loaded(tmp_path, 0, timeout=2)
    seen = []
    for batch in batches(data):
        seen += batch["data_samples"]["sample_idx"].tolist()
        if len(seen) == 2:
            time.sleep(1)  # more batches are ready
            for worker in data._iterator._workers:
                os.kill(worker.pid, signum)
    assert seen == [*range(12)]


@pytest.mark.parametrize("timeout", [2, 0])
def test_worker_killed_in_the_middle_of_a_message__is_replaced(
    tmp_path: Path, timeout: float
) -> None:
    """The rest of it never comes, and no other worker may write."""
    data = loaded(tmp_path, 0, timeout=timeout)
    # Larger than a pipe: it is handed over while the batch before is worked on.
    data.collate_fn = MessageOfAMegabyte()
    seen = []
    for indices, _ in batches(data):
        seen += indices
        if len(seen) == 2:
            time.sleep(1)
            for worker in data._iterator._workers:
                os.kill(worker.pid, signal.SIGKILL)
    assert seen == [*range(12)]


class MessageOfAMegabyte:
    def __call__(self, samples: list[dict]) -> tuple[list[int], bytes]:
        indices = [sample["data_samples"]["sample_idx"] for sample in samples]
        return indices, bytes(2**20)


def test_worker_killed_after_another_loader_ran__does_not_disturb_the_step(
    tmp_path: Path,
) -> None:
    """torch's first loader in a process sets a handler that raises anywhere."""
    before = signal.getsignal(signal.SIGCHLD)
    signal_handling._SIGCHLD_handler_set = False
    try:
        list(DataLoader(ToyImages(), num_workers=1, collate_fn=len))
        assert signal.getsignal(signal.SIGCHLD) is not before
        test_worker_killed_between_batches__does_not_disturb_the_step(tmp_path)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_worker_that_fails_at_every_try__ends_in_one_sentence(tmp_path: Path) -> None:
    data = loaded(tmp_path, signal.SIGKILL, timeout=1, times=100)
    with pytest.raises(RuntimeError, match="failed 4 times at batch [1-4] of the"):
        list(batches(data))


def test_error_of_the_data_set__is_raised_as_it_is(tmp_path: Path) -> None:
    data = loaded(tmp_path, 0)
    data.dataset.count = 12
    data.dataset.classes = 0
    with pytest.raises(ZeroDivisionError):
        list(batches(data))


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, RuntimeError])
def test_error_like_that_of_a_dying_worker__is_raised_as_it_is(
    tmp_path: Path, error: type[Exception]
) -> None:
    """Of a remote storage, for instance."""

    class Remote(ToyImages):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise error("by peer")

    with pytest.raises(error, match="by peer"):
        list(batches(DataLoader(Remote(), num_workers=1)))


def test_sampler_without_end__goes_on_at_the_missing_batch(tmp_path: Path) -> None:
    config = failing(tmp_path, signal.SIGKILL, timeout=2)
    config["sampler"] = dict(type="InfiniteSampler", shuffle=True, seed=1)
    runner = make_runner(tmp_path, train_dataloader=failing(tmp_path, 0))
    data = runner.build_dataloader(config)
    wanted = InfiniteSampler(data.dataset, shuffle=True, seed=1)
    order = [index for index, _ in zip(wanted, range(20), strict=False)]
    seen: list[int] = []
    for batch in batches(data):
        seen += batch["data_samples"]["sample_idx"].tolist()
        if len(seen) == 20:
            break
    assert seen == order
    assert (tmp_path / "0.flag").exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_fails_in_a_validation__is_replaced(
    tmp_path: Path, signum: signal.Signals
) -> None:
    model = dict(
        type="ImageClassifier",
        backbone=dict(type="VisionTransformer", arch=ARCH, img_size=8, patch_size=4),
        head=dict(type="LinearClsHead", num_classes=3, in_channels=16),
        data_preprocessor=dict(num_classes=3),
    )
    metrics = []
    for name, sent in (("plain", 0), ("failing", signum)):
        folder = tmp_path / name
        folder.mkdir()
        data = failing(folder, sent, timeout=2, labelled=True)
        runner = make_runner(
            folder,
            model=model,
            val_dataloader=data | dict(collate_fn=dict(type="pseudo_collate")),
            val_cfg=dict(type="WatchedValLoop"),
            val_evaluator=dict(type="Accuracy"),
        )
        torch.manual_seed(0)
        runner.model.init_weights()
        metrics.append(runner.val())
        assert isinstance(runner.val_loop.dataloader, DataLoader)
        assert (folder / "0.flag").exists() is bool(sent)
    assert metrics[0] == metrics[1] and metrics[0]
