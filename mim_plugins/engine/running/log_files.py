"""Logs that a full disk shortens, and does not fill with tracebacks."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress


def keep_logging(logger: logging.Logger) -> None:
    """Have a logger pass over lines that cannot be written, after saying so once.

    Python's handlers print a traceback for each of them. What a file could not take is
    written when there is space again.

    Args:
        logger: The logger of a run, whose handlers are replaced.
    """
    for handler in list(logger.handlers):
        if type(handler) is logging.FileHandler:
            better: logging.Handler = _File(handler.baseFilename)
        elif type(handler) is logging.StreamHandler:
            better = _Stream(handler.stream)
        else:
            continue
        better.setLevel(handler.level)
        better.setFormatter(handler.formatter)
        for each in handler.filters:
            better.addFilter(each)
        logger.removeHandler(handler)
        logger.addHandler(better)
        handler.close()


class _SaysOnce(logging.Handler):
    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if not self._said:
            self._said = True
            where = getattr(self, "baseFilename", "the output")
            with suppress(OSError):
                print(
                    f"{where} cannot be written: {error.strerror}. Lines of the log "
                    "may be missing; training goes on",
                    file=sys.stderr,
                )


class _File(_SaysOnce, logging.FileHandler):
    pass


class _Stream(_SaysOnce, logging.StreamHandler):
    pass
