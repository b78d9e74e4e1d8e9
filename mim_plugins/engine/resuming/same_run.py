"""What a resumed run goes on with, where its config or its data have changed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...checkpoints.files.state_dicts import refuse_non_finite
from ...datasets.epoch_sampler import find_seeded_dataset
from ..config.schedules import run_length
from ..config.settings import global_batch
from ..hooks.accumulation import AccumulationHook, steps_per_epoch
from ..hooks.periodic import unwrapped
from ..running.loops import order_repeats, samples_repeat
from .same_batch import in_new_parts

# What a run is compared in; other entries, such as hooks and paths, may differ.
_COMPARED = ("model", "train_dataloader", "train_cfg", "optim_wrapper")
_ALSO = ("param_scheduler", "randomness")
_INDIFFERENT = (
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
)

# How far a scheduler is, as opposed to what it does.
_PROGRESS = {"last_step", "_global_step", "_last_value", "verbose"}

_LENGTH = {"epoch": "train_cfg.max_epochs", "iteration": "train_cfg.max_iters"}

_NAMED = 8
_NEW_RUN = "start a new run from these weights: --cfg-options load_from=CHECKPOINT"


class SameRunHook(Hook):
    """Compares a run with the checkpoint it goes on from, and uses what it now says.

    mmengine restores schedules and the settings of the optimiser from the checkpoint,
    whatever the config says. Here a changed schedule, length, learning rate or weight
    decay is the config's: the schedule is evaluated at the step that is reached. Where
    an epoch has another number of iterations, it is evaluated at the epoch. What has no
    such meaning is refused: another optimiser, seed or unit of length, a checkpoint
    from inside an epoch, and a run that was shortened to what it has done. Checkpoints
    record what to compare.

    Args:
        resuming: Whether the run resumes from the loaded checkpoint, rather than only
            using its weights.
    """

    def __init__(self, resuming: bool) -> None:
        self.resuming = resuming

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what a resumed run is compared with.

        Args:
            runner: The runner of the training process.
            checkpoint: What is about to be written.
        """
        meta = checkpoint["meta"]
        meta["run"] = record = _record(runner)
        wrapper, length = runner.optim_wrapper, record["epoch_length"]
        count = getattr(wrapper, "_accumulative_counts", 1)
        ended = record["unit"] == "epoch" and meta["iter"] == meta["epoch"] * length
        if count > 1 and not ended and not wrapper.should_update():
            meta["iter"] -= wrapper.inner_count % count
            meta["rewound"] = True

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, and put what the run now says into what mmengine restores.

        Args:
            runner: The runner of the training process.
            checkpoint: What was read; changed in place.

        Raises:
            ValueError: If going on has no clear meaning.
        """
        meta = checkpoint.get("meta", {})
        if not self.resuming or "epoch" not in meta:
            return
        refuse_non_finite(checkpoint["state_dict"], str(runner.cfg.load_from))
        _refuse_other_sizes(runner.model, checkpoint["state_dict"])
        saved, now = meta.get("run", {}), _record(runner)
        in_new_parts(meta, saved, now)
        self._refuse(meta, saved, now, runner.train_dataloader)
        _take_seed(runner, meta.get("seed"))
        before, after = saved.get("settings", {}), now["settings"]
        changes = [
            f"{key} {before.get(key, 'not set')} → {after.get(key, 'not set')}"
            for key in sorted(before.keys() | after.keys())
            if before and before.get(key) != after.get(key)
        ]
        if saved.get("images", now["images"]) != now["images"]:
            changes.append(f"training images {saved['images']} → {now['images']}")
        done = _within_epoch(meta, saved, now)
        if done and saved["images"] != now["images"]:
            done = 0
            changes.append(f"epoch {meta['epoch'] + 1} is trained from its start")
        if now["unit"] == "epoch":
            meta["iter"] = meta["epoch"] * now["epoch_length"] + done
        moved = _differs(runner, checkpoint)
        by_steps = any(isinstance(hook, AccumulationHook) for hook in runner.hooks)
        if not moved and _counts_other_epochs(runner, saved, now):
            moved = "the iterations of an epoch"
        if moved or (meta.get("rewound") and not by_steps):
            _restart_schedule(runner, checkpoint)
        if changes or moved:
            listed = "; ".join(changes[:_NAMED]) or moved
            if len(changes) > _NAMED:
                listed += f"; and {len(changes) - _NAMED} more"
            runner.logger.log(
                logging.WARNING,
                "resume: the checkpoint was trained with other settings; from here on "
                f"those of the config are used, the schedule at the step reached: "
                f"{listed}",
            )

    def before_train(self, runner: Runner) -> None:
        """Say what is used.

        Args:
            runner: The runner of the training process.
        """
        if not self.resuming:
            return
        optimizer = getattr(runner.optim_wrapper, "optimizer", None)
        if optimizer is None:
            return
        groups = optimizer.param_groups
        length, unit = run_length(runner.cfg)
        done = runner.epoch if unit == "epoch" else runner.iter
        decays = max(group.get("weight_decay", 0) for group in groups)
        runner.logger.info(
            f"resume: {unit} {done} of {length} is done; {type(optimizer).__name__}, "
            f"learning rate {max(group['lr'] for group in groups):.6g} now, weight "
            f"decay {decays:g}, seed {runner.seed}"
        )
        if done == length:
            runner.logger.warning(
                "resume: this run is finished, nothing is left to train; to extend it, "
                f"set {_LENGTH[unit]} to more than {length}"
            )

        loader = runner.train_dataloader
        if runner.iter and not samples_repeat(loader):
            runner.logger.warning(
                "resume: images come in the same order, but their crops differ from "
                "those of an uninterrupted run, since loading workers draw them: wrap "
                "the data set as dict(type='SeededDataset', dataset=...)"
            )

    @staticmethod
    def _refuse(
        meta: dict,
        saved: Mapping[str, Any],
        now: Mapping[str, Any],
        loader: DataLoader,
    ) -> None:
        """Refuses what has no clear meaning.

        Raises:
            ValueError: Saying what differs, and what to do.
        """
        unit = now["unit"]
        if saved.get("unit", unit) != unit:
            raise ValueError(
                f"--resume: the checkpoint is of a run by {saved['unit']}s, and the "
                f"config counts {unit}s: resume with the same train_cfg, or {_NEW_RUN}"
            )
        if saved.get("optimizer", now["optimizer"]) != now["optimizer"]:
            raise ValueError(
                f"--resume: the checkpoint was trained with {saved['optimizer']}, and "
                f"the config says {now['optimizer']}, which cannot take over its "
                f"state: resume with {saved['optimizer']}, or {_NEW_RUN}"
            )
        seed = meta.get("seed")
        if None not in (seed, now["seed"]) and seed != now["seed"]:
            raise ValueError(
                f"--resume: the checkpoint was trained with seed {seed}, and the "
                f"config says {now['seed']}: images, crops and masks would be drawn "
                f"otherwise. Resume with randomness.seed={seed}, or {_NEW_RUN}"
            )
        within = _within_epoch(meta, saved, now) if unit == "epoch" else meta["iter"]
        if within and not order_repeats(loader):
            order = type(loader.batch_sampler or loader.dataset).__name__
            sampler = type(getattr(loader.batch_sampler, "sampler", None)).__name__
            raise ValueError(
                f"--resume: the checkpoint is of iteration {meta['iter']}, within an "
                f"epoch, and the order of its images, by {order} of {sampler}, is not "
                "known to repeat, so that some would be seen twice: resume from a "
                "checkpoint of the end of an epoch (epoch_N.pth), or train with "
                "EpochSampler and torch's batches"
            )
        done = meta["epoch"] if unit == "epoch" else meta["iter"]
        end, planned = now["length"], saved.get("length")
        if end is not None and (
            done > end or (done == end and planned not in (end, None))
        ):
            raise ValueError(
                f"--resume: the checkpoint is of {unit} {done}, and the run now ends "
                f"at {end}: nothing is left to train. Set {_LENGTH[unit]} to "
                "more"
            )


def _within_epoch(
    meta: Mapping[str, Any], saved: Mapping[str, Any], now: Mapping[str, Any]
) -> int:
    """Iterations of an epoch that is not complete; 0 in runs by iterations."""
    length = saved.get("epoch_length", now["epoch_length"])
    if now["unit"] == "iteration":
        return 0
    return int(meta["iter"] - meta["epoch"] * length)


def _record(runner: Runner) -> dict[str, Any]:
    """What is compared of a run, in plain values."""
    length, unit = run_length(runner.cfg)
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    loader = runner.train_dataloader
    batch = global_batch(runner.cfg, runner.world_size)
    return dict(
        accumulated=batch and batch.accumulated,
        processes=runner.world_size,
        unit=unit,
        length=length,
        optimizer=type(optimizer).__name__,
        seed=(runner.cfg.get("randomness") or {}).get("seed"),
        images=len(loader.dataset),
        epoch_length=len(loader),
        settings=dict(_settings(runner.cfg)),
    )


def _settings(cfg: Config) -> Iterator[tuple[str, str]]:
    """The compared entries of a config, by dotted key."""
    content = cfg.to_dict()
    for name in _COMPARED + _ALSO:
        for key, value in _flat(name, content.get(name)):
            if key.rsplit(".")[-1] not in _INDIFFERENT:
                yield key, repr(value)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            yield from _flat(f"{key}.{name}", child)
    elif isinstance(value, (list, tuple)) and any(isinstance(x, dict) for x in value):
        for index, child in enumerate(value):
            yield from _flat(f"{key}.{index}", child)
    else:
        yield key, list(value) if isinstance(value, tuple) else value


def _refuse_other_sizes(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights of other sizes than the model's: so has the optimiser's state.

    Raises:
        ValueError: Naming one of them.
    """
    for name, parameter in unwrapped(model).named_parameters():
        saved = state.get(name)
        if saved is not None and saved.shape != parameter.shape:
            raise ValueError(
                f"--resume: {name} has {_by(saved)} values in the checkpoint and "
                f"{_by(parameter)} in the model: the model's settings or, where its "
                f"head follows the class folders, the classes have changed; {_NEW_RUN}"
            )


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _take_seed(runner: Runner, seed: int | None) -> None:
    """Gives a checkpoint's seed to the sampler of a config without one.

    mmengine restores it for the model alone.
    """
    if seed is None or (runner.cfg.get("randomness") or {}).get("seed") is not None:
        return
    loader = runner.train_dataloader
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    given = (runner.cfg.train_dataloader.get("sampler") or {}).get("seed")
    if hasattr(sampler, "seed") and given is None:
        sampler.seed = seed
        if (seeded := find_seeded_dataset(loader.dataset)) is not None:
            seeded.seed = seed


def _differs(runner: Runner, checkpoint: dict) -> str:
    """Says whether the optimiser's settings or the schedules are others, and which."""
    schedulers, states = runner.param_schedulers, checkpoint.get("param_schedulers")
    groups = checkpoint.get("optimizer", {}).get("param_groups")
    if not isinstance(schedulers, list) or groups is None:
        return ""
    wrapper = runner.optim_wrapper
    fresh = wrapper.optimizer.param_groups
    if [len(x["params"]) for x in fresh] != [len(x["params"]) for x in groups]:
        raise ValueError(
            "--resume: the optimiser of the checkpoint has other groups of parameters "
            "than the config's (paramwise_cfg, frozen parts or the model differ): "
            f"resume with the same, or {_NEW_RUN}"
        )
    scheduled = {scheduler.param_name for scheduler in schedulers}
    for now, before in zip(fresh, groups, strict=True):
        for key in now.keys() & before.keys() - scheduled - {"params"}:
            if _numbers(now[key]) and now[key] != before[key]:
                return f"{key} {before[key]} → {now[key]}"
    described = [_described(scheduler.state_dict()) for scheduler in schedulers]
    if described != [_described(state) for state in states or []]:
        return "the schedule"
    return ""


def _counts_other_epochs(
    runner: Runner, saved: Mapping[str, Any], now: Mapping[str, Any]
) -> bool:
    """Whether schedules by iterations are somewhere else at the same epoch.

    They may be as long as before, where there are more epochs of fewer iterations.
    """
    schedulers = runner.param_schedulers
    return (
        now["unit"] == "epoch"
        and saved.get("epoch_length", now["epoch_length"]) != now["epoch_length"]
        and isinstance(schedulers, list)
        and any(not scheduler.by_epoch for scheduler in schedulers)
    )


def _numbers(value: Any) -> bool:
    values = value if isinstance(value, (tuple, list)) else [value]
    return all(isinstance(x, (int, float)) for x in values)


def _described(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler does."""
    return {key: value for key, value in state.items() if key not in _PROGRESS}


def _restart_schedule(runner: Runner, checkpoint: dict) -> None:
    """Evaluates the run's own schedule at the step of a checkpoint.

    Raises:
        ValueError: If the schedule cannot be evaluated there.
    """
    schedulers = runner.param_schedulers
    if not isinstance(runner, Runner) or not isinstance(schedulers, list):
        raise ValueError(
            "--resume: the learning rate, its schedule or the data differ from the "
            "checkpoint's, and runs with several optimisers or sharded parameters go "
            f"on unchanged only: resume with the same, or {_NEW_RUN}"
        )
    if any(getattr(scheduler, "need_val_args", False) for scheduler in schedulers):
        raise ValueError(
            "--resume: the learning rate, its schedule or the data differ from the "
            "checkpoint's, and a schedule that follows validations cannot be "
            f"evaluated anew: resume with the same, or {_NEW_RUN}"
        )
    loader, meta = runner.train_dataloader, checkpoint["meta"]
    by_steps = any(isinstance(hook, AccumulationHook) for hook in runner.hooks)
    count = runner.optim_wrapper._accumulative_counts if by_steps else 1
    epochs, steps = meta["epoch"], steps_per_epoch(loader, count)
    rest = meta["iter"] - epochs * len(loader)
    if run_length(runner.cfg)[1] == "iteration":
        epochs, rest = 0, meta["iter"]
    with warnings.catch_warnings():
        # Of schedulers that step before the optimiser.
        warnings.simplefilter("ignore")
        for length in [steps] * epochs + [rest // count]:
            for _ in range(length):
                for scheduler in schedulers:
                    if not scheduler.by_epoch:
                        scheduler.step()
            if epochs:
                epochs -= 1
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()
    fresh = runner.optim_wrapper.state_dict()
    for key in ("param_groups", "base_param_settings"):
        if key in fresh and "optimizer" in checkpoint:
            checkpoint["optimizer"][key] = fresh[key]
    checkpoint["param_schedulers"] = [x.state_dict() for x in schedulers]
