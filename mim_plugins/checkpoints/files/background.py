"""Writes checkpoints in a thread, and tries again what could not be written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from mmengine.logging import print_log

from .atomic import write_atomically
from .sealing import save_sealed

# Seconds after which a file is tried again that could not be written.
RETRY_AFTER = 60.0


@dataclass(frozen=True)
class Save:
    """A file to be written.

    Args:
        path: The file. Its folder is created if need be.
        content: What it will hold; nobody else may change it.
        written: Called when it is complete.
    """

    path: Path
    content: Any
    written: Callable[[Path], None]


class BackgroundWriter:
    """Writes one file at a time while training goes on.

    A file that cannot be written stays in memory and is tried again, until a newer one
    of its kind takes its place. The thread is waited for when Python exits.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failed: dict[str, Save] = {}
        self._retry_at = 0.0
        self._error: Exception | None = None

    def submit(self, kind: str, save: Save) -> None:
        """Starts to write a file, after the one before is complete.

        Args:
            kind: What the file is. Of each kind only the newest is tried again.
            save: The file.
        """
        self.wait()
        self._start({**self._failed, kind: save})

    def retry(self, now: bool = False) -> None:
        """Tries again what could not be written, once a minute.

        Args:
            now: Whether to try whatever the time.
        """
        if self._failed and (now or time.monotonic() > self._retry_at):
            self.wait()
            self._start(dict(self._failed))

    def wait(self) -> list[Path]:
        """Waits until nothing is being written.

        Returns:
            The files that could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return [save.path for save in self._failed.values()]

    def _start(self, saves: dict[str, Save]) -> None:
        self._retry_at = float("inf")
        self._thread = Thread(target=self._write, args=(saves,), name="checkpoint")
        self._thread.start()

    def _write(self, saves: dict[str, Save]) -> None:
        failed = {}
        for kind, save in saves.items():
            try:
                save.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(save.path, partial(save_sealed, save.content))
            except (OSError, ValueError) as error:
                failed[kind] = save
                _warn(
                    f"{error}. Training goes on, older checkpoints are kept, and it is "
                    f"tried again in {RETRY_AFTER:.0f} s and with the next checkpoint"
                )
            except Exception as error:  # raised where it is waited for
                self._error = error
            else:
                try:
                    save.written(save.path)
                except (OSError, ValueError) as error:
                    _warn(f"after {save.path} was written: {error}")
        self._failed = failed
        self._retry_at = time.monotonic() + RETRY_AFTER


def _warn(message: str) -> None:
    print_log(message, logger="current", level=logging.WARNING)
