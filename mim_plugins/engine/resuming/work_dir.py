"""One run at a time in a working directory, and who has started it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.logging import MMLogger

from ..environment import launch_id, launched_rank

# Seconds between two signs of life, and how long one is waited for.
_BEAT = 15.0
_WAIT = 3 * _BEAT

_NAME = ".lock"

# Names the launch whose run has taken steps in a folder.
_LAUNCH = ".launch"


@contextmanager
def only_run(work_dir: str | Path, launcher: str = "none") -> Iterator[None]:
    """Keeps other runs out of a working directory.

    The first process of a run locks a file in it, in which are its host and its id. The
    lock ends with the process, however it ends, and loading workers do not inherit it.
    As not every file system shares locks between hosts, the file is touched, too, and a
    run on another host counts as dead if for 45 seconds it is not.

    Args:
        work_dir: The folder; created if need be.
        launcher: Who started this process.

    Raises:
        ValueError: If a run is using it, or it cannot be written.
    """
    if launched_rank(launcher) > 0:
        yield
        return
    path = Path(work_dir, _NAME)
    ended = threading.Event()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        _lock(descriptor, path)
        threading.Thread(target=_beat, args=(descriptor, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def mark_launch(work_dir: str | Path) -> None:
    """Notes which launch trains in a working directory, when its first step is due.

    All processes of the run call it. Further attempts of the same launch leave the mark
    as it is.

    Args:
        work_dir: The folder, which this run has locked.
    """
    own = launch_id()
    if own is None:
        return
    # A launcher of its own on every machine.
    launches = sorted({name for name in all_gather_object(own) if name})
    if not is_main_process() or launched_at(work_dir) is not None:
        return
    try:
        Path(work_dir, _LAUNCH).write_text("\n".join(launches) + "\n")
    except OSError as error:
        MMLogger.get_current_instance().warning(
            f"{Path(work_dir, _LAUNCH)} cannot be written ({error.strerror}): if this "
            "run is started again, it needs --resume to go on"
        )


def launched_at(work_dir: str | Path) -> float | None:
    """When a run of this process's launch took its first step in a working directory.

    So an attempt that was refused, or failed before, does not count.

    Args:
        work_dir: The folder.

    Returns:
        In seconds, by the clock of the file system; None if it took none.
    """
    own, mark = launch_id(), Path(work_dir, _LAUNCH)
    try:
        if own is not None and own in mark.read_text().splitlines():
            return mark.stat().st_mtime
    except (OSError, ValueError):
        pass  # it is not there, or no file of ours
    return None


def _lock(descriptor: int, path: Path) -> None:
    """Locks a file, and writes into it who has locked it.

    To open and close it another time would end the lock.
    """
    host = socket.gethostname()
    holder = os.pread(descriptor, 300, 0).decode(errors="replace").split()
    if len(holder) == 2 and holder[0] != host and _is_touched(path):
        raise _in_use(path, holder)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _in_use(path, holder) from None
        # The file system has no locks.
        if len(holder) == 2 and holder[0] == host and _is_touched(path):
            raise _in_use(path, holder) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{host} {os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise _not_writable(path, error) from error


def _not_writable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{path.parent}, where this run's checkpoints go, cannot be written: "
        f"{error.strerror}. Name another folder with --work-dir DIR"
    )


def _in_use(path: Path, holder: list[str]) -> ValueError:
    who = f"process {holder[1]} on {holder[0]}" if len(holder) == 2 else "a process"
    return ValueError(
        f"{path.parent} is used by another run, {who}: wait for its end, or start "
        "this one in another folder with --work-dir DIR"
    )


def _is_touched(path: Path) -> bool:
    """Whether a run gives a sign of life."""
    deadline = time.monotonic() + _WAIT
    before = _touched_at(path)
    while time.monotonic() < deadline:
        time.sleep(min(1.0, _WAIT / 10))
        if _touched_at(path) != before:
            return True
    return False


def _touched_at(path: Path) -> int:
    # Opened each time: network file systems remember the times of files.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        try:
            os.utime(descriptor)
        except OSError:
            pass  # a full disk or a network that is down for a while
