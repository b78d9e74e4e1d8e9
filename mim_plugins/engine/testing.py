"""What the options of tools/test.py change in a config: as the toolboxes' own tools."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from .config.overrides import parts

PICKLES = (".pkl", ".pickle")

# What draws predictions, by default_scope; its options to draw all, and for a folder.
_DRAWERS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "mmpretrain": ("ClassPicturesHook", dict(enable=True, interval=1), "out_dir"),
    "mmdet": ("DetVisualizationHook", dict(draw=True), "test_out_dir"),
    "mmseg": ("SegVisualizationHook", dict(draw=True, interval=1), None),
}


def apply_amp(cfg: Config) -> None:
    """Has a test computed in half precision.

    Args:
        cfg: The config; changed in place.

    Raises:
        ValueError: If it cannot be.
    """
    if cfg.get("default_scope") == "mmdet" and get_device() == "cpu":
        raise ValueError(
            "--amp is not for detection on a CPU: it computes in bfloat16 there, and "
            "mmcv's RoIAlign and NMS do not; leave --amp out, or test on a GPU"
        )
    cfg.test_cfg.fp16 = True


def apply_tta(cfg: Config) -> None:
    """Has a test averaged over augmented images.

    That is ``tta_model`` and ``tta_pipeline`` of the config or, for classification and
    detection (of boxes), where it has none, the average of the image and its mirror
    image.

    Args:
        cfg: The config; changed in place.

    Raises:
        ValueError: If it averages already, has no such pipeline, or predicts the masks
            of objects.
    """
    if "module" in cfg.model:
        raise ValueError(f"--tta: {cfg.model.type} of this config averages already")
    scope = cfg.get("default_scope")
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    model, pipeline = cfg.get("tta_model"), cfg.get("tta_pipeline")
    if scope == "mmseg" and not (model and pipeline):
        raise ValueError(
            "--tta: this config has no tta_model and tta_pipeline; those of "
            "configs/_base_/datasets/ade20k_512.py are an example"
        )
    if scope == "mmdet" and any(
        isinstance(part, Mapping) and path.endswith("mask_head")
        for path, part in parts(cfg.model)
    ):
        raise ValueError(
            "--tta: mmdet averages boxes alone, and this model predicts masks, too; "
            "test its boxes with --cfg-options model.roi_head.mask_head=None "
            "test_evaluator.metric=bbox"
        )
    if model is None:
        nms = dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
        model = (
            dict(type="DetTTAModel", tta_cfg=nms)
            if scope == "mmdet"
            else dict(type="mmpretrain.AverageClsScoreTTA")
        )
    if pipeline is None:
        *steps, pack = copy.deepcopy(dataset.pipeline)
        if scope == "mmdet":
            keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            keys += ("flip", "flip_direction", *pack.get("meta_keys", ()))
            pack["meta_keys"] = tuple(dict.fromkeys(keys))
        flips = [dict(type="RandomFlip", prob=p) for p in (1.0, 0.0)]
        pipeline = [*steps, dict(type="TestTimeAug", transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**{**model, "module": cfg.model})
    dataset.pipeline = pipeline


def draw_predictions(cfg: Config, folder: str) -> None:
    """Has the predictions of every test image drawn.

    Args:
        cfg: The config; changed in place.
        folder: Where pictures go.

    Raises:
        ValueError: If the folder cannot be written to, or predictions of augmented
            images of a classifier are to be drawn.
    """
    path = check_writable("--show-dir", folder, is_folder=True)
    scope = cfg.get("default_scope", "mmpretrain")
    kind, options, key = _DRAWERS[scope]
    if scope == "mmpretrain" and "module" in cfg.model:
        raise ValueError(
            "--show-dir draws the one image that a classifier gets, and with --tta it "
            "gets several: leave one of the two out"
        )
    hooks = cfg.setdefault("default_hooks", {})
    hook = {"type": kind, **(hooks.get("visualization") or {}), **options}
    if hook["type"] == "VisualizationHook":
        hook["type"] = kind
    if key is not None:
        hook[key] = path
    else:
        visualizer = cfg.setdefault("visualizer", dict(type="SegLocalVisualizer"))
        visualizer.setdefault("vis_backends", [dict(type="LocalVisBackend")])
        visualizer["save_dir"] = path
    hooks["visualization"] = hook


def write_results(cfg: Config, out: str) -> str | None:
    """Has what a test finds written to a file or folder.

    Args:
        cfg: The config; changed in place.
        out: A ``.pkl`` file for predictions of detection or classification, a folder
            for predicted maps of segmentation, a ``.json`` file for metrics.

    Returns:
        The file for metrics, which the caller writes, or None.

    Raises:
        ValueError: If it is none of these, or cannot be written.
    """
    suffix, scope = Path(out).suffix.lower(), cfg.get("default_scope")
    if suffix == ".json":
        return check_writable("--out", out)
    many = isinstance(cfg.test_evaluator, list)
    metrics: list[Any] = cfg.test_evaluator if many else [cfg.test_evaluator]
    if scope == "mmseg":
        judges = [x for x in metrics if str(x["type"]).endswith("IoUMetric")]
        if suffix in PICKLES or not judges:
            raise ValueError(
                f"--out {out}: predicted maps of segmentation are written, by "
                "IoUMetric of test_evaluator, to a folder; a file ends in .json and "
                "is for metrics"
            )
        path = check_writable("--out", out, is_folder=True)
        for judge in judges:
            judge["output_dir"] = path
        return None
    if suffix not in PICKLES:
        raise ValueError(
            f"--out {out}: give a file that ends in .pkl for predictions, in .json for "
            "metrics"
        )
    kind = "DumpDetResults" if scope == "mmdet" else "DumpResults"
    path = check_writable("--out", out)
    cfg.test_evaluator = [*metrics, dict(type=kind, out_file_path=path)]
    return None


def check_writable(option: str, path: str, is_folder: bool = False) -> str:
    """Check that a file or folder can be written, before there is something to write.

    Args:
        option: That names it, for the message.
        path: The file or folder; folders are created.
        is_folder: Whether it is a folder.

    Returns:
        The absolute path.

    Raises:
        ValueError: If it cannot be written.
    """
    full = Path(path).expanduser().absolute()
    folder = full if is_folder else full.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{option} {path} cannot be written: {folder} cannot be made a folder "
            f"({error.strerror})"
        ) from error
    if not is_folder and full.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    if not os.access(full if full.exists() else folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written: no permission")
    return str(full)
