"""A progress bar on terminals."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from typing import Any, TextIO

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


class _AboveTheBar:
    """A text stream whose lines appear above a live progress bar.

    Text is passed on line by line. Forked data loading workers inherit this object but
    write to the original stream: the bar belongs to the parent process.
    """

    def __init__(self, console: Console, original: TextIO) -> None:
        self.original = original
        self._console = console
        self._owner = os.getpid()
        self._rest = ""

    def write(self, text: str) -> int:
        if os.getpid() != self._owner:
            return self.original.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(Text.from_ansi(line), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self.original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows progress, remaining time, losses and images/s on a terminal.

    The bar is drawn by the first process, and only if its standard output is a
    terminal; in a file or a pipe there are the plain log lines and nothing else. Log
    lines, prints and warnings appear above the bar. The bar is redrawn by the training
    process itself, without a thread, so that forking loading workers is safe.

    Args:
        refresh: Minimum time between two updates, in seconds.
        console: Where to draw, for tests; None is the standard output.
    """

    # After everything that provides what the bar shows.
    priority = "LOWEST"

    def __init__(self, refresh: float = 0.2, console: Console | None = None) -> None:
        self.refresh = refresh
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._drawn = 0.0
        self._streams: list[tuple[Any, str, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Show the bar.

        Args:
            runner: The runner of the training process.
        """
        if runner.rank != 0 or (self._console is None and not sys.stdout.isatty()):
            return
        # The console keeps the stream of now: sys.stdout itself is replaced below.
        console = self._console or Console(file=sys.stdout)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("ETA", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # On a narrow terminal only the figures wrap to the next line.
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=False)),
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(
            self._description(runner),
            total=runner.max_iters,
            completed=runner.iter,
            figures="",
        )
        self._redirect(runner.logger, console)
        self._progress.start()
        # A crash must not leave the terminal without its cursor.
        atexit.register(self.close)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the bar.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: Not used.
            outputs: Not used; reading them would wait for the device.
        """
        if self._progress is None:
            return
        done = runner.iter + 1
        now = time.monotonic()
        if now - self._drawn < self.refresh and done != runner.max_iters:
            return
        self._drawn = now
        self._progress.update(
            self._task,
            completed=done,
            description=self._description(runner),
            figures=self._figures(runner),
            refresh=True,
        )

    def after_train(self, runner: Runner) -> None:
        """Remove the bar.

        Args:
            runner: The runner of the training process.
        """
        self.close()

    def close(self) -> None:
        """Take the bar down and restore the streams; safe to call twice."""
        if self._progress is None:
            return
        self._progress.stop()
        self._progress = None
        for owner, name, stream in self._streams:
            setattr(owner, name, stream)
        self._streams.clear()
        atexit.unregister(self.close)

    def _redirect(self, logger: logging.Logger, console: Console) -> None:
        places: list[tuple[Any, str]] = [
            (handler, "stream")
            for handler in logger.handlers
            if type(handler) is logging.StreamHandler
        ]
        places += [(sys, "stdout"), (sys, "stderr")]
        for owner, name in places:
            stream = getattr(owner, name)
            self._streams.append((owner, name, stream))
            setattr(owner, name, _AboveTheBar(console, stream))

    @staticmethod
    def _description(runner: Runner) -> str:
        if runner.max_epochs > 1:
            epoch = min(runner.epoch + 1, runner.max_epochs)
            return f"epoch {epoch}/{runner.max_epochs}"
        return "training"

    @staticmethod
    def _figures(runner: Runner) -> str:
        """Return the losses and the speed that were logged last."""
        figures = []
        for key, history in runner.message_hub.log_scalars.items():
            if not key.startswith("train/"):
                continue
            name = key.removeprefix("train/")
            if "loss" in name:
                figures.append(f"{name} {history.current():.4f}")
            elif name == "images_per_s":
                figures.append(f"{history.current():.0f} img/s")
        return "  ".join(figures)
