"""Tests of logs on a full disk."""

import logging
from pathlib import Path

import pytest

from mim_plugins.engine.running.log_files import keep_logging


def logger_with(*handlers: logging.Handler) -> logging.Logger:
    logger = logging.Logger("run")
    for handler in handlers:
        handler.setFormatter(logging.Formatter("> %(message)s"))
        handler.setLevel(logging.INFO)
        logger.addHandler(handler)
    keep_logging(logger)
    return logger


def test_log_on_a_full_disk__says_so_once(capsys: pytest.CaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    logger = logger_with(
        logging.FileHandler(full), logging.StreamHandler(full.open("w"))
    )
    for _ in range(3):
        logger.info("loss")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("/dev/full cannot be written: No space left on device")


def test_log__is_as_before_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "run.log"
    path.write_text("before\n")
    logger = logger_with(logging.FileHandler(path))
    logger.info("loss")
    logger.debug("nothing")
    assert path.read_text() == "before\n> loss\n"
    logger.info("%d", "no number")  # a mistake in the program
    assert "Logging error" in capsys.readouterr().err
