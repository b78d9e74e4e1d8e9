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
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

# Columns of the bar, and of a remaining time of up to 99 hours.
_BAR = 10
_TIME = 8


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
    """Shows progress, remaining time, losses and images/s on a terminal, in one line.

    The losses of the levels are left out where the terminal is not wide enough.

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
            BarColumn(bar_width=_BAR, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("ETA", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
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
            figures=self._figures(runner, self._width(runner)),
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
            if isinstance(handler, logging.StreamHandler)
            and not isinstance(handler, logging.FileHandler)
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

    def _width(self, runner: Runner) -> int:
        """Columns of the terminal that are left for the figures."""
        assert self._progress is not None
        count = 2 * len(str(runner.max_iters)) + 1
        fixed = (len(self._description(runner)), _BAR, count, len("ETA"), _TIME)
        return self._progress.console.width - sum(fixed) - len(fixed)

    @staticmethod
    def _figures(runner: Runner, width: int) -> str:
        """Return the loss and the speed logged last, then more losses as they fit."""
        figures = {}
        for key, history in runner.message_hub.log_scalars.items():
            name = key.removeprefix("train/")
            if name == key:
                continue
            if "loss" in name:
                figures[name] = f"{name} {history.current():.4f}"
            elif name == "images_per_s":
                figures[name] = f"{history.current():.0f} img/s"
        line = ""
        for name in sorted(figures, key=lambda x: x not in ("loss", "images_per_s")):
            longer = f"{line}  {figures[name]}".strip()
            if len(longer) > width:
                break
            line = longer
        return line
