"""Signals that end a run: it saves first, and says how to go on."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

# Exit codes: a scheduler's USR1 announces the end of the time, and the job is to be
# queued again, which is no failure.
EXIT_CODES = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    signal.SIGUSR1: 0,
}

#: Left in the working directory, for tools/slurm_train.sh, by what gets a SIGUSR1.
REQUEUE = "requeue"

# torchrun passes on what the terminal has already sent: that is no second Ctrl-C.
_SAME_SECONDS = 0.5

_POLL_SECONDS = 0.2

# How long a run that has not begun may take to end.
_PATIENCE_SECONDS = 10.0


class Interrupted(SystemExit):
    """A signal has ended the run; ``code`` is the exit code.

    Args:
        number: The signal.
        lost: Whether what there was to save could not be saved, which is a failure
            after any signal.
    """

    def __init__(self, number: int, lost: bool = False) -> None:
        self.signal = signal.Signals(number)
        super().__init__(EXIT_CODES[self.signal] or int(lost))


class SignalWatch:
    """Notes SIGTERM, SIGINT and SIGUSR1, for the training to end between two steps.

    The signals are blocked, and a thread waits for them: loading workers, which inherit
    that, load on when a terminal or a scheduler signals all processes. Before the
    first step, a signal raises :class:`Interrupted` in the main thread at once. A
    second Ctrl-C ends the process.

    A SIGUSR1 leaves the file ``requeue`` in the working directory, in whichever process
    and whenever it comes, since a scheduler may signal the processes alone.

    To be used as a context in the main thread; in others, and nested, it does nothing.

    Args:
        work_dir: The run's folder, if it is known already.
    """

    _active = False

    def __init__(self, work_dir: str | Path | None = None) -> None:
        #: The run's folder.
        self.work_dir = work_dir
        #: The first signal, or 0.
        self.received = 0
        #: Whether a step has begun, so that there is something to save.
        self.training = False
        self._since = 0.0
        self._asked = self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> SignalWatch:
        """Begin to watch."""
        in_main = threading.current_thread() is threading.main_thread()
        if SignalWatch._active or not in_main:
            return self
        SignalWatch._active = True
        self._children = set(multiprocessing.active_children())
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
        # For threads that were there before, and for the one that raises.
        self._handlers = {
            number: signal.signal(number, self._handle) for number in EXIT_CODES
        }
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the watch, and workers that nobody else has ended."""
        if self._thread is None:
            return
        self._ended = True
        self._thread.join()
        # They do not see a SIGTERM, with which Python would end them.
        _kill(set(multiprocessing.active_children()) - self._children)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        SignalWatch._active = False

    def _wait(self) -> None:
        while not self._ended:
            found = signal.sigtimedwait(EXIT_CODES, _POLL_SECONDS)
            # Python fills in nothing where another signal interrupts the end of a wait.
            if found is not None and found.si_signo in EXIT_CODES:
                self._receive(found.si_signo)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs in the main thread."""
        if self._asked:
            self._asked = False
            raise Interrupted(self.received)
        self._receive(number)

    def _receive(self, number: int) -> None:
        now, name = time.monotonic(), signal.Signals(number).name
        if self.received:
            if number == signal.SIGINT and now - self._since > _SAME_SECONDS:
                _say("a second Ctrl-C: ends at once")
                self._leave()
            return
        self.received, self._since = number, now
        if number == signal.SIGUSR1 and self.work_dir is not None:
            with suppress(OSError):
                Path(self.work_dir).mkdir(parents=True, exist_ok=True)
                Path(self.work_dir, REQUEUE).touch()
        if self.training:
            _say(f"{name}: ends after this iteration, with a checkpoint")
            return
        _say(f"{name} before the first step: ends, nothing is lost")
        self._asked = True
        _thread.interrupt_main(signal.Signals(number))
        # The main thread may wait for other processes; a second signal ends that, too.
        time.sleep(_SAME_SECONDS)
        signal.sigtimedwait(EXIT_CODES, 0)
        limit = now + _PATIENCE_SECONDS
        while self._asked and time.monotonic() < limit:
            if signal.sigtimedwait(EXIT_CODES, _POLL_SECONDS):
                break
        if self._asked:
            self._leave()

    def _leave(self) -> None:
        _kill(set(multiprocessing.active_children()) - self._children)
        os._exit(EXIT_CODES[signal.Signals(self.received)])


def say_to_launcher(state: str) -> None:
    """Says to tools/dist_train.sh how a run is.

    What torchrun returns after a signal is the same, whatever has become of the
    processes.

    Args:
        state: ``training`` while there is something to lose, ``stopped`` once it is
            saved.
    """
    if file := os.environ.get("MIM_PLUGINS_STATE"):
        with suppress(OSError):
            Path(file).write_text(f"{state}\n")


def _kill(children: set[Any]) -> None:
    for child in children:
        child.kill()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
