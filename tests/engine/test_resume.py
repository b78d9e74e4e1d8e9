"""Tests of finding the checkpoint to go on from, and of going on from it."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_run import loader, make_runner

from mim_plugins.engine.resume import apply_resume, newest_checkpoint
from mim_plugins.engine.same_batch import SameBatchHook
from mim_plugins.engine.settings import GlobalBatch


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


def train(folder: Path, batch: GlobalBatch, epochs: int, resume: bool = False) -> str:
    """Train the toy run with a batch, and return its log."""
    checkpoint = folder / "work" / "epoch_1.pth"
    runner = make_runner(
        folder,
        train_dataloader=loader(batch_size=batch.per_process),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        param_scheduler=[
            dict(type="CosineAnnealingLR", T_max=epochs, convert_to_iter_based=True)
        ],
        **(dict(resume=True, load_from=str(checkpoint)) if resume else {}),
    )
    runner.register_hook(SameBatchHook(batch, resuming=resume))
    try:
        runner.train()
    finally:
        for handler in runner.logger.handlers:
            handler.flush()
    return next(Path(runner.log_dir).glob("*.log")).read_text()


@pytest.mark.parametrize(
    "batch, described",
    [
        (GlobalBatch(2, 1, 1), "2 (2 per iteration x 1 accumulated)"),
        (GlobalBatch(4, 1, 2), "8 (4 per iteration x 2 accumulated)"),
        # The same batch, but twice as many iterations of the old schedule.
        (GlobalBatch(2, 1, 2), "4 (2 per iteration x 2 accumulated)"),
    ],
)
def test_resume__with_another_batch_is_refused(
    tmp_path: Path, batch: GlobalBatch, described: str
) -> None:
    train(tmp_path, GlobalBatch(4, 1, 1), epochs=1)
    with pytest.raises(ValueError, match="with a global batch of 4 ") as error:
        train(tmp_path, batch, epochs=2, resume=True)
    message = str(error.value)
    assert f"this run has {described}" in message
    assert "batch_size x processes = 4" in message and "load_from" in message


def test_resume__with_the_same_batch_on_other_processes_goes_on(tmp_path: Path) -> None:
    train(tmp_path, GlobalBatch(4, 1, 1), epochs=1)
    hook = SameBatchHook(GlobalBatch(2, 2, 1), resuming=True)
    saved = torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=False)
    hook.after_load_checkpoint(None, saved)
    # Taking only the weights starts a new schedule, with whatever batch.
    SameBatchHook(GlobalBatch(9, 1, 1), False).after_load_checkpoint(None, saved)


def test_resume__from_a_checkpoint_without_its_batch_is_a_line_in_the_log(
    tmp_path: Path,
) -> None:
    train(tmp_path, GlobalBatch(4, 1, 1), epochs=1)
    path = tmp_path / "work" / "epoch_1.pth"
    saved = torch.load(path, weights_only=False)
    del saved["meta"]["global_batch"]
    torch.save(saved, path)
    log = train(tmp_path, GlobalBatch(2, 1, 1), epochs=2, resume=True)
    assert "does not say its global batch" in log and "batch of 2 only if" in log
