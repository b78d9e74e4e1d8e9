"""What is logged goes to the disk, if there is space."""

import json
import os
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mim_plugins.visualization import BestEffortVisBackend


def test_full_disk__loses_values_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "log", lambda level, message: warnings.append(message))
    backend = BestEffortVisBackend(str(tmp_path))
    file = tmp_path / "scalars.json"
    backend.add_scalars({"loss": 1.0}, step=1)
    os.rename(file, tmp_path / "kept")
    file.symlink_to("/dev/full")
    backend.add_scalars({"loss": 2.0}, step=2)
    backend.add_scalars({"loss": 3.0}, step=3)
    said = [x for x in warnings if "cannot" in x]
    assert len(said) == 1
    assert "scalars.json cannot be written: No space left on device" in said[0]
    os.replace(tmp_path / "kept", file)
    backend.add_scalars({"loss": 4.0}, step=4)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 4]
