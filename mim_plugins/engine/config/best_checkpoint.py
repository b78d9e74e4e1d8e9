"""Whether the figure that decides which checkpoint is best will ever be computed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config


def check_best(cfg: Config) -> str | None:
    """Refuse a ``save_best``, or a ``monitor`` of early stopping, that no metric has.

    mmengine looks it up after the first validation. Metrics whose names are not known
    here let any name pass.

    Args:
        cfg: The config of a training.

    Returns:
        A warning where there is no validation to decide, or None.

    Raises:
        ValueError: Naming the figures that there are.
    """
    for path, wanted in _wanted(cfg):
        if not cfg.get("val_dataloader"):
            measured = _of_hooks(cfg) if path.endswith("save_best") else []
            if wanted in measured:
                continue
            if not measured or wanted == "auto":
                return (
                    f"{path}={wanted!r} has no effect: this config has no validation "
                    "(val_dataloader)" + _hint(cfg)
                )
            raise ValueError(
                f"{path}={wanted!r} is none of the figures of custom_hooks, which are "
                f"{', '.join(measured)}"
            )
        names = metric_names(cfg.get("val_evaluator"))
        if names is None or wanted in names or wanted == "auto":
            continue
        close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
        ending = [name for name in names if name.endswith(f"/{wanted}")]
        hint = next(iter(ending or close), None)
        raise ValueError(
            f"{path}={wanted!r} is none of the figures of val_evaluator, which are "
            f"{', '.join(names)}"
            + (f": did you mean {hint!r}?" if hint else "")
            + (" ('auto' takes the first)" if path.endswith("save_best") else "")
        )
    return None


def _wanted(cfg: Config) -> Iterator[tuple[str, str]]:
    """Dotted key and value of every figure that a hook waits for."""
    hooks: dict[str, Any] = {
        f"default_hooks.{name}": hook
        for name, hook in (cfg.get("default_hooks") or {}).items()
    }
    for index, hook in enumerate(cfg.get("custom_hooks") or []):
        hooks[f"custom_hooks.{index}"] = hook
    for path, hook in hooks.items():
        if not isinstance(hook, Mapping):
            continue
        stops = str(hook.get("type", "")).endswith("EarlyStoppingHook")
        for key in ("save_best", "monitor"):
            value = hook.get(key) if key == "save_best" or stops else None
            for name in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(name, str):
                    yield f"{path}.{key}", name


# What hooks report; each of their blocks has figures of its own.
_FIGURES = {
    "KNNHook": ("knn_top1",),
    "LinearProbeHook": ("probe_top1",),
    "FeatureRankHook": ("rankme", "lidar", "alpha_req", "feature_std"),
}


def _of_hooks(cfg: Config) -> list[str]:
    """The figures that hooks report to ``save_best``."""
    found: list[str] = []
    for hook in cfg.get("custom_hooks") or []:
        names = _FIGURES.get(str(hook.get("type")).rpartition(".")[2], ())
        found += names
        for block in hook.get("blocks") or ():
            # LiDAR is computed of the last latent alone.
            found += [f"{x}_block_{block}" for x in names if x != "lidar"]
    return found


def _hint(cfg: Config) -> str:
    names = _of_hooks(cfg)
    return f"; save_best can be one of {', '.join(names)}" if names else ""


def metric_names(evaluator: Any) -> list[str] | None:
    """Names of what an evaluator returns, or None if one of its metrics is not known.

    Args:
        evaluator: A metric's config, a list of such, or an ``Evaluator`` with
            ``metrics``.
    """
    if isinstance(evaluator, Mapping) and "metrics" in evaluator:
        evaluator = evaluator["metrics"]
    found: list[str] = []
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        kind = metric.get("type") if isinstance(metric, Mapping) else None
        if kind is None or kind not in _NAMES:
            kind = str(kind).rpartition(".")[2]
        # With classwise=True, there are figures of every class of the data.
        if kind not in _NAMES or metric.get("classwise"):
            return None
        default, names = _NAMES[kind]
        prefix = metric.get("prefix") or default
        found += [f"{prefix}/{name}" if prefix else name for name in names(metric)]
    return found


def _many(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _thresholds(metric: Mapping) -> list[str]:
    """What mmpretrain adds to a name for each threshold."""
    values = _many(metric.get("thrs", 0.0))
    if len(values) == 1:
        return [""]
    return ["_no-thr" if x is None else f"_thr-{x:.2f}" for x in values]


def _of_accuracy(metric: Mapping) -> list[str]:
    ranks, thresholds = _many(metric.get("topk", (1,))), _thresholds(metric)
    return [f"top{k}{threshold}" for k in ranks for threshold in thresholds]


def _of_single_labels(metric: Mapping) -> list[str]:
    items = metric.get("items", ("precision", "recall", "f1-score"))
    average = metric.get("average", "macro")
    suffix = {None: "_classwise", "micro": "_micro"}.get(average, "")
    order = ("precision", "recall", "f1-score", "support")
    return [
        f"{item}{threshold}{suffix}"
        for threshold in _thresholds(metric)
        for item in order
        if item in items
    ]


_COCO_ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_PROPOSAL_ITEMS = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")


def _of_coco(metric: Mapping) -> list[str]:
    found: list[str] = []
    for kind in _many(metric.get("metric", "bbox")):
        items = metric.get("metric_items")
        if kind == "proposal_fast":
            numbers = metric.get("proposal_nums", (100, 300, 1000))
            found += [f"AR@{number}" for number in numbers]
        elif kind == "proposal":
            found += items or _PROPOSAL_ITEMS
        else:
            found += [f"{kind}_{item}" for item in items or _COCO_ITEMS]
    return found


_IOU_ITEMS = {
    "mIoU": ("mIoU", "mAcc"),
    "mDice": ("mDice", "mAcc"),
    "mFscore": ("mFscore", "mPrecision", "mRecall"),
}


def _of_iou(metric: Mapping) -> list[str]:
    kinds = _many(metric.get("iou_metrics", ("mIoU",)))
    found = [name for kind in kinds for name in _IOU_ITEMS.get(kind, ())]
    return list(dict.fromkeys(["aAcc", *found]))


# Prefix and names by metric: of mmpretrain, mmdet and mmseg.
_NAMES: dict[str, tuple[str | None, Callable[[Mapping], list[str]]]] = {
    "Accuracy": ("accuracy", _of_accuracy),
    "SingleLabelMetric": ("single-label", _of_single_labels),
    "CocoMetric": ("coco", _of_coco),
    "IoUMetric": (None, _of_iou),
}
