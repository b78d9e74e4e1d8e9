"""Checkpoints that are complete or not there, written while training goes on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast, get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...checkpoints.files import write_atomically
from ...checkpoints.files.atomic import remove_leftovers
from ...checkpoints.files.background import BackgroundWriter, Save
from .disk_space import describe_space
from .non_finite import StopNonFiniteHook
from .saving import (
    INSIDE_EPOCH,
    copied,
    is_sharded,
    numbered_files,
    remove,
    write_folder,
)

# Iterations after which several processes agree on whether a checkpoint is due by time.
_AGREE_EVERY = 50


class LostCheckpointError(OSError):
    """The last checkpoint of a run could not be written."""


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, whose files are complete or not there.

    The first process copies what is saved to memory, and a thread writes it next to its
    destination, syncs it and moves it there. Only then are older checkpoints removed,
    the best one included, and ``last_checkpoint`` is replaced. If a file cannot be
    written, older ones are kept, training goes on, and it is tried again. The last
    checkpoint is complete before the run ends.

    Sharded checkpoints, which are folders that all processes write, are moved to their
    name when they are complete, on the training thread. Checkpoints on remote storage
    are written as by mmengine.

    Args:
        interval_minutes: Minutes after which a checkpoint is saved, within an epoch,
            too, as ``iter_N.pth``; None for none by time.
        **options: As of mmengine's ``CheckpointHook``.

    Raises:
        TypeError: If an option is not known.
        ValueError: If ``interval_minutes`` is not positive.
    """

    def __init__(self, interval_minutes: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        for name in self.args:
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument "
                f"{name!r}"
            )
        if interval_minutes is not None and not interval_minutes > 0:
            raise ValueError(
                f"interval_minutes of {type(self).__name__} is positive, or None for "
                f"no checkpoints by time, got {interval_minutes!r}"
            )
        self.interval_minutes = interval_minutes
        self._writer = BackgroundWriter()
        self._capturing = False
        self._captured: dict[str, Any] | None = None
        self._saved_at = 0.0
        self._due_after_epoch = False
        self._stale_best: dict[str, set[str | None]] = {}

    def before_train(self, runner: Runner) -> None:
        """Says how much space checkpoints need, and removes unfinished files.

        Args:
            runner: The runner of the training process.
        """
        super().before_train(runner)
        self._saved_at = time.monotonic()
        if not self._is_local or not is_main_process():
            return
        folder = Path(self.out_dir)
        if folder.is_dir():
            for path in folder.glob("*.partial"):
                with contextlib.suppress(OSError):
                    remove(path)
            remove_leftovers(folder, None, ".pth", of_others=True)
        if isinstance(runner, Runner):  # a flexible one may have shards alone
            runner.logger.log(*describe_space(runner, self))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save what is due by iterations, or by time.

        Args:
            runner: The runner of the training process.
            batch_idx: The index of the batch in the loop.
            data_batch: Not used.
            outputs: Not used.
        """
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self._writer.retry()
        if self._is_due(runner):
            if self.by_epoch and self.end_of_epoch(runner.train_dataloader, batch_idx):
                self._due_after_epoch = True
            else:
                self._save_inside_epoch(runner, runner.iter + 1)
        if not self.by_epoch and self.is_last_train_iter(runner):
            self._writer.wait()

    def after_train_epoch(self, runner: Runner) -> None:
        """Save what is due by epochs, or by time.

        Args:
            runner: The runner of the training process.
        """
        before = self._saved_at
        super().after_train_epoch(runner)
        if self._due_after_epoch and self._saved_at == before:
            self._save_checkpoint(runner)
        self._due_after_epoch = False
        if self.by_epoch and self.is_last_train_epoch(runner):
            self._writer.wait()

    def after_train(self, runner: Runner) -> None:
        """Wait until everything is written, and publish as mmengine does.

        Args:
            runner: The runner of the training process.

        Raises:
            LostCheckpointError: If the last checkpoint, or the best, cannot be written.
        """
        self._writer.wait()
        self._writer.retry(now=True)
        if lost := self._writer.wait():
            raise LostCheckpointError(
                f"training is complete, but {', '.join(map(str, lost))} could not be "
                f"written and is lost; older checkpoints in {self.out_dir} are kept. "
                "Make space, or make the folder writable, and repeat the end of the "
                "run with --resume"
            )
        super().after_train(runner)

    def save(self, runner: Runner, iteration: int) -> str | None:
        """Saves a checkpoint at once and waits until it is written.

        All processes call it in the same iteration.

        Args:
            runner: The runner of the training process.
            iteration: How many iterations are complete.

        Returns:
            The file; None in the first process if it could not be written.
        """
        self._save_inside_epoch(runner, iteration)
        path = str(self.last_ckpt)
        return None if Path(path) in self._writer.wait() else path

    def path_at(self, iteration: int) -> Path:
        """Where :meth:`save` writes.

        Args:
            iteration: How many iterations are complete.
        """
        template = INSIDE_EPOCH if self.by_epoch else self.filename_tmpl
        return Path(self.out_dir, template.format(iteration))

    def wait(self) -> None:
        """Waits until what was saved is written."""
        self._writer.wait()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes what mmengine is about to write.

        Args:
            runner: Not used.
            checkpoint: What is about to be written, with all that other hooks add.
        """
        if self._capturing:
            if is_main_process():
                self._captured = copied(checkpoint)
            checkpoint.clear()

    @property
    def _is_local(self) -> bool:
        """Whether checkpoints are files of this machine's file system."""
        return isinstance(self.file_backend, LocalBackend)

    def _is_due(self, runner: Runner) -> bool:
        """Whether a checkpoint is due by time, by the clock of the first process."""
        if self.interval_minutes is None:
            return False
        due = time.monotonic() - self._saved_at > 60 * self.interval_minutes
        if get_world_size() == 1:
            return due
        if not self.every_n_train_iters(runner, _AGREE_EVERY):
            return False
        agreed = torch.tensor([int(due)])
        broadcast(agreed)
        return bool(agreed)

    def _save_inside_epoch(self, runner: Runner, step: int) -> None:
        for hook in runner.hooks:
            if isinstance(hook, StopNonFiniteHook):
                hook.after_train_epoch(runner)  # weights that are not finite stop here
        runner.logger.info(f"Saving checkpoint at {step} iterations")
        meta = dict(epoch=runner.epoch, iter=step)
        self._save_state(runner, self.path_at(step).name, meta, inside_epoch=True)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, int]
    ) -> None:
        if isinstance(runner, _Redirected):
            runner = runner.runner
        self._save_state(runner, self.filename_tmpl.format(step), meta)

    def _save_state(
        self,
        runner: Runner,
        name: str,
        meta: dict[str, int],
        inside_epoch: bool = False,
    ) -> None:
        """Saves all that going on needs, then removes what is not to be kept."""
        self._saved_at = time.monotonic()
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)

        def written(path: Path) -> None:
            pointer = Path(runner.work_dir, "last_checkpoint")
            write_atomically(pointer, lambda file: file.write_text(str(path)))
            if self.max_keep_ckpts > 0:
                others = [x for x in self.training_checkpoints() if x != path]
                for old in others[: len(others) + 1 - self.max_keep_ckpts]:
                    remove(old)

        self._write(
            runner,
            name,
            meta,
            dict(
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                # A flexible runner counts by it, whatever `meta` says.
                by_epoch=self.by_epoch and not inside_epoch,
            ),
            "training",
            written,
        )

    def training_checkpoints(self) -> list[Path]:
        """What this run and those before it have saved here, in order of writing."""
        found = numbered_files(self.out_dir, self.filename_tmpl)
        return sorted(found, key=lambda path: path.lstat().st_mtime)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Saves the best checkpoint, and removes the one before when it is written.

        mmengine, which decides whether it is the best, removes first.
        """
        before = self._best()
        for key in before:
            self._set_best(key, None)
        super()._save_best_checkpoint(_Redirected(runner, self, before), metrics)
        for key, path in before.items():
            if self._best()[key] is None:
                self._set_best(key, path)

    def _best(self) -> dict[str, str | None]:
        """The best checkpoint of each metric."""
        if not self.save_best:
            return {}
        if len(self.key_indicators) == 1:
            return {"": self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best(self, key: str, path: str | None) -> None:
        if key:
            self.best_ckpt_path_dict[key] = path
        else:
            self.best_ckpt_path = path

    def _save_best_state(
        self,
        runner: Runner,
        name: str,
        meta: dict[str, int],
        options: dict[str, Any],
        before: dict[str, str | None],
    ) -> None:
        """Saves what mmengine has found to be the best of a metric."""
        key = next(x for x, best in self._best().items() if str(best).endswith(name))
        stale = self._stale_best.setdefault(key, set())
        stale.add(before[key])

        def written(path: Path) -> None:
            for old in map(Path, filter(None, stale - {str(path)})):
                # That of the run which this one goes on from stays where it is.
                if old.parent.absolute() == path.parent.absolute():
                    remove(old)
            stale.clear()

        self._write(runner, name, meta, options, f"best {key}", written)

    def _write(
        self,
        runner: Runner,
        name: str,
        meta: dict[str, int],
        options: dict[str, Any],
        kind: str,
        written: Callable[[Path], None],
    ) -> None:
        """Has mmengine collect what is to be saved, and writes it."""
        if not self._is_local:
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, meta=meta, **options,
                backend_args=self.backend_args,
            )  # fmt: skip
            return
        path = Path(self.out_dir, name)
        if is_sharded(runner):
            write_folder(runner, path, meta, options)
            if is_main_process():
                written(path)
            return
        self._capturing, self._captured = True, None
        try:
            # What mmengine writes is empty by then.
            folder, nothing = os.path.split(os.devnull)
            runner.save_checkpoint(folder, nothing, meta=dict(meta), **options)
        finally:
            self._capturing = False
        if self._captured is not None:
            # The flexible runner sets others. Of a checkpoint between two steps,
            # SameRunHook has set the iteration of the last step.
            if not self._captured["meta"].get("rewound"):
                self._captured["meta"].update(meta)
            if runner.cfg.filename:
                self._captured["meta"]["config_name"] = Path(runner.cfg.filename).stem
            self._writer.submit(kind, Save(path, self._captured, written))
            self._captured = None


class _Redirected:
    """A runner that has the hook save the best checkpoint."""

    def __init__(
        self,
        runner: Runner,
        hook: AtomicCheckpointHook,
        before: dict[str, str | None],
    ) -> None:
        self.runner = runner
        self._hook = hook
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def save_checkpoint(
        self, out_dir: str, filename: str, meta: dict, **options: Any
    ) -> None:
        for name in ("file_client_args", "backend_args"):
            options.pop(name, None)
        self._hook._save_best_state(self.runner, filename, meta, options, self._before)
