"""From a config file to the config that a run is built from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .config.accumulation import accumulate
from .config.arch import encoder_shape, follow_arch, take_arch
from .config.arguments import check_arguments
from .config.best_checkpoint import check_best
from .config.file import read_config
from .config.image_size import (
    describe_image_size,
    follow_image_size,
    takes_image_size,
)
from .config.names import check_names
from .config.overrides import apply_options, unread_names
from .config.own_classes import follow_class_folders
from .config.schedules import (
    check_length,
    check_schedule,
    describe_schedule,
    leave_out_unreached,
    run_length,
    scale_milestones,
)
from .config.settings import (
    Note,
    apply_precision,
    complete_dataloaders,
    scale_learning_rate,
)
from .config.values import check_values
from .environment import (
    check_toolbox,
    restarted,
    world_size,
)
from .resuming.newest import apply_resume, newest_checkpoint
from .resuming.resumable import make_resumable
from .resuming.same_batch import keep_batch

# Names at the top of a config that reach all parts of pre-training and classification.
_SIZES = ("img_size", "patch_size", "arch")


def load_config(
    config: str | Path,
    options: dict[str, Any] | None = None,
    testing: bool = False,
) -> Config:
    """Read a config file and merge the options of the command line.

    Args:
        config: Path of the config file.
        options: Values that replace those of the config, by dotted key.
        testing: Whether the config is read for a test alone.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If an option would change nothing, or a value makes no sense.
    """
    cfg = read_config(config)
    length, _ = run_length(cfg)
    merge_options(cfg, options, testing)
    check_values(cfg)
    scale_milestones(cfg, length, options or {})
    return cfg


def merge_options(
    cfg: Config, options: dict[str, Any] | None = None, testing: bool = False
) -> None:
    """Merge the options of the command line into a config; the sizes it sets follow.

    Args:
        cfg: The config, changed in place.
        options: Values that replace those of the config, by dotted key. Longer keys win
            over ``img_size``, ``patch_size`` and ``arch``.
        testing: Whether the config is read for a test alone.

    Raises:
        ValueError: If an option would change nothing, or a size does not fit the model.
    """
    options = dict(options or {})
    sizes = {key: options.pop(key) for key in _SIZES if key in options}
    if sizes and not takes_image_size(cfg):
        raise ValueError(
            f"--cfg-options {next(iter(sizes))}=… is for pre-training and "
            "classification, which this config is not; set the keys of its pipelines "
            "and model instead, as --print-config of tools/train.py shows them"
        )
    cfg.merge_from_dict({key: copy.deepcopy(value) for key, value in sizes.items()})
    shape = encoder_shape(cfg)
    take_arch(cfg)
    follow_image_size(cfg)
    apply_options(cfg, options, testing)
    follow_arch(cfg, shape, options)


def training_config(
    config: str | Path,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    precision: str | None = None,
    auto_scale_lr: bool = True,
    accumulate_batch: bool = True,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
    step: Callable[[str, Config], None] = lambda name, cfg: None,
) -> tuple[Config, list[Note]]:
    """Prepare a training config without building anything; see :func:`.launch.train`.

    Args:
        config: Path of the config file.
        work_dir: See :func:`.launch.train`, as the arguments up to ``launcher``.
        resume: See :func:`.launch.train`.
        precision: See :func:`.launch.train`.
        auto_scale_lr: See :func:`.launch.train`.
        accumulate_batch: See :func:`.launch.train`.
        cfg_options: See :func:`.launch.train`.
        launcher: See :func:`.launch.train`.
        step: Called with the name of each step that changes the config, and with the
            config after it.

    Returns:
        The config to build a runner from, and lines for the log that say what was
        decided.

    Raises:
        FileNotFoundError: If the config or the checkpoint does not exist.
        ValueError: If an option or the config cannot be used.
    """
    cfg = load_config(config, cfg_options)
    unused = check_names(cfg)
    for name in ("model", "train_dataloader", "train_cfg", "optim_wrapper"):
        if not cfg.get(name):
            raise ValueError(f"{config} describes no training: it has no {name}.")
    if "module" in cfg.model:
        plain = Path(config).with_name(Path(config).name.replace("-ms_", "_"))
        extended = plain if plain.name != Path(config).name else "the config it extends"
        raise ValueError(
            f"{config} only tests: its model, {cfg.model.type}, averages what another "
            f"predicts at several scales. Train {extended}, then test with this one."
        )
    check_toolbox(cfg.get("default_scope"))
    check_arguments(cfg)
    processes = world_size(launcher)
    # Without options, only sizes at the top of the file have changed anything.
    step("--cfg-options" if cfg_options else ", ".join(_SIZES), cfg)
    notes = []
    if described := describe_image_size(cfg):
        notes.append(Note(described))
    if followed := follow_class_folders(cfg, cfg_options):
        notes.append(Note(followed))
    step("class folders of the data", cfg)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or work_dir_of(cfg, config)
    step("--launcher and --work-dir", cfg)
    notes.append(Note(apply_precision(cfg, precision)))
    step("precision", cfg)
    leave_out_unreached(cfg)
    step("length of the run", cfg)
    notes.append(Note(describe_schedule(cfg)))
    warnings = [
        f"config: nothing in it uses {name}={value!r}; a config that sets {name} has "
        "to give it to the data sets or the model as well"
        for name, value in unread_names(cfg).items()
    ]
    if unused:
        warnings.append(f"config: nothing uses {', '.join(unused)} of {config}")
    checks = (check_length, check_best)
    warnings += filter(None, [check(cfg) for check in checks])
    if restarted():
        # A run that was to go on from a named file may have saved none of its own yet.
        named = resume not in (None, "auto") or cfg.get("resume")
        if not named or newest_checkpoint(cfg).newest is not None:
            resume = "auto"
    notes += apply_resume(cfg, resume)
    if kept := keep_batch(cfg, processes):
        notes.append(kept.note)
    step("--resume", cfg)
    keep = auto_scale_lr and accumulate_batch
    if accumulated := accumulate(cfg, processes, keep, kept and kept.size):
        notes.append(accumulated)
    step("accumulation", cfg)
    warnings += filter(None, [check_schedule(cfg, processes)])
    notes += [Note(message, logging.WARNING) for message in warnings]
    if auto_scale_lr:
        notes.append(Note(scale_learning_rate(cfg, processes)))
    else:
        notes.append(Note("learning rate: as in the config (--no-auto-scale-lr)"))
        if cfg.get("auto_scale_lr"):
            cfg.auto_scale_lr.enable = False
    step("scaling of the learning rate", cfg)
    make_resumable(cfg)
    complete_dataloaders(cfg)
    add_hook(cfg, "StopNonFiniteHook")
    if cfg.get("val_dataloader"):
        add_hook(cfg, "CheckValidationHook")
    step("defaults of this machine and toolbox", cfg)
    return cfg, notes


def add_hook(cfg: Config, kind: str) -> None:
    """Adds a hook, of the given type, to a config that does not have it."""
    hooks = cfg.get("custom_hooks") or []
    if not any(hook["type"] == kind for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=kind)]


def work_dir_of(cfg: Config, config: str | Path) -> str:
    """The folder a config's run goes to: its own, or :func:`default_work_dir`."""
    return cfg.get("work_dir") or str(default_work_dir(config))


def default_work_dir(config: str | Path) -> Path:
    """Return the folder a config's run goes to, another one for every config.

    It is ``work_dirs/`` with the config's path below ``configs/``, else with its path
    below the current folder, or its folder's name: ``work_dirs/mae/vitb_1600e``.

    Args:
        config: Path of the config file.
    """
    path = Path(config).absolute().with_suffix("")
    *folders, stem = path.parts
    if "configs" in folders:
        below = len(folders) - folders[::-1].index("configs")
        return Path("work_dirs", *folders[below:], stem)
    if path.is_relative_to(Path.cwd()):
        return Path("work_dirs", path.relative_to(Path.cwd()))
    return Path("work_dirs", *folders[1:][-1:], stem)
