"""Checkpoints are complete or not there, and older ones stay until they are."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from torch.multiprocessing import start_processes
from toy_run import make_runner

from mim_plugins.checkpoints.files import background, read_content
from mim_plugins.checkpoints.files.reading import read_meta, verify
from mim_plugins.engine.environment import connect_over_gloo, leave_processes
from mim_plugins.engine.hooks import AtomicCheckpointHook, StepEMAHook
from mim_plugins.engine.hooks import checkpoint as hook_module
from mim_plugins.engine.hooks.checkpoint import LostCheckpointError


def run(folder: Path, epochs: int = 3, hooks: Any = (), **options: Any) -> Runner:
    """A toy run of three iterations an epoch."""
    runner = build(folder, epochs, **options)
    for hook in hooks:
        runner.register_hook(hook, priority="LOWEST")
    runner.train()
    return runner


def build(folder: Path, epochs: int = 3, **options: Any) -> Runner:
    checkpoint = dict(type="AtomicCheckpointHook", interval=1) | options
    return make_runner(
        folder,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(
            runtime_info=dict(type="DeferredRuntimeInfoHook"),
            logger=dict(type="LoggerHook", interval=2),
            checkpoint=checkpoint,
        ),
    )


def names(folder: Path) -> set[str]:
    return {x.name for x in (folder / "work").iterdir() if x.suffix == ".pth"}


def log_of(runner: Runner) -> str:
    for handler in runner.logger.handlers:
        handler.flush()
    return next(Path(runner.log_dir).glob("*.log")).read_text()


def the_hook(runner: Runner) -> AtomicCheckpointHook:
    return next(x for x in runner.hooks if isinstance(x, AtomicCheckpointHook))


class Each(Hook):
    """Calls a function after each iteration."""

    def __init__(self, call: Callable[[Runner], None]) -> None:
        self.call = call

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.call(runner)


def test_checkpoints__hold_what_mmengines_hold(tmp_path: Path) -> None:
    run(tmp_path / "ours", max_keep_ckpts=2)
    assert names(tmp_path / "ours") == {"epoch_2.pth", "epoch_3.pth"}
    make_runner(
        tmp_path / "theirs", train_cfg=dict(by_epoch=True, max_epochs=3)
    ).train()
    path = tmp_path / "ours" / "work" / "epoch_3.pth"
    verify(path)
    pointer = tmp_path / "ours" / "work" / "last_checkpoint"
    assert pointer.read_text() == str(path)
    ours = read_content(path)
    theirs = read_content(tmp_path / "theirs" / "work" / "epoch_3.pth")
    assert ours.keys() == theirs.keys()
    assert ours["meta"].keys() == theirs["meta"].keys()
    assert (ours["meta"]["epoch"], ours["meta"]["iter"]) == (3, 9)
    assert ours["state_dict"]._metadata == theirs["state_dict"]._metadata
    for key, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], value)
    state, other = (x["optimizer"]["state"] for x in (ours, theirs))
    for key, values in other.items():
        assert all(torch.equal(state[key][x], values[x]) for x in values)


def test_training__does_not_change_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on while the file is written."""
    iterations: list[int] = []
    write = background.write_atomically

    def slow(path: Path, save: Any) -> None:
        if path.name == "epoch_1.pth":
            deadline = time.monotonic() + 20
            while len(iterations) < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
        write(path, save)

    monkeypatch.setattr(background, "write_atomically", slow)
    run(tmp_path / "a", 2, [Each(lambda runner: iterations.append(runner.iter))])
    monkeypatch.undo()
    run(tmp_path / "b", 2)
    first, second = (
        read_content(tmp_path / x / "work" / "epoch_1.pth") for x in ("a", "b")
    )
    for key, value in second["state_dict"].items():
        assert torch.equal(first["state_dict"][key], value)
    assert first["optimizer"]["state"][0]["step"] == 3
    assert torch.equal(
        first["optimizer"]["state"][0]["exp_avg"],
        second["optimizer"]["state"][0]["exp_avg"],
    )


def test_failed_saves__keep_older_files_and_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    save = background.save_sealed

    def save_on_full_disk(content: Any, path: Path) -> None:
        if full and "epoch_1" not in path.name:
            path.write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        save(content, path)

    def watch(runner: Runner) -> None:
        nonlocal full
        the_hook(runner)._writer.wait()
        if runner.iter == 7:  # in the third epoch
            assert names(tmp_path) == {"epoch_1.pth"}
            full = False
            monkeypatch.setattr(background, "RETRY_AFTER", 0)
            the_hook(runner)._writer._retry_at = 0
        if runner.iter == 8:
            assert names(tmp_path) == {"epoch_2.pth"}

    monkeypatch.setattr(background, "save_sealed", save_on_full_disk)
    runner = run(tmp_path, 3, [Each(watch)], max_keep_ckpts=1)
    assert names(tmp_path) == {"epoch_3.pth"}
    assert not list((tmp_path / "work").glob(".*.pth"))
    log = log_of(runner)
    assert "epoch_2.pth cannot be written: No space left on device" in log
    assert log.count("cannot be written") == 1


def test_last_checkpoint__that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Whatever is in its place: here a named pipe, which is not replaced either."""
    (tmp_path / "work").mkdir()
    os.mkfifo(tmp_path / "work" / "epoch_2.pth")
    with pytest.raises(LostCheckpointError, match=r"epoch_2\.pth could not be written"):
        run(tmp_path, 2)
    assert (tmp_path / "work" / "epoch_2.pth").is_fifo()
    verify(tmp_path / "work" / "epoch_1.pth")


def test_folder_that_vanishes__is_made_again(tmp_path: Path) -> None:
    def remove(runner: Runner) -> None:
        if runner.iter == 4:
            the_hook(runner)._writer.wait()
            shutil.rmtree(tmp_path / "out")

    run(tmp_path, 3, [Each(remove)], out_dir=str(tmp_path / "out"))
    verify(tmp_path / "out" / "work" / "epoch_3.pth")


def test_unfinished_files__of_killed_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for name in (".epoch_1.elsewhere.17.pth", "epoch_1.pth.partial"):
        (tmp_path / "work" / name).write_text("half")
    run(tmp_path, 1)
    found = {x.name for x in (tmp_path / "work").iterdir() if x.is_file()}
    assert found == {"epoch_1.pth", "last_checkpoint"} | {
        x for x in found if x.endswith(".py")
    }


def test_by_time__checkpoints_are_saved_within_an_epoch(tmp_path: Path) -> None:
    def wait(runner: Runner) -> None:
        the_hook(runner)._writer.wait()
        if runner.iter in (1, 5):  # in the middle and at the end of an epoch
            the_hook(runner)._saved_at -= 3600

    runner = build(tmp_path, 3, interval=10, interval_minutes=30)
    runner.register_hook(Each(wait), priority="NORMAL")
    runner.train()
    assert names(tmp_path) == {"iter_2.pth", "epoch_2.pth", "epoch_3.pth"}
    meta = read_meta(tmp_path / "work" / "iter_2.pth")
    assert (meta["epoch"], meta["iter"]) == (0, 2)
    meta = read_meta(tmp_path / "work" / "epoch_2.pth")
    assert (meta["epoch"], meta["iter"]) == (2, 6)


def test_kept_checkpoints__are_the_newest_whatever_their_names(tmp_path: Path) -> None:
    def save(runner: Runner) -> None:
        if runner.iter == 4:
            path = the_hook(runner).save(runner, runner.iter + 1)
            assert path is not None and Path(path).name == "iter_5.pth"
            verify(path)

    run(tmp_path, 3, [Each(save)], max_keep_ckpts=2)
    assert names(tmp_path) == {"epoch_2.pth", "epoch_3.pth"}
    run(tmp_path / "b", 3, [Each(save)], max_keep_ckpts=3)
    assert names(tmp_path / "b") == {"iter_5.pth", "epoch_2.pth", "epoch_3.pth"}


@pytest.mark.parametrize("metrics", ["a", ["a", "b"]])
def test_best_checkpoint__is_replaced_when_the_new_one_is_written(
    tmp_path: Path, metrics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([1.0, 2.0, 1.5])
    seen: list[set[str]] = []
    save = background.save_sealed

    def note(content: Any, path: Path) -> None:
        seen.append(names(tmp_path))
        save(content, path)

    class Validate(Hook):
        priority = "LOWEST"

        def after_train_epoch(self, runner: Runner) -> None:
            score = next(scores)
            runner.train_loop._epoch += 1
            the_hook(runner).after_val_epoch(runner, {"a": score, "b": -score})
            runner.train_loop._epoch -= 1

    monkeypatch.setattr(background, "save_sealed", note)
    runner = build(tmp_path, save_best=metrics, rule="greater", max_keep_ckpts=1)
    runner.register_hook(Validate())
    runner.train()
    best = {"best_a_epoch_2.pth"}
    if isinstance(metrics, list):
        best |= {"best_b_epoch_1.pth"}
    assert names(tmp_path) == {"epoch_3.pth"} | best
    assert all(
        any(x.startswith("best_a") for x in found) for found in seen[len(best) + 2 :]
    )
    info = runner.message_hub.runtime_info
    name = "best_ckpt_a" if isinstance(metrics, list) else "best_ckpt"
    assert Path(info[name]).name == "best_a_epoch_2.pth"


def test_averaged_weights__are_saved_as_by_mmengine(tmp_path: Path) -> None:
    runner = build(tmp_path, 1)
    runner.register_hook(StepEMAHook(momentum=0.5))
    runner.train()
    saved = read_content(tmp_path / "work" / "epoch_1.pth")
    averaged = saved["ema_state_dict"]
    assert any(key.startswith("module.") for key in averaged)
    for key, value in runner.model.state_dict().items():
        assert torch.equal(averaged[f"module.{key}"], value)


def test_space__is_estimated_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = run(tmp_path, 3, max_keep_ckpts=2)
    line = next(x for x in log_of(runner).splitlines() if "checkpoints: about" in x)
    assert "2 are kept" in line and "are free" in line and "too little" not in line
    stated = float(line.split("about ")[1].split(" kB")[0]) * 1000
    size = (tmp_path / "work" / "epoch_3.pth").stat().st_size
    assert 0.5 * size < stated < size
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    runner = run(tmp_path / "b", 1)
    assert "too little" in log_of(runner)


def test_options__that_mean_nothing_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'every'"):
        AtomicCheckpointHook(every=2)
    with pytest.raises(ValueError, match="interval_minutes .* is positive"):
        AtomicCheckpointHook(interval_minutes=0)


def train_as(rank: int, port: int, folder: Path) -> None:
    """One of two processes, of which the first has the clock."""
    group = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in group.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    connect_over_gloo("pytorch")
    hook_module._AGREE_EVERY = 3

    def later(runner: Runner) -> None:
        if runner.iter == 0:
            the_hook(runner)._saved_at -= 3600 if rank == 0 else -3600

    runner = build(folder, 2, interval=10, interval_minutes=30)
    runner.register_hook(Each(later), priority="NORMAL")
    runner.train()
    last = runner.message_hub.get_info("last_ckpt")
    (folder / f"{rank}.txt").write_text(f"{last} {the_hook(runner)._captured}")
    leave_processes()


def test_by_time__all_processes_agree(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(train_as, (port, tmp_path), nprocs=2, start_method="fork")
    assert names(tmp_path) == {"iter_3.pth", "epoch_2.pth"}
    for rank in (0, 1):
        said = (tmp_path / f"{rank}.txt").read_text()
        assert said == f"{tmp_path}/work/epoch_2.pth None"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, stderr=-3).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_disk_that_fills_up__does_not_end_the_run(small_disk: Path) -> None:
    """Log files are on it as well."""

    def fill(runner: Runner) -> None:
        the_hook(runner)._writer.wait()
        if runner.iter == 4:
            with open(small_disk / "others", "wb", buffering=0) as file:
                with pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(bytes(4096))
        if runner.iter == 10:
            assert names(small_disk) == {"epoch_1.pth"}
            (small_disk / "others").unlink()

    runner = build(small_disk, 5, max_keep_ckpts=1)
    runner.visualizer._vis_backends["local"] = VISBACKENDS.build(
        dict(type="BestEffortVisBackend", save_dir=f"{runner.log_dir}/vis_data")
    )
    runner.register_hook(Each(fill), priority="LOWEST")
    runner.train()
    assert names(small_disk) == {"epoch_5.pth"}
    verify(small_disk / "work" / "epoch_5.pth")
    scalars = next(small_disk.glob("work/*/vis_data/scalars.json"))
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert lines[0]["step"] == 2 and lines[-1]["step"] == 14


@pytest.mark.parametrize("victim, left", [("epoch_1", set()), ("epoch_3", {"epoch_2"})])
def test_kill_during_a_save__leaves_the_checkpoint_before(
    tmp_path: Path, victim: str, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = background.save_sealed

    def die(content: Any, path: Path) -> None:
        save(content, path)
        if victim in path.name:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            monkeypatch.setattr(background, "save_sealed", die)
            run(tmp_path, 3, max_keep_ckpts=1)
        finally:
            os._exit(1)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    kept = {x for x in names(tmp_path) if not x.startswith(".")}
    assert kept == {f"{x}.pth" for x in left} and names(tmp_path) != kept
    for name in kept:
        verify(tmp_path / "work" / name)
    run(tmp_path, 1)
    assert names(tmp_path) == kept | {"epoch_1.pth"}
