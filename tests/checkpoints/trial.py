"""Reads files that may be hostile, each under watch, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from malformed_files import MAY_BE_READ, Maker

from mim_plugins.checkpoints import convert, read

SECONDS = 5  # of one file, on the processor
MEGABYTES = 160  # beyond six times its size

# Archives, whose checksums show every change of their tensors.
CHECKED = ("weights.pth", "script.pt")

# What nothing that only reads has to do.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.mkdir",
    "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "shutil.",
    "subprocess.", "pickle.find_class", "pty.", "ctypes.dlopen", "socket.", "urllib.",
    "webbrowser.", "code.__new__", "tempfile.",
)  # fmt: skip


class Outcome(NamedTuple):
    """What reading a file did."""

    kind: str
    result: str  # refused or read; LARGE or ended wastes memory or time
    message: str
    seconds: float
    megabytes: float


def try_all(files: Sequence[tuple[str, Path]], maker: Maker) -> list[Outcome]:
    """Reads files, and goes on behind one that takes the process with it."""
    originals = {}
    for name in CHECKED:
        path = maker.folder / f"original_{name}"
        path.write_bytes(maker.whole[name])
        originals[name] = read(path).tensors
    outcomes: list[Outcome] = []
    while len(outcomes) < len(files):
        outcomes += _in_a_child(files[len(outcomes) :], maker.canary, originals)
    return outcomes


def _in_a_child(
    files: Sequence[tuple[str, Path]], canary: Path, originals: dict[str, Any]
) -> Iterator[Outcome]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            _watch_all(files, canary, originals, write)
        finally:
            os._exit(0)
    os.close(write)
    number = 0
    with open(read) as lines:
        for line in lines:
            number += 1
            yield Outcome(*json.loads(line))
    _, status = os.waitpid(child, 0)
    if number < len(files):
        kind, path = files[number]
        how = signal.Signals(status & 127).name if status & 127 else "an exit"
        message = f"{path.name} ended the process by {how}"
        yield Outcome(kind, "ended", message, SECONDS, 0)


def _watch_all(
    files: Sequence[tuple[str, Path]],
    canary: Path,
    originals: dict[str, Any],
    pipe: int,
) -> None:
    sys.path.insert(0, str(canary.parent))  # the module that leaves a trace
    seen: list[str] = []
    watching = [False]

    def hook(event: str, args: Any) -> None:
        writes = event == "open" and str(args[1])[:1] in ("w", "a", "x")
        if watching[0] and (writes or event.startswith(FORBIDDEN)):
            seen.append(f"{event} {args}"[:200])

    sys.addaudithook(hook)
    for kind, path in files:
        seen.clear()
        _forget_peak()
        before, start = _peak(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
        signal.alarm(12 * SECONDS)
        watching[0] = True
        result, message = _read(path, kind, originals)
        watching[0] = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        seconds, grown = time.process_time() - start, _peak() - before
        if grown > MEGABYTES + 6 * path.stat().st_size / 1e6:
            result, message = "LARGE", f"{path.name} took {grown:.0f} MB: {message}"
        if canary.exists() or seen:
            result, message = "RAN CODE", f"{path.name} ran code: {seen}"
        outcome = Outcome(kind, result, message, seconds, grown)
        os.write(pipe, json.dumps(outcome).encode() + b"\n")
        if canary.exists():
            canary.unlink()


def _read(path: Path, kind: str, originals: dict[str, Any]) -> tuple[str, str]:
    try:
        tensors = read(path).tensors
        original = originals.get(path.name.partition("_")[2])
        if not _may_be_read(kind, tensors, original):
            return "WRONG", f"{path.name} was read"
        for value in tensors.values():
            assert value.layout is torch.strided and value.device.type == "cpu"
            if value.numel():  # the last one is its own memory, or a fault
                value[(-1,) * value.ndim].item()
        try:
            convert(tensors, source=str(path))
        except ValueError as error:
            return _judged("read", path, str(error))
        return "read", f"{path.name}: {len(tensors)} tensors"
    except (ValueError, FileNotFoundError) as error:
        return _judged("refused", path, str(error))
    except BaseException as error:
        return "UNCLEAN", f"{path.name}: {type(error).__name__}: {str(error)[:300]}"


def _may_be_read(kind: str, tensors: dict, original: dict | None) -> bool:
    """Whether what was read is what was saved, or the kind of file may differ."""
    if original is not None and kind in ("archive", "bits", "bytes", "cut short"):
        return tensors.keys() == original.keys() and all(
            torch.equal(tensors[key], original[key]) for key in original
        )
    return kind in MAY_BE_READ


def _judged(result: str, path: Path, message: str) -> tuple[str, str]:
    if path.name not in message or len(message) > 1200 + len(str(path)):
        return "UNCLEAN", f"{path.name}: no clear message: {message[:300]}"
    return result, message


def _forget_peak() -> None:
    if os.access("/proc/self/clear_refs", os.W_OK):
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
        os.write(descriptor, b"5")
        os.close(descriptor)


def _peak() -> float:
    """The most memory there was since it was forgotten, in megabytes."""
    if os.path.exists("/proc/self/status"):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
