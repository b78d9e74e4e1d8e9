"""The values a config may have: one table for all of it, checked before a build."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import LogProcessor

from .overrides import READ, parts
from .value_kinds import (
    ASCENDING,
    BELOW_ONE,
    BETAS,
    CLASS,
    COUNT,
    FACTOR,
    FLAG,
    INDEX,
    NORM_TYPE,
    PART,
    PART_OR_PARTS,
    PARTS,
    POSITIVE,
    SHARE,
    SIZE,
    STRING,
    TEXT,
    Kind,
    either,
    is_sequence,
    many,
    number,
    one_of,
    span,
)

# Dotted keys and what they take: * is one key, or the number of a list's item, and **
# any number of them. The first pattern that fits decides; keys without one take
# anything finite. Parts that are built by a class are in config_arguments.py, too.
_TABLE: dict[str, Kind] = {
    # The parts of a config.
    "model randomness": PART,
    "train_dataloader train_cfg optim_wrapper": either(PART, None),
    "val_dataloader test_dataloader val_cfg test_cfg": either(PART, None),
    "auto_scale_lr default_hooks default_hooks.* env_cfg": either(PART, None),
    "log_processor visualizer data_preprocessor strategy": either(PART, None),
    "param_scheduler val_evaluator test_evaluator": either(PART_OR_PARTS, None),
    "custom_hooks": either(PARTS, None),
    "work_dir load_from experiment_name default_scope": either(TEXT, None),
    "visualizer.vis_backends": either(PARTS, None),
    "custom_imports": either(PART, None),
    "custom_imports.imports": many(TEXT),
    "resume find_unused_parameters": FLAG,
    "log_level": one_of("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET"),
    "randomness.seed": either(number(0, 2**32 - 1, whole=True), None),
    "randomness.deterministic randomness.diff_rank_seed": FLAG,
    "env_cfg.cudnn_benchmark": FLAG,
    "env_cfg.mp_cfg env_cfg.dist_cfg": PART,
    "env_cfg.mp_cfg.mp_start_method": one_of("fork", "spawn", "forkserver"),
    "env_cfg.mp_cfg.opencv_num_threads": INDEX,
    "env_cfg.dist_cfg.backend": one_of(
        *("nccl", "gloo", "mpi", "hccl", "cncl", "mccl", "smddp")
    ),
    "env_cfg.resource_limit log_processor.window_size": COUNT,
    # The run.
    "train_cfg.max_epochs train_cfg.max_iters": COUNT,
    "train_cfg.val_interval": number(1),
    "train_cfg.val_begin": INDEX,
    "train_cfg.by_epoch val_cfg.fp16 test_cfg.fp16": FLAG,
    "auto_scale_lr.base_batch_size": COUNT,
    "auto_scale_lr.enable": FLAG,
    # Data loaders, those of hooks included.
    "**_dataloader.batch_size **_dataloader.prefetch_factor": either(COUNT, None),
    "**_dataloader.num_workers": number(0, 1024, whole=True),
    "**_dataloader.timeout": FACTOR,
    "**_dataloader.persistent_workers **_dataloader.pin_memory": FLAG,
    "**_dataloader.drop_last **_dataloader.sampler.shuffle": FLAG,
    "**_dataloader.dataset": PART,
    "**_dataloader.sampler **_dataloader.batch_sampler": either(PART, None),
    "**_dataloader.**.ann_file **_dataloader.**.data_root": either(STRING, None),
    "**_dataloader.**.pipeline test_pipeline": PARTS,
    # The optimiser.
    "optim_wrapper.accumulative_counts": COUNT,
    "optim_wrapper.clip_grad optim_wrapper.paramwise_cfg": either(PART, None),
    "optim_wrapper.optimizer optim_wrapper.**.custom_keys": PART,
    "optim_wrapper.clip_grad.max_norm optim_wrapper.clip_grad.clip_value": POSITIVE,
    "optim_wrapper.clip_grad.norm_type": NORM_TYPE,
    "optim_wrapper.**.lr": FACTOR,
    "optim_wrapper.**.weight_decay": FACTOR,
    "optim_wrapper.**.betas": BETAS,
    "optim_wrapper.**.eps": many(FACTOR),
    "optim_wrapper.**.momentum": BELOW_ONE,
    "optim_wrapper.**.nesterov optim_wrapper.**.amsgrad": FLAG,
    "**.layer_decay_rate optim_wrapper.**.decay_rate": number(over=0, high=1),
    "optim_wrapper.**.num_layers": COUNT,
    "optim_wrapper.**.lr_mult optim_wrapper.**.decay_mult": FACTOR,
    "optim_wrapper.**.bias_lr_mult optim_wrapper.**.bias_decay_mult": FACTOR,
    "optim_wrapper.**.norm_decay_mult optim_wrapper.**.flat_decay_mult": FACTOR,
    # Schedules.
    "param_scheduler.**.T_max param_scheduler.**.step_size": COUNT,
    "param_scheduler.**.end param_scheduler.**.total_iters": COUNT,
    "param_scheduler.**.begin": INDEX,
    "param_scheduler.**.milestones": ASCENDING,
    "param_scheduler.**.start_factor": number(over=0, high=1),
    "param_scheduler.**.end_factor param_scheduler.**.eta_min_ratio": SHARE,
    "param_scheduler.**.eta_min": either(FACTOR, None),
    "param_scheduler.**.gamma param_scheduler.**.power": POSITIVE,
    "param_scheduler.**.by_epoch param_scheduler.**.convert_to_iter_based": FLAG,
    # Hooks.
    "default_hooks.*.interval custom_hooks.*.interval": either(COUNT, -1),
    "**_hooks.**.max_keep_ckpts": either(COUNT, -1),
    "**_hooks.*.by_epoch **_hooks.*.save_last **_hooks.*.at_start": FLAG,
    "**_hooks.*.save_optimizer **_hooks.*.save_param_scheduler": FLAG,
    "**_hooks.*.save_best": either(many(TEXT), None),
    "**_hooks.*.rule": either(many(one_of("greater", "less")), None),
    "custom_hooks.*.momentum": number(over=0, under=1),
    # Models.
    "**.type": CLASS,
    "model.data_preprocessor model.backbone": either(PART, None),
    "model.**.num_heads model.**.num_layers model.**.depths": many(COUNT),
    "model.**.embed_dims model.**.embed_dim": many(COUNT),
    "model.**.feedforward_channels model.**.window_size": many(COUNT),
    "model.**.in_channels model.**.out_channels model.**.channels": many(COUNT),
    "model.**.num_classes model.**.batch_size": COUNT,
    "model.**.pad_size_divisor": COUNT,
    "model.**.depth": many(INDEX),
    "model.**.img_size model.**.patch_size": SIZE,
    "model.**.mask_ratio": number(over=0, under=1),
    "model.**.drop_path_rate model.**.drop_rate model.**.attn_drop_rate": BELOW_ONE,
    "model.**.label_smooth_val": BELOW_ONE,
    "model.**.dropout_ratio": either(SHARE, -1),
    "model.**.mlp_ratio": many(POSITIVE),
    "model.**.loss_weight": many(FACTOR),
    "model.**.data_preprocessor.mean": either(many(number()), None),
    "model.**.data_preprocessor.std": either(many(POSITIVE), None),
    # Pipelines.
    "**.pipeline.**.prob": either(many(SHARE), None),
    "**.pipeline.**.crop_ratio_range": span(number(over=0, high=1)),
    "**.pipeline.**.aspect_ratio_range": span(POSITIVE),
    "**.pipeline.**.erase_prob **.pipeline.**.cat_max_ratio": SHARE,
    "**.pipeline.**.min_area_ratio **.pipeline.**.max_area_ratio": SHARE,
    "**.pipeline.**.keep_ratio": FLAG,
    "**.pipeline.**.crop_size": either(many(POSITIVE), None),
}

# The keys of parts that no class is built from. Constructors of optimisers may have
# further ones, so that only what resembles one of these is refused.
_KEYS = {
    "auto_scale_lr": ("base_batch_size", "enable"),
    "randomness": ("seed", "deterministic", "diff_rank_seed"),
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "env_cfg.mp_cfg": ("mp_start_method", "opencv_num_threads"),
    "env_cfg.dist_cfg": (
        *("backend", "init_backend", "timeout", "init_method", "port"),
        *("world_size", "rank", "local_rank"),
    ),
    "optim_wrapper.paramwise_cfg": (
        *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult"),
        *("dwconv_decay_mult", "flat_decay_mult", "dcn_offset_lr_mult"),
        *("bypass_duplicate", "layer_decay_rate", "decay_rate", "decay_type"),
        "num_layers",
    ),
    "custom_imports": ("imports", "allow_failed_imports"),
    "optim_wrapper.clip_grad": (
        *("type", "max_norm", "norm_type", "error_if_nonfinite", "foreach"),
        "clip_value",
    ),
}

# Parts of loaders that are built by a class.
_TYPED = re.compile(r"_dataloader(\..+)?\.(dataset|sampler|batch_sampler)$")

# Optimisers that find a learning rate by themselves.
_OWN_RATE = re.compile("Adafactor|DAdapt|Prodigy")


def check_values(cfg: Config) -> None:
    """Refuse values that make no sense, and keys that nothing reads.

    Args:
        cfg: The config, not built yet; parts of it that nothing reads are not checked.

    Raises:
        ValueError: Naming the key, what it takes and what it has.
    """
    for key, value in parts(cfg):
        if key.partition(".")[0] not in READ:
            continue
        if kind := _kind(key):
            if not kind.fits(value):
                raise ValueError(f"{key} must be {kind.wanted}, but is {value!r}")
        elif not _finite(value) and not key.endswith("norm_type"):
            raise ValueError(f"{key} must be finite, but is {value!r}")
        if isinstance(value, Mapping):
            if _TYPED.search(key) and "type" not in value:
                raise ValueError(f"{key}.type is missing")
            _check_keys(key, value)
            _check_heads(key, value)
    loader = cfg.get("train_dataloader")
    if loader and not {"batch_size", "batch_sampler"} & loader.keys():
        raise ValueError("train_dataloader.batch_size is missing")
    _check_rate(cfg)
    _check_order(cfg)


def _compiled(pattern: str) -> re.Pattern:
    any_depth = re.escape(pattern).replace(r"\*\*\.", r"(?:.+\.)?")
    return re.compile(any_depth.replace(r"\*\*", ".*").replace(r"\*", r"[^.]+"))


# By the last key of a pattern, which is always a name or *.
_BY_NAME: dict[str, list[tuple[re.Pattern, Kind]]] = defaultdict(list)
for _patterns, _value_kind in _TABLE.items():
    for _pattern in _patterns.split():
        _BY_NAME[_pattern.rpartition(".")[2]].append((_compiled(_pattern), _value_kind))


def _kind(key: str) -> Kind | None:
    """What a key takes, if the table has it."""
    name = key.rpartition(".")[2]
    for pattern, kind in _BY_NAME.get(name, []) + _BY_NAME["*"]:
        if pattern.fullmatch(key):
            return kind
    return None


def _finite(value: Any) -> bool:
    if is_sequence(value):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_keys(key: str, part: Mapping) -> None:
    known: tuple[str, ...] = _KEYS.get(key, ())
    if key.startswith("optim_wrapper.paramwise_cfg.custom_keys."):
        known = ("lr_mult", "decay_mult")
    if key == "log_processor":
        known = ("type", *list(inspect.signature(LogProcessor.__init__).parameters)[1:])
    for name, value in part.items() if key.endswith("custom_keys") else ():
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}.{name} must be a dict, but is {value!r}")
    for name in part if known else ():
        if name not in known and name != "_scope_":
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.7)
            if not close and "paramwise_cfg" in key:
                continue
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"nothing reads {name!r} of {key}, which has {', '.join(known)}.{hint}"
            )


def _check_heads(key: str, part: Mapping) -> None:
    """Refuses widths that do not divide by the number of attention heads."""
    dims, heads = part.get("embed_dims"), part.get("num_heads")
    if not COUNT.fits(dims) or (is_sequence(heads) and "depths" not in part):
        return
    # Swin and Hiera double their width from one stage to the next.
    counts: Any = heads if is_sequence(heads) else [heads]
    for stage, count in enumerate(counts):
        if COUNT.fits(count) and dims * 2**stage % count:
            raise ValueError(
                f"{key}.embed_dims={dims} does not divide by {key}.num_heads={heads}"
                + (f": stage {stage} is {dims * 2**stage} wide" if stage else "")
            )


def _check_rate(cfg: Config) -> None:
    """Refuses an optimiser without a learning rate, which a recipe has to say."""
    wrapper = cfg.get("optim_wrapper")
    if wrapper is None:
        return
    optimizer = wrapper.get("optimizer")
    if optimizer is None:
        # A constructor of one's own may have several.
        if not any(
            isinstance(x, Mapping) and "optimizer" in x for x in wrapper.values()
        ):
            raise ValueError("optim_wrapper.optimizer is missing")
        return
    kind = optimizer.get("type")
    if kind is None:
        raise ValueError("optim_wrapper.optimizer.type is missing, such as 'AdamW'")
    if "lr" not in optimizer and not _OWN_RATE.match(
        getattr(kind, "__name__", str(kind))
    ):
        raise ValueError(
            "optim_wrapper.optimizer.lr, the learning rate, is missing: "
            f"optim_wrapper.optimizer is {dict(optimizer)}"
        )


def _check_order(cfg: Config) -> None:
    """Refuses schedulers that end before they begin."""
    for key, value in parts(cfg.get("param_scheduler")):
        if not isinstance(value, Mapping) or value.get("end") is None:
            continue
        begin, end = value.get("begin", 0), value["end"]
        if begin >= end:
            key = f"param_scheduler.{key}"
            raise ValueError(
                f"{key}.end={end} must be over {key}.begin, which is {begin}"
            )
