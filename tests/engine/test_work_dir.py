"""Tests of the lock of a working directory."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from mim_plugins.engine.resuming import work_dir
from mim_plugins.engine.resuming.work_dir import launched_at, mark_launch, only_run


def hold(folder: Path, said: int) -> None:
    """A run, with a loading worker that outlives it for a while."""
    os.setsid()
    with only_run(folder):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        os.write(said, b"locked")
        time.sleep(60)


def test_second_run__is_refused_until_the_first_ends_or_is_killed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a" / "b"
    said, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            hold(folder, says)
        finally:
            os._exit(1)
    try:
        assert os.read(said, 6) == b"locked"
        message = rf"used by another run, process {pid} on {socket.gethostname()}.*--wo"
        with pytest.raises(ValueError, match=message):
            with only_run(folder):
                pass
        # The other processes of that run come by as well.
        os.environ["RANK"] = "1"
        with only_run(folder, "pytorch"):
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with only_run(folder):
            pass
    finally:
        os.environ.pop("RANK", None)
        os.killpg(pid, signal.SIGKILL)
    assert (folder / ".lock").read_text() == ""


@pytest.mark.parametrize("alive", [True, False])
def test_run_of_another_host__is_dead_if_it_gives_no_sign_of_life(
    tmp_path: Path, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_dir, "_WAIT", 1.0)
    lock = tmp_path / ".lock"
    lock.write_text("elsewhere 17\n")
    ended = threading.Event()

    def touch() -> None:
        while alive and not ended.wait(0.05):
            os.utime(lock)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        if alive:
            with pytest.raises(ValueError, match="process 17 on elsewhere"):
                with only_run(tmp_path):
                    pass
            assert lock.read_text() == "elsewhere 17\n"
        else:
            with only_run(tmp_path):
                assert lock.read_text().split()[1] == str(os.getpid())
    finally:
        ended.set()
        thread.join()


def test_run__gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_dir, "_BEAT", 0.02)
    with only_run(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        time.sleep(0.3)
        assert (tmp_path / ".lock").stat().st_mtime > 0


def test_folder_that_cannot_be_written__is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/run, where .* cannot be written: Not"):
        with only_run(tmp_path / "file" / "run"):
            pass


def test_launch__is_known_to_its_further_attempts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_launch(tmp_path)  # of a process that nothing starts again
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched_at(tmp_path) is None
    mark_launch(tmp_path)
    os.utime(tmp_path / ".launch", (10, 10))
    mark_launch(tmp_path)  # in the next attempt
    assert launched_at(tmp_path) == 10
    # Another torchrun has the same id, and in a container the same number.
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launched_at(tmp_path) is None
    monkeypatch.setenv("MIM_PLUGINS_LAUNCH", "slurm 17")
    assert launched_at(tmp_path) is None
    mark_launch(tmp_path)
    assert launched_at(tmp_path) is not None


def test_launch_mark__that_cannot_be_read_or_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIM_PLUGINS_LAUNCH", "slurm 17")
    (tmp_path / ".launch").mkdir()
    mark_launch(tmp_path)
    assert launched_at(tmp_path) is None
