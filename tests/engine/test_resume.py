"""Tests of finding the checkpoint to go on from."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mim_plugins.engine.resume import apply_resume, newest_checkpoint


def test_newest_checkpoint__is_what_mmengine_noted(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "missing") is None
    for name in ("epoch_2.pth", "epoch_10.pth", "best_top1.pth"):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch_10.pth"
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_2.pth"))
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch_2.pth"


def test_newest_checkpoint__survives_moving_the_folder(tmp_path: Path) -> None:
    (tmp_path / "epoch_2.pth").touch()
    (tmp_path / "epoch_3.pth").touch()
    (tmp_path / "last_checkpoint").write_text("/elsewhere/epoch_2.pth")
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch_2.pth"


def test_apply_resume__auto_without_checkpoint_starts_from_scratch(
    tmp_path: Path,
) -> None:
    cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=None))
    note = apply_resume(cfg, "auto")
    assert cfg.resume is False and cfg.load_from is None
    assert note is not None and "training starts from scratch" in note


def test_apply_resume__path(tmp_path: Path) -> None:
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        apply_resume(cfg, str(tmp_path / "nowhere.pth"))
    (tmp_path / "a.pth").touch()
    apply_resume(cfg, str(tmp_path / "a.pth"))
    assert cfg.resume is True and cfg.load_from == str(tmp_path / "a.pth")
    assert apply_resume(cfg, None) is None
