"""Writes files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

# A partial file of another host is taken for abandoned after this many seconds.
_ABANDONED = 86_400

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Writes a file next to its destination, syncs it, and then moves it there.

    What earlier attempts left there when their process was killed is removed.

    Args:
        path: Its destination. A file there stays until the new one is complete.
        write: Writes a file at the path it is given.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If it cannot be written, naming the file and the reason.
        ValueError: If something other than a regular file is there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write to")
    if problem := not_regular(path):
        raise ValueError(f"{path} is {problem}: give the name of the file to write")
    remove_leftovers(path.parent, path.stem, path.suffix)
    partial = path.with_name(f".{path.stem}.{writer_tag()}{path.suffix}")
    try:
        write(partial)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except Exception as error:
        reason = _system_error(error)
        if reason is None and shutil.disk_usage(path.parent).free < 1 << 16:
            reason = "No space left on device"  # libraries in C++ only say it failed
        if reason is None:
            raise
        raise OSError(f"{path} cannot be written: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def writer_tag() -> str:
    """What names of unfinished files of this process contain."""
    return f"{_HOST}.{os.getpid()}"


def remove_leftovers(
    folder: Path, stem: str | None, suffix: str, of_others: bool = False
) -> None:
    """Removes unfinished files whose writer was killed.

    Args:
        folder: Where they are.
        stem: What their names have after the dot they begin with; None for any.
        suffix: How their names end.
        of_others: Whether those of other hosts are removed before they are a day old.
    """
    beginning = ".+?" if stem is None else re.escape(stem)
    name = re.compile(rf"\.{beginning}\.([\w-]+)\.(\d+){re.escape(suffix)}")
    for path in list(folder.iterdir()):
        match = name.fullmatch(path.name)
        if match is None or (match[1] == _HOST and _is_alive(int(match[2]))):
            continue
        with contextlib.suppress(OSError):
            age = time.time() - path.lstat().st_mtime
            if match[1] != _HOST and not of_others and age < _ABANDONED:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def not_regular(path: Path) -> str | None:
    """What is at a path, to follow *it is*, unless a regular file or nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return None if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a device")


def readable(size: float) -> str:
    """A human-readable number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _system_error(error: BaseException | None) -> str | None:
    """Why the system refused, if that is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            about = f" ({error.filename})" if error.filename else ""
            return f"{error.strerror}{about}"
        error = error.__cause__ or error.__context__
    return None


def sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
