"""What the demo shows on the terminal, while a file gets every line."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Shows stages, progress and losses on the terminal alone; a file gets everything.

    Args:
        log: The file that takes log lines and warnings.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        stream = _Terminal(sys.stdout, file)
        with redirect_stdout(stream), redirect_stderr(stream):
            try:
                yield
            finally:
                stream.begin(0, 1)
                stream.log = None


def announce(stage: str, epochs: int = 0, every: int = 1) -> None:
    """Prints a stage of the demo, inside :func:`quiet` on the terminal.

    Args:
        stage: What begins.
        epochs: How many epochs it has, for a progress bar; 0 for none.
        every: Epochs between two lines with the loss, where there is no terminal.
    """
    stream: Any = sys.stdout
    if isinstance(stream, _Terminal):
        stream.begin(0, every)  # the bar before ends above the line
    print(stage, file=getattr(stream, "terminal", stream), flush=True)
    if isinstance(stream, _Terminal):
        stream.begin(epochs, every)
        if stream.log is not None:
            print(stage, file=stream.log, flush=True)


class _Terminal(io.TextIOBase):
    """A stream that passes on epochs and losses, and writes everything to a file.

    On a terminal they are shown as a progress bar, elsewhere as lines. Loggers keep the
    stream; once the file is closed it passes on everything.
    """

    _EPOCH = re.compile(r"Epoch\(train\)\s+\[\s*(\d+)\].*\bloss: ([\d.]+|nan|inf)")

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal = terminal
        self.log: TextIO | None = log
        self.every = 1
        self._bar: Progress | None = None

    def begin(self, epochs: int, every: int) -> None:
        """Ends the bar there is, and begins one of so many epochs, unless it is 0."""
        self.every = every
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if epochs and self.terminal.isatty():
            self._bar = Progress(
                TextColumn("  epoch"),
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]}"),
                console=Console(file=self.terminal),
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task("", total=epochs, loss="")
            self._bar.start()

    def write(self, text: str) -> int:
        if self.log is None:
            return self.terminal.write(text)
        for epoch, loss in self._EPOCH.findall(text):
            if self._bar is not None:
                task = self._bar.task_ids[0]
                done = int(epoch)
                self._bar.update(
                    task, completed=done, loss=f"loss {loss}", refresh=True
                )
            elif int(epoch) % self.every == 0:
                self.terminal.write(f"  epoch {epoch:>4}  loss {loss}\n")
                self.terminal.flush()
        return self.log.write(text)

    def flush(self) -> None:
        (self.log or self.terminal).flush()
