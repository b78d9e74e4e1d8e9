"""From a config file to a finished training or test run."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import dump
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed
from torch.utils.data import DataLoader

from ..checkpoints.loading import SCHEME
from .config.accumulation import count_steps
from .config.own_classes import follow_class_folders
from .config.settings import (
    complete_dataloaders,
    global_batch,
    plain_batch_norm,
)
from .dry_run import rehearsal
from .environment import (
    check_toolbox,
    launched_rank,
    leave_processes,
    prepare_processes,
    suitable_threads,
    world_size,
)
from .errors import InputError, explained
from .hooks.checkpoint import AtomicCheckpointHook, LostCheckpointError
from .hooks.data_health import UnreadableImagesError, check_loader
from .hooks.non_finite import NonFiniteError
from .hooks.progress_bar import ProgressBarHook
from .hooks.stop import StopHook
from .prepare import add_hook, load_config, training_config, work_dir_of
from .resuming import rollback
from .resuming.newest import refuse_earlier_run
from .resuming.rollback import DataOrderHook
from .resuming.same_batch import SameBatchHook
from .resuming.same_run import SameRunHook
from .resuming.work_dir import launched_at, mark_launch, only_run
from .run_record import write_record
from .running.log_files import keep_logging
from .running.signals import EXIT_CODES, Interrupted, SignalWatch, say_to_launcher
from .running.watch import WatchProcessesHook
from .screen import describe, runner_type
from .strict_loading import require_strict_loading
from .testing import apply_amp, apply_tta, draw_predictions, write_results


def train(
    config: str | Path,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    precision: str | None = None,
    auto_scale_lr: bool = True,
    accumulate_batch: bool = True,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
    log_to: Sequence[str] = (),
    dry_run: bool = False,
    verbose: bool = False,
) -> Runner:
    """Train what a config describes, in this process or as one of several.

    The config's ``default_scope`` decides whether it is a pre-training or
    classification (mmpretrain), detection (mmdet) or segmentation (mmseg) config.

    Args:
        config: Path of the config file.
        work_dir: Where checkpoints and logs go; by default the config's ``work_dir``,
            or ``work_dirs/`` and the config's path below ``configs/``.
        resume: ``auto``, the path of a checkpoint, or None.
        precision: ``fp32``, ``bf16``, ``fp16``; None is bf16 on CUDA (fp16 for
            detection, which bf16 is not for), fp32 on the CPU.
        auto_scale_lr: Whether to keep the recipe's batch by accumulation, and to scale
            the learning rate to the real batch size where that is not possible.
        accumulate_batch: Whether to accumulate; else the learning rate is scaled.
        cfg_options: Values that replace those of the config, by dotted key.
        launcher: Who started this process: ``none``, ``pytorch``, ``slurm``, ``mpi``.
        log_to: Where values and pictures go, next to the files of the working
            directory: ``tensorboard``, ``wandb``, ``mlflow``.
        dry_run: Whether to rehearse only: build everything, decode a few images, take
            a step, write and read a checkpoint, print the plan, and leave nothing.
        verbose: Whether the screen shows all that the log file gets.

    Returns:
        The runner after training.

    Raises:
        InputError: If something in the config, the data or the options cannot be used,
            raised before the first training step; if a loss, a gradient or a weight
            is not finite; if too many images cannot be read; or if the last checkpoint
            cannot be written.
        Interrupted: A ``SystemExit``, if SIGTERM, SIGINT or SIGUSR1 has ended the run,
            with a checkpoint.
    """
    with SignalWatch(None if dry_run else work_dir) as watch:
        try:
            return _train(
                watch,
                config,
                dry_run,
                verbose,
                work_dir=work_dir,
                resume=resume,
                precision=precision,
                auto_scale_lr=auto_scale_lr,
                accumulate_batch=accumulate_batch,
                cfg_options=cfg_options,
                launcher=launcher,
                log_to=log_to,
            )
        except BaseException as error:
            stopped = error if isinstance(error, Interrupted) else None
            if stopped is None and not watch.received:
                raise
            # Loading processes end with the iterators in its frames.
            traceback.clear_frames(error.__traceback__)
            left = False
            if stopped is None:
                if watch.training:
                    # The connection to the first process ends when it has stopped.
                    left = launched_rank(launcher) > 0
                    if not (left and isinstance(error, RuntimeError)):
                        raise
                # Libraries turn what is raised in them into errors of their own.
                stopped = Interrupted(watch.received)
            if stopped.code == EXIT_CODES[stopped.signal] and not left:
                say_to_launcher("stopped")
            raise stopped from None


def _train(
    watch: SignalWatch,
    config: str | Path,
    dry_run: bool,
    verbose: bool,
    **options: Any,
) -> Runner:
    with explained():
        cfg, notes = training_config(config, **options)
        if not dry_run:
            watch.work_dir = cfg.work_dir
        if options["resume"] is None and not (dry_run or launched_at(cfg.work_dir)):
            refuse_earlier_run(cfg)
    batch_size = cfg.train_dataloader.get("batch_size")
    with (
        rehearsal(cfg, notes) if dry_run else _alone(cfg) as rehearse,
        _run(cfg, verbose) as runner,
        suitable_threads(runner.model, batch_size),
    ):
        _agree(cfg)
        for note in notes:
            runner.logger.log(note.level, note.message)
        started = _StartedHook()
        runner.register_hook(started, priority="LOWEST")
        try:
            # Before mmengine's schedulers meet an epoch without iterations.
            check_loader(runner.train_loop.dataloader)
            for line in describe(runner):
                runner.logger.info(line)
            if said := count_steps(runner):
                runner.logger.warning(said)
            batch = global_batch(runner.cfg, runner.world_size)
            resuming = bool(cfg.get("resume"))
            runner.register_hook(SameBatchHook(batch, resuming=resuming))
            runner.register_hook(SameRunHook(resuming=resuming))
            runner.register_hook(WatchProcessesHook())
            order = DataOrderHook()
            runner.register_hook(order)
            runner.register_hook(StopHook(watch), priority="LOWEST")
            if rehearse is not None:
                rehearse(runner)
            else:
                write_record(runner)
                rollback.train(runner, order)
        except (LostCheckpointError, NonFiniteError, UnreadableImagesError) as error:
            raise InputError(str(error)) from error
        except Exception:
            if started.iterations:
                raise  # in the middle of training a traceback says more
            with explained(cfg):
                raise
    return runner


def test(
    config: str | Path,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    amp: bool = False,
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
    verbose: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of a config.

    Args:
        config: Path of the config file.
        checkpoint: Path of the checkpoint.
        work_dir: Where the log goes; by default the folder ``test`` in that of
            :func:`train`, whose config file stays as it is.
        amp: Whether to compute in half precision.
        tta: Whether to average over augmented images.
        out: A ``.pkl`` file for predictions, a folder for predicted maps of
            segmentation, or a ``.json`` file for the metrics.
        show_dir: A folder for pictures of the predictions.
        cfg_options: Values that replace those of the config, by dotted key.
        launcher: Who started this process.
        verbose: Whether the screen shows all that the log file gets.

    Returns:
        The metrics by name.

    Raises:
        InputError: If something in the config, the data or the options cannot be used,
            or the checkpoint lacks some of the model.
    """
    with explained():
        cfg = load_config(config, cfg_options, testing=True)
        world_size(launcher)
        cfg.launcher = launcher
        cfg.work_dir = work_dir or str(Path(work_dir_of(cfg, config), "test"))
        if "://" not in checkpoint and not Path(checkpoint).is_file():
            raise FileNotFoundError(f"The checkpoint {checkpoint} does not exist.")
        if cfg.get("test_dataloader") is None or cfg.get("test_cfg") is None:
            raise ValueError(
                f"{config} describes no test: it has no test_dataloader, test_cfg and "
                "test_evaluator. A pre-training is judged by fine-tuning or linear "
                "probing; test with one of those configs."
            )
        check_toolbox(cfg.get("default_scope"))
        followed = follow_class_folders(cfg, cfg_options, "test")
        cfg.load_from, cfg.resume = checkpoint, False
        if amp:
            apply_amp(cfg)
        if tta:
            apply_tta(cfg)
        if show_dir:
            draw_predictions(cfg, show_dir)
        metrics_file = write_results(cfg, out) if out else None
        complete_dataloaders(cfg)
    with _run(cfg, verbose) as runner, explained(cfg):
        if followed:
            runner.logger.info(followed)
        require_strict_loading(runner.model, checkpoint)
        metrics = runner.test()
        if metrics_file and is_main_process():
            dump(metrics, metrics_file)
        return metrics


def build_runner(cfg: Config, verbose: bool = False) -> Runner:
    """Build the runner a config asks for by ``runner_type``.

    Args:
        cfg: The config.
        verbose: Whether the screen shows all that the log file gets.

    Raises:
        InputError: If something in the config cannot be used.
    """
    with explained(cfg):
        prepare_processes(cfg)
        if distributed.is_initialized() and get_device() == "cpu":
            plain_batch_norm(cfg)
        _read_safely(cfg)
        return runner_type(cfg, verbose).from_cfg(cfg)


def _read_safely(cfg: Config) -> None:
    """Has the checkpoint of ``load_from`` read without running code, and converted."""
    strategy = (cfg.get("strategy") or {}).get("type")
    # DeepSpeed reads the folders it has written by itself.
    if not cfg.get("load_from") or (
        cfg.get("resume") and strategy == "DeepSpeedStrategy"
    ):
        return
    if not cfg.load_from.startswith(SCHEME):
        cfg.load_from = f"{SCHEME}{cfg.load_from}"
    add_hook(cfg, "ConvertCheckpointHook")


def _agree(cfg: Config) -> None:
    """Makes sure that all processes go on from the same checkpoint.

    Raises:
        InputError: If they do not see the same files.
    """
    chosen = [cfg.get("load_from") if cfg.get("resume") else None]
    found = {file for (file,) in all_gather_object(chosen)}
    if len(found) > 1:
        raise InputError(
            "processes would go on from different checkpoints: "
            f"{', '.join(sorted(map(str, found)))}. All machines need to see the same "
            "working directory"
        )


class _StartedHook(Hook):
    """Notes that training is under way."""

    def __init__(self) -> None:
        self.iterations = 0
        self._marked = False

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not self._marked:
            self._marked = True
            # From here on there is something to go on from by itself.
            mark_launch(runner.work_dir)
            say_to_launcher("training")

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        self.iterations += 1


@contextmanager
def _alone(cfg: Config) -> Iterator[None]:
    """Keeps other runs out of the working directory."""
    with ExitStack() as stack:
        with explained():
            stack.enter_context(only_run(cfg.work_dir, cfg.launcher))
        yield


@contextmanager
def _run(cfg: Config, verbose: bool) -> Iterator[Runner]:
    """Build a runner and clean up behind it, whatever happens."""
    try:
        runner = build_runner(cfg, verbose)
        keep_logging(runner.logger)
        try:
            yield runner
        finally:
            for hook in runner.hooks:
                if isinstance(hook, ProgressBarHook):
                    hook.close()
                if isinstance(hook, AtomicCheckpointHook):
                    hook.wait()  # before another run may use the folder
                if isinstance(hook, WatchProcessesHook):
                    hook.after_train(runner)
            _stop_workers(runner)
    finally:
        leave_processes()


def _stop_workers(runner: Runner) -> None:
    """Ends the loading processes that wait for another epoch.

    Left to Python's garbage collector, a runner being a cycle, their queues go first:
    then each is waited for in vain for seconds, whenever that happens.
    """
    for name in ("_train_loop", "_val_loop", "_test_loop"):
        loader = getattr(getattr(runner, name, None), "dataloader", None)
        if isinstance(loader, DataLoader):
            loader._iterator = None
