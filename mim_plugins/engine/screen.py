"""What a person sees of a run, while the log file gets every line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import sys
import time
from collections.abc import Sized
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.logging.logger import MMFormatter
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from .hooks.data_health import encoder_size
from .hooks.periodic import unwrapped
from .hooks.runtime_info import logger_interval

# Seconds between two lines with figures inside an epoch.
_PERIOD = 60.0

# Characters of a line, such as one with the rates of 60 parameter groups.
_MOST = 240

# What of mmengine's own log lines is news to a person; the rest is in the log file.
_NEWS = ("mmengine.hooks", "mmengine.evaluator")
_NO_NEWS = re.compile(r"Exp name|Checkpoints will be saved|Saving checkpoint|Text logs")

# The start of a line of LoggerHook: the epoch, and how much of it is done.
_FIGURES = re.compile(
    r"(?P<unit>Epoch|Iter)\((?P<mode>train|val|test)\)\s*"
    r"(?P<epoch>\[\d+\])?\[\s*(?P<done>\d+)/(?P<total>\d+)\]"
)
_FIGURE = re.compile(r"(\S+): ((?:\d+ days?, )?\S+)")
_TIMES = re.compile(r"\s+(data_)?time: [\d.]+")
_STEP = "  eta: "  # is in lines of a step, not in those of results
_FIRST = ("loss", "lr", "eta", "images_per_s")
_NOT_SHOWN = ("base_lr", "time", "data_time")


def runner_type(cfg: Config, verbose: bool = False) -> Any:
    """The runner class of a config, with a screen for people.

    The class is derived from the one that ``runner_type`` names, since a runner logs
    its environment and config while it is being built.

    Args:
        cfg: The config.
        verbose: Whether the screen is to show all that the log file gets.

    Raises:
        KeyError: If the class is not known.
    """
    name = cfg.get("runner_type", "Runner")
    with RUNNERS.switch_scope_and_registry(None) as registry:
        kind: Any = registry.get(name) if isinstance(name, str) else name
    if kind is None:
        raise KeyError(f"runner_type {name!r} is not registered; leave it out")
    if verbose:
        return kind

    class WithScreen(kind):
        def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
            logger = super().build_logger(*args, **kwargs)
            show(logger)
            return logger

        def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
            # mmengine prints where it reads, under its own name of our reader.
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    return super().load_checkpoint(*args, **kwargs)
            finally:
                for line in said.getvalue().splitlines():
                    if not line.startswith("Loads checkpoint by"):
                        print(line)

    WithScreen.__name__ = WithScreen.__qualname__ = kind.__name__
    return WithScreen


def show(logger: MMLogger) -> None:
    """Has a logger show on the screen what matters, and write everything to its file.

    Warnings and errors are shown, but for two warnings of mmengine: the one that
    repeats the keys which our own table has just listed, and the deprecation of a class
    that mmengine itself uses.

    Args:
        logger: The logger of a run.
    """
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            is_terminal = handler.stream.isatty()
            handler.setFormatter(ScreenFormatter(is_terminal))
            if not any(isinstance(x, ScreenFilter) for x in handler.filters):
                handler.addFilter(ScreenFilter(is_terminal))


def describe(runner: Runner) -> list[str]:
    """What is trained, on what, and where the result goes, in three lines.

    Args:
        runner: The runner, whose training loop is built.
    """
    loader: Any = runner.train_dataloader
    root = runner.cfg.get("data_root")
    count = f"{len(loader.dataset):,} " if isinstance(loader.dataset, Sized) else ""
    data = f"data: {count}training images"
    data += f" from {root}" if root else ""
    if getattr(loader, "batch_size", None):
        data += f", {loader.batch_size} per iteration"
        data += " and process" if runner.world_size > 1 else ""
    output = f"output: {runner.work_dir}"
    if runner.logger.log_file:
        output += f"; all log lines are in {runner.logger.log_file}"
    for handler in runner.logger.handlers:
        for shown in handler.filters:
            if isinstance(shown, ScreenFilter):
                shown.interval = logger_interval(runner)
    return [_describe_model(runner), data, output]


def _describe_model(runner: Runner) -> str:
    """Method, encoder and sizes; of a sharded model, not built yet, the config's."""
    if not isinstance(runner.model, nn.Module):
        return f"model: {runner.cfg.model.type}, sharded"
    model: Any = unwrapped(runner.model)
    line = f"model: {type(model).__name__}"
    if (backbone := getattr(model, "backbone", None)) is not None:
        line += f" with {type(backbone).__name__}"
        if (layers := getattr(backbone, "layers", None)) is not None:
            line += f" of {len(layers)} blocks"
    line += f", {sum(x.numel() for x in model.parameters()) / 1e6:.1f} M parameters"
    if (size := encoder_size(backbone)) is not None:
        line += f", images of {size[0]}x{size[1]} pixels"
    return line


class ScreenFilter(logging.Filter):
    """Lets through what a person wants to see of a run.

    Figures are shown at the end of every epoch. Inside an epoch they are on the
    progress bar of a terminal; without a terminal, and in runs by iterations, the first
    ones and those of every minute are shown.

    Args:
        is_terminal: Whether there is a progress bar.
    """

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.interval = 1
        self._shown_at: float | None = None
        self._has_table = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown.

        Args:
            record: What is logged.
        """
        text, speaker = record.getMessage(), _speaker()
        had_table, self._has_table = self._has_table, False
        if record.levelno >= logging.WARNING:
            repeats = had_table and speaker == "mmengine.runner.checkpoint"
            return not (
                (repeats and "do not match exactly" in text)
                or (speaker == "mmengine.fileio.file_client" and "deprecated" in text)
            )
        if speaker.startswith("mim_plugins.checkpoints.loading"):
            self._has_table = text.startswith(("loaded\n", "converted on load\n"))
        if figures := _FIGURES.match(text):
            return self._is_due(figures, is_step=_STEP in text)
        if not speaker.startswith("mmengine."):
            return True
        return speaker.startswith(_NEWS) and not _NO_NEWS.match(text)

    def _is_due(self, figures: re.Match[str], is_step: bool) -> bool:
        """Whether figures are shown; of a validation, those of a step are not."""
        now, mode = time.monotonic(), figures["mode"]
        if mode != "train" and not is_step:
            return True
        ends = int(figures["done"]) + self.interval > int(figures["total"])
        waited = self._shown_at is None or now - self._shown_at >= _PERIOD
        by_time = not self.is_terminal or figures["unit"] == "Iter"
        if (ends and mode == "train") or (waited and by_time):
            self._shown_at = now
            return True
        return False


class ScreenFormatter(MMFormatter):
    """Formats a line for a person: the time only where the output is kept, in a file.

    Args:
        is_terminal: Whether lines of figures have to fit the width of a terminal, and
            may be coloured.
    """

    def __init__(self, is_terminal: bool) -> None:
        super().__init__(color=is_terminal, datefmt="%m/%d %H:%M:%S")
        self.is_terminal = is_terminal
        when = "" if is_terminal else "%(asctime)s  "
        levels = dict(info="", debug="DEBUG", warn="WARNING", err="ERROR")
        for name, level in levels.items():
            prefix = f"{self._get_prefix(level, is_terminal)}: " if level else ""
            setattr(self, f"{name}_format", f"{when}{prefix}%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line.

        Args:
            record: What is logged.
        """
        text = record.getMessage()
        if (figures := _FIGURES.match(text)) and record.levelno == logging.INFO:
            width = shutil.get_terminal_size().columns if self.is_terminal else None
            record = logging.makeLogRecord(vars(record))
            record.msg, record.args = _in_short(text, figures, width), ()
        elif record.levelno == logging.INFO and _MOST < len(text) and "\n" not in text:
            record = logging.makeLogRecord(vars(record))
            record.msg, record.args = f"{text[:_MOST].rstrip()} …", ()
        return super().format(record)


def _in_short(text: str, figures: re.Match[str], width: int | None) -> str:
    """The figures of a line, the most important first, as many as fit.

    Results of a validation or a test are complete: they may be lists and tables.
    """
    if figures["mode"] != "train" and _STEP not in text:
        return _TIMES.sub("", text)
    found = dict(_FIGURE.findall(text[figures.end() :]))
    names = [name for name in _FIRST if name in found]
    names += [x for x in found if x not in (*_FIRST, *_NOT_SHOWN)]
    line = f"{figures['unit']}({figures['mode']}) {figures['epoch'] or ''}"
    line += f"[{figures['done']}/{figures['total']}]"
    for name in names:
        value = found[name]
        if name == "images_per_s":
            part = f"{float(value):.0f} images/s"
        elif name == "lr":
            part = f"lr: {float(value):.2e}"
        else:
            part = f"{name}: {value}"
        if width is not None and len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line


def _speaker() -> str:
    """The module whose code has called a logger, past mmengine's ``print_log``."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith(("logging", "mmengine.logging")):
            return name
        frame = frame.f_back
    return ""
