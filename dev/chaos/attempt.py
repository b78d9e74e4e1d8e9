"""A training run in processes that are forked from this one, and can be killed."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket

import torch

from mim_plugins.engine import train

# Seconds after which a run that has not ended has hung.
LIMIT = 120.0

_POLL = 0.002


class Attempt:
    """One go at a run. What it imports was imported before, which takes seconds.

    To be used as a context, which leaves no process behind.

    Args:
        config: The config.
        work_dir: Its working directory; what it says is in ``NAME.txt`` next to the
            config.
        resume: As ``--resume``.
        processes: Number of processes.
    """

    def __init__(
        self, config: Path, work_dir: Path, resume: str | None, processes: int = 1
    ) -> None:
        self.work_dir = work_dir
        self.output = config.with_name(f"{work_dir.name}.txt")
        self.output.touch()
        self.codes: dict[int, int] = {}
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def call() -> None:
            launcher = "pytorch" if processes > 1 else "none"
            train(config, work_dir=str(work_dir), resume=resume, launcher=launcher)

        self.ranks = []
        for rank in range(processes):
            group = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes)
            variables = dict(group, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            self.ranks.append(
                fork(call, self.output, {k: str(v) for k, v in variables.items()})
            )

    def __enter__(self) -> Attempt:
        """Begin to look after it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Kill what is left."""
        self.kill()

    def running(self) -> bool:
        """Whether a process of training is left."""
        for pid in self.ranks:
            if pid not in self.codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) < len(self.ranks)

    def until(self, ready: Callable[[], object], limit: float = LIMIT) -> bool:
        """Wait for something.

        Args:
            ready: What to wait for.
            limit: Seconds to wait.

        Returns:
            Whether it came while the run was running.

        Raises:
            TimeoutError: If it did not, in this time.
        """
        end = time.monotonic() + limit
        while self.running():
            if ready():
                return True
            if time.monotonic() > end:
                for pid in self.ranks:
                    os.kill(pid, signal.SIGABRT)  # says where it is
                time.sleep(1)
                self.kill()
                raise TimeoutError(f"nothing happens: {self.said()[-4000:]}")
            time.sleep(_POLL)
        return False

    def finish(self) -> int:
        """Wait for the end.

        Returns:
            The exit code: the first that is not 0.
        """
        self.until(lambda: False)
        return next((code for code in self.codes.values() if code), 0)

    def partial_file(self) -> Path | None:
        """The checkpoint that this attempt is writing."""
        ending = f".{self.ranks[0]}.pth"
        found = (path for path in self.partial_files() if path.name.endswith(ending))
        return next(found, None)

    def partial_files(self) -> list[Path]:
        """Checkpoints that are, or were, being written, by earlier attempts, too."""
        return list(self.work_dir.glob(".*.pth"))

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that are there."""
        found = self.work_dir.glob("[!.]*.pth")
        return sorted(path.name for path in found)

    def said(self) -> str:
        """What was written to the terminal."""
        return self.output.read_text(errors="replace")

    def kill(self, draw: random.Random | None = None) -> None:
        """Kill everything, with SIGKILL.

        Args:
            draw: If given, it decides whether one process of training is killed some
                time before the others and before the loading workers, as by a system
                without memory.
        """
        if draw is not None and draw.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(self.ranks), signal.SIGKILL)
            time.sleep(draw.random())
        for pid in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            if pid not in self.codes:
                self.codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def workers(self) -> list[int]:
        """Process ids of the first process's loading workers."""
        rank = self.ranks[0]
        with contextlib.suppress(OSError):
            listed = Path(f"/proc/{rank}/task/{rank}/children").read_text()
            return [int(pid) for pid in listed.split()]
        return []


def fork(call: Callable[[], None], output: Path, variables: dict[str, str]) -> int:
    """Run something in a process and process group of its own.

    Args:
        call: What to run.
        output: A file to which what it says is appended.
        variables: Of its environment.

    Returns:
        Its process id.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # the child has done it
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        # Those of a test write somewhere else.
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        faulthandler.enable()
        os.environ.update(variables, OMP_NUM_THREADS="1")
        torch.set_num_threads(1)
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Without the destructors, which may wait for threads of gloo.
        os._exit(code)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Has a process wait for something to be done.

    Args:
        pid: The process.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
