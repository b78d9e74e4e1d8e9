"""Tests of finding the checkpoint to go on from, and of going on from it."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from toy_run import loader, make_runner

from mim_plugins.checkpoints.files.sealing import save_sealed
from mim_plugins.engine.config.settings import GlobalBatch, Note
from mim_plugins.engine.hooks.saving import write_folder
from mim_plugins.engine.resuming.newest import (
    again,
    apply_resume,
    newest_checkpoint,
    progress_at,
    refuse_earlier_run,
)
from mim_plugins.engine.resuming.same_batch import SameBatchHook


def save(path: Path, iteration: int, **meta: Any) -> Path:
    """A checkpoint as runs of a config called "this" save it."""
    meta = dict(epoch=0, iter=iteration, config_name="this") | meta
    save_sealed({"meta": meta, "state_dict": {"a": torch.ones(100)}}, path)
    return path


def damage(path: Path, bit: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def config(folder: Path, **changes: Any) -> Config:
    cfg = Config(dict(work_dir=str(folder)) | changes, cfg_text="")
    object.__setattr__(cfg, "_filename", "configs/this.py")
    return cfg


def messages(notes: list[Note]) -> str:
    return "\n".join(note.message for note in notes)


def test_newest_checkpoint__is_that_of_the_latest_iteration(tmp_path: Path) -> None:
    assert newest_checkpoint(config(tmp_path / "missing")).newest is None
    save(tmp_path / "epoch_2.pth", 20)
    save(tmp_path / "best_top1_epoch_9.pth", 90)
    newest = save(tmp_path / "iter_25.pth", 25)
    save(tmp_path / "epoch_1.pth", 10)
    assert newest_checkpoint(config(tmp_path)).newest == newest
    newest = save(tmp_path / "epoch_3.pth", 30)
    assert newest_checkpoint(config(tmp_path)).newest == newest
    other = config(
        tmp_path / "runs",
        default_hooks=dict(
            checkpoint=dict(out_dir=str(tmp_path / "out"), filename_tmpl="at_{}.pth")
        ),
    )
    (tmp_path / "out" / "runs").mkdir(parents=True)
    newest = save(tmp_path / "out" / "runs" / "at_7.pth", 7)
    assert newest_checkpoint(other).newest == newest


@pytest.mark.parametrize("pointer", ["empty", "binary", "folder", "dead", "older"])
def test_last_checkpoint__never_decides(tmp_path: Path, pointer: str) -> None:
    save(tmp_path / "epoch_1.pth", 10)
    newest = save(tmp_path / "epoch_2.pth", 20)
    path = tmp_path / "last_checkpoint"
    if pointer == "folder":
        path.mkdir()
    elif pointer == "dead":
        path.symlink_to(tmp_path / "nowhere")
    else:
        older = str(tmp_path / "epoch_1.pth").encode()
        path.write_bytes({"empty": b"", "binary": b"\xff\0"}.get(pointer, older))
    assert newest_checkpoint(config(tmp_path)).newest == newest


def test_damaged_checkpoints__are_never_taken(tmp_path: Path) -> None:
    """The one before is, and each is named with the reason."""
    good = save(tmp_path / "epoch_1.pth", 10)
    bad = save(tmp_path / "epoch_2.pth", 20)
    original = bad.read_bytes()
    draw = random.Random(0)
    for trial in range(60):
        content = bytearray(original)
        if trial % 3 == 0:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        elif trial % 3 == 1:
            del content[draw.randrange(len(content)) :]
        else:
            half = draw.randrange(1, len(content))
            content[:half] = draw.randbytes(half)
        bad.write_bytes(content)
        cfg = config(tmp_path, load_from=None)
        notes = apply_resume(cfg, "auto")
        assert cfg.load_from == str(good) and cfg.resume is True
        assert len(notes) == 2
        assert notes[0].message.startswith("resume: epoch_2.pth is skipped: ")
        with pytest.raises(ValueError, match=f"The newest .* --resume {good}"):
            apply_resume(config(tmp_path), str(bad))
    with pytest.raises(ValueError, match="no other complete one"):
        damage(good)
        apply_resume(config(tmp_path), str(good))
    notes = apply_resume(cfg := config(tmp_path, load_from=None), "auto")
    assert cfg.resume is False and cfg.load_from is None
    assert "no complete checkpoint" in messages(notes)
    assert "starts from scratch" in messages(notes) and len(notes) == 3


def test_cut_checkpoints__are_skipped_wherever_they_end(tmp_path: Path) -> None:
    """Also where torch fails with an error of the system, as if it could not read."""
    good = save(tmp_path / "epoch_1.pth", 10)
    bad = tmp_path / "epoch_2.pth"
    state = {f"a{index}": torch.ones(2000) for index in range(40)}
    save_sealed({"meta": dict(epoch=2, iter=20), "state_dict": state}, bad)
    original = bad.read_bytes()
    for size in range(20_000, len(original), 2000):
        bad.write_bytes(original[:size])
        search = newest_checkpoint(config(tmp_path))
        assert search.newest == good and list(search.skipped) == [bad]
        assert "is damaged" in search.skipped[bad]
    for content in (bytes(1000) + original[1000:], b"", b"<html>"):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"The newest .* --resume {good}"):
            apply_resume(config(tmp_path), str(bad))


def test_what_is_no_checkpoint__is_passed_over(tmp_path: Path) -> None:
    good = save(tmp_path / "epoch_1.pth", 10)
    os.mkfifo(tmp_path / "epoch_2.pth")
    (tmp_path / "epoch_3.pth").symlink_to(tmp_path / "epoch_3.pth")
    (tmp_path / "epoch_4.pth").touch()
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "epoch_5.pth")
    search = newest_checkpoint(config(tmp_path))
    assert search.newest == good and len(search.skipped) == 4
    assert "no regular file" in search.skipped[tmp_path / "epoch_2.pth"]
    assert "does not say its epoch" in search.skipped[tmp_path / "epoch_5.pth"]


def test_newest_checkpoint__is_of_the_order_that_a_run_went_back_for(
    tmp_path: Path,
) -> None:
    """A later one of before failed, or it would not have gone back."""
    save(tmp_path / "epoch_3.pth", 30)
    later = save(tmp_path / "epoch_2.pth", 20, data_order=1)
    assert newest_checkpoint(config(tmp_path)).newest == later


def test_progress__is_counted_in_steps_of_any_number_of_processes(
    tmp_path: Path,
) -> None:
    """An epoch of 31 images: 3 steps, which are 8 iterations of one process."""

    def save_of(name: str, iteration: int, length: int, accumulated: int) -> Path:
        meta = dict(epoch=iteration // length, run=dict(unit="epoch"))
        meta["run"]["epoch_length"] = length
        meta["global_batch"] = dict(accumulated=accumulated)
        return save(tmp_path / name, iteration, **meta)

    first = save_of("iter_14.pth", 14, length=8, accumulated=3)  # 1 epoch, 2 steps
    second = save_of("iter_4.pth", 4, length=3, accumulated=1)  # 1 epoch, 1 step
    cfg = config(tmp_path)
    assert newest_checkpoint(cfg).newest == first
    # Of three processes, that have failed after one epoch and one step.
    reached = progress_at(4, 3, 1)
    assert newest_checkpoint(cfg, latest=reached).newest == second
    assert newest_checkpoint(cfg, [second], reached).newest is None


def test_again__is_from_what_the_first_attempt_was_and_what_it_saved(
    tmp_path: Path,
) -> None:
    """A user went back to epoch 1 of three."""
    files = [save(tmp_path / f"epoch_{x}.pth", 10 * x) for x in (1, 2, 3)]
    for file in files:
        os.utime(file, (100, 100))
    cfg = config(tmp_path)
    assert again(cfg, None, since=200) == "auto"
    assert again(cfg, "auto", since=200) == "auto"
    assert again(cfg, str(files[0]), since=200) == str(files[0])
    own = save(tmp_path / "iter_12.pth", 12, epoch=1)
    assert again(cfg, str(files[0]), since=200) == str(own)


def test_sharded_checkpoint__is_skipped_unless_all_of_it_is_there(
    tmp_path: Path,
) -> None:
    good = save(tmp_path / "epoch_1.pth", 10)
    folder = tmp_path / "epoch_2.pth"

    def save_shards(epoch: int, iteration: int) -> None:
        class Shards:
            def save_checkpoint(self, out_dir: str, name: str, **_: Any) -> None:
                part = Path(out_dir, name)
                part.mkdir(exist_ok=True)
                save_sealed({"a": torch.ones(2000)}, part / "rank0.pth")
                (part / "notes.txt").write_text("of DeepSpeed")

        write_folder(Shards(), folder, dict(epoch=epoch, iter=iteration), {})  # type: ignore

    def found() -> Path | None:
        return newest_checkpoint(config(tmp_path)).newest

    save_shards(2, 20)
    assert found() == folder
    apply_resume(config(tmp_path), str(folder))
    damage(folder / "rank0.pth")
    assert found() == good
    with pytest.raises(ValueError, match=f"rank0.* is damaged.* --resume {good}"):
        apply_resume(config(tmp_path), str(folder))
    (folder / "rank0.pth").unlink()
    assert found() == good
    save_shards(2, 20)
    (folder / "notes.txt").write_text("cut")
    assert found() == good
    save_shards(2, 20)
    (folder / "complete.json").write_text("{")
    assert found() == good
    skipped = newest_checkpoint(config(tmp_path)).skipped
    assert "no complete.json, which is written last" in skipped[folder]


def test_checkpoints_of_other_runs__are_passed_over(tmp_path: Path) -> None:
    model = dict(type="MIRL", backbone=dict(type="ViT", arch="base"))
    cfg = config(tmp_path, model=model)
    save(tmp_path / "epoch_9.pth", 90, config_name="that")
    with pytest.raises(ValueError, match=r"epoch_9\.pth is of the config that.*work-d"):
        apply_resume(cfg, "auto")
    settings = {"model.type": "'MIRL'", "model.backbone.arch": "'large'"}
    save(tmp_path / "epoch_8.pth", 80, run=dict(settings=settings))
    settings = settings | {"model.backbone.arch": "'base'"}
    good = save(tmp_path / "epoch_2.pth", 20, run=dict(settings=settings))
    notes = messages(apply_resume(cfg, "auto"))
    assert cfg.load_from == str(good)
    assert "epoch_9.pth is skipped: is of the config that, not of this" in notes
    assert "another model (model.backbone.arch 'large', not 'base')" in notes


def test_apply_resume__auto_without_checkpoint_starts_from_scratch(
    tmp_path: Path,
) -> None:
    cfg = config(tmp_path, resume=True, load_from=None)
    assert "training starts from scratch" in messages(apply_resume(cfg, "auto"))
    assert cfg.resume is False and cfg.load_from is None


def test_apply_resume__path(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        apply_resume(cfg, str(tmp_path / "nowhere.pth"))
    assert apply_resume(cfg, None) == []
    path = save(tmp_path / "a.pth", 1, config_name="that")
    apply_resume(cfg, str(path))
    assert cfg.resume is True and cfg.load_from == str(path)


def test_apply_resume__of_the_config_is_as_of_the_command_line(tmp_path: Path) -> None:
    cfg = config(tmp_path, resume=True, load_from=None)
    save(tmp_path / "epoch_1.pth", 10)
    damage(save(tmp_path / "epoch_2.pth", 20))
    apply_resume(cfg, None)
    assert cfg.load_from == str(tmp_path / "epoch_1.pth")
    cfg = config(tmp_path, resume=True, load_from=str(tmp_path / "epoch_2.pth"))
    with pytest.raises(ValueError, match=r"epoch_2\.pth is damaged"):
        apply_resume(cfg, None)


def test_new_run__among_checkpoints_of_another_is_refused(tmp_path: Path) -> None:
    refuse_earlier_run(config(tmp_path))
    save(tmp_path / "best_top1_epoch_9.pth", 90)
    refuse_earlier_run(config(tmp_path))
    save(tmp_path / "epoch_1.pth", 10)
    with pytest.raises(ValueError, match=r"epoch_1\.pth.*--resume.*--work-dir"):
        refuse_earlier_run(config(tmp_path))
    refuse_earlier_run(config(tmp_path, resume=True))


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
