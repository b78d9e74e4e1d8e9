"""Pre-training on real images within minutes, and the quality of the encoders."""

from __future__ import annotations

import copy
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from ..analysis.analyze import Model, analyze
from ..analysis.files import write_tables
from ..engine import load_config, train
from ..engine.errors import explained
from ..evaluation import extract_features, knn_predict
from ..evaluation.encoder import Encoder
from ..model_index import config_folder
from .terminal import announce

CONFIGS = config_folder() / "demo"
LABELS_PER_CLASS = 10
SEEDS = (0, 1, 2)
# Pre-training on a folder of one's own sees about this many images in all.
IMAGES_SEEN = 60_000


@dataclass
class Accuracy:
    """Test accuracies of one initialisation, in percent, one per seed."""

    name: str
    knn: list[float] = field(default_factory=list)
    few_label: list[float] = field(default_factory=list)


def run_digits(work_dir: Path) -> list[Accuracy]:
    """Pre-trains MAE and DeepMIM on handwritten digits and compares what they learnt.

    Every number is measured on a test part that neither pre-training nor
    fine-tuning sees.

    Args:
        work_dir: Where data, checkpoints, curves and pictures go.

    Returns:
        Accuracies of random initialisation, MAE and DeepMIM.
    """
    init_default_scope("mmpretrain")
    data = work_dir / "data"
    write_digits(data)
    hooks = _measuring_hooks(data)
    runners = {
        name: pretrain(
            f"{name.lower()}_digits.py", data, work_dir / name.lower(), hooks
        )
        for name in ("MAE", "DeepMIM")
    }
    draw_losses(runners, work_dir / "loss_curves.png")
    results = []
    for name in ("random", *runners):
        start = "random weights" if name == "random" else f"the encoder of {name}"
        announce(f"Evaluating {start} on 360 held-out digits")
        runner = runners.get(name)
        checkpoint = None
        if runner is not None:
            checkpoint = Path(runner.work_dir) / "encoder.pth"
            torch.save({"state_dict": runner.model.state_dict()}, checkpoint)
        result = Accuracy(name)
        # One pre-training has one k-NN accuracy; random ones are drawn per seed.
        for seed in SEEDS if runner is None else SEEDS[:1]:
            result.knn.append(knn_accuracy(data, checkpoint, seed))
        votes = "the vote of the 20 nearest of 1,437 digits"
        announce(f"  k-NN, by {votes}: {_mean(result.knn)} %")
        epochs = load_config(CONFIGS / "finetune_digits.py").train_cfg.max_epochs
        for number, seed in enumerate(SEEDS, 1):
            folder = work_dir / "finetune" / f"{name.lower()}_{seed}"
            announce(
                f"  fine-tuning all weights on {LABELS_PER_CLASS} labelled digits per "
                f"class, {number} of {len(SEEDS)}",
                epochs,
                every=epochs + 1,
            )
            result.few_label.append(few_label_accuracy(data, checkpoint, seed, folder))
            announce(f"    {result.few_label[-1]:.1f} % correct")
        results.append(result)
    announce("Looking at the layers")
    look_inside(runners, data / "test", work_dir / "analysis", data / "train")
    return results


def run_images(data: Path, work_dir: Path) -> list[tuple[str, float, float]]:
    """Pre-trains DeepMIM on a folder of one's own images.

    Args:
        data: Any folder with images below it.
        work_dir: Where checkpoint, curves and pictures go.

    Returns:
        For each loss its name, its mean over the first and over the last epoch.
    """
    init_default_scope("mmpretrain")
    cfg = load_config(CONFIGS / "deepmim_images.py", {"data_root": str(data)})
    # Built once to count the images: few images get more epochs.
    with explained(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset.dataset)
    num_images = len(dataset)
    epochs = min(max(IMAGES_SEEN // num_images, 11), 1000)
    batch_size = min(cfg.train_dataloader.batch_size, num_images)
    runner = pretrain(
        "deepmim_images.py",
        data,
        work_dir / "images",
        options={
            "train_cfg.max_epochs": epochs,
            "param_scheduler.1.end": epochs,
            "param_scheduler.1.T_max": epochs - 10,
            "train_dataloader.batch_size": batch_size,
            "default_hooks.checkpoint.interval": max(epochs // 3, 1),
        },
    )
    draw_losses({"DeepMIM": runner}, work_dir / "loss_curves.png")
    look_inside({"DeepMIM": runner}, data, work_dir / "analysis")
    per_epoch = num_images // batch_size
    return [
        (name, float(values[:per_epoch].mean()), float(values[-per_epoch:].mean()))
        for name, values in losses_of(runner)
    ]


def look_inside(
    runners: dict[str, Runner], data: Path, out: Path, known: Path | None = None
) -> None:
    """Writes what the report shows of the layers, where images can be read.

    Args:
        runners: Pre-trainings.
        data: Images to look at.
        out: Where the tables go.
        known: Labelled images for the probes, or None.
    """
    models = []
    for name, runner in runners.items():
        encoder = Encoder(runner.cfg)
        state = runner.model.backbone.state_dict()
        encoder.backbone.load_state_dict(state)
        models.append(Model(name, encoder))
    try:
        found = analyze(
            models,
            str(data),
            train_data=None if known is None else str(known),
            num_images=360,
            workers=0,
        )
    except ValueError as error:  # of a few images, or of an unreadable one
        announce(f"Layers are left out: {error}")
        return
    write_tables(found, out)


def _measuring_hooks(data: Path) -> list[dict]:
    """k-NN and a linear probe of the digits that pre-training does not see."""
    cfg = load_config(CONFIGS / "finetune_digits.py", {"data_root": str(data)})
    loaders: dict[str, dict] = {}
    for name, part in (("train", "train"), ("val", "test")):
        loader = copy.deepcopy(cfg.test_dataloader.to_dict())
        loader["dataset"]["data_prefix"] = part
        loaders[f"{name}_dataloader"] = loader
    return [
        dict(type="KNNHook", **loaders),
        dict(type="LinearProbeHook", num_images=1437, **loaders),
    ]


def pretrain(
    config: str,
    data: Path,
    work_dir: Path,
    hooks: Sequence[dict] = (),
    options: dict[str, Any] | None = None,
) -> Runner:
    """Pre-trains with a config of ``configs/demo`` and draws reconstructions."""
    cfg = load_config(CONFIGS / config)
    epochs = (options or {}).get("train_cfg.max_epochs", cfg.train_cfg.max_epochs)
    kind = "MAE" if cfg.model.type == "MaskedImageModel" else cfg.model.type
    announce(f"Pre-training {kind} for {epochs} epochs", epochs, max(1, epochs // 10))
    hooks = [
        *cfg.custom_hooks,
        dict(type="ReconstructionHook", interval=max(1, epochs // 10), num_images=8),
        *hooks,
    ]
    return _train_anew(
        config,
        work_dir,
        {"data_root": str(data), "custom_hooks": hooks, **(options or {})},
    )


def _train_anew(config: str, work_dir: Path, options: dict[str, Any]) -> Runner:
    """Trains, and replaces the checkpoints of an earlier demo."""
    for checkpoint in work_dir.glob("epoch_*.pth"):
        checkpoint.unlink()
    # Their logs, too: they would be drawn as parts of one run.
    for log in work_dir.glob("*/vis_data"):
        shutil.rmtree(log.parent)
    return train(
        CONFIGS / config,
        work_dir=str(work_dir),
        precision="fp32",
        cfg_options=options,
        verbose=True,  # on a standard output that goes to a file, see quiet()
    )


def write_digits(folder: Path) -> None:
    """Writes scikit-learn's digits as ``{train,test}/<digit>/<number>.png``, 16x16.

    Real data: 1,797 handwritten digits of the UCI test set (Alpaydin and Kaynak,
    1998), 360 of which are the test part.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)),
        test_size=360,
        stratify=digits.target,
        random_state=0,
    )
    for part, indices in zip(("train", "test"), parts, strict=True):
        for index in indices:
            target = folder / part / str(digits.target[index])
            target.mkdir(parents=True, exist_ok=True)
            image = np.round(digits.images[index] * 255 / 16).astype(np.uint8)
            image = cv2.resize(image, (16, 16), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(target / f"{index:04d}.png"), image)


def knn_accuracy(data: Path, checkpoint: Path | None, seed: int) -> float:
    """Accuracy in percent of the 20 nearest training digits' vote on the test part."""
    cfg = load_config(CONFIGS / "mae_digits.py", {"data_root": str(data)})
    test_cfg = load_config(CONFIGS / "finetune_digits.py", {"data_root": str(data)})
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if checkpoint is not None:
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        encoder = {
            key.removeprefix("backbone."): value
            for key, value in state.items()
            if key.startswith("backbone.")
        }
        model.backbone.load_state_dict(encoder)
    model.eval()
    loader_cfg = test_cfg.test_dataloader
    loaders = {}
    for part in ("train", "test"):
        loader_cfg.dataset.data_prefix = part
        loaders[part] = Runner.build_dataloader(loader_cfg)
    with torch.no_grad():
        bank, bank_labels = extract_features(model, loaders["train"])
        features, labels = extract_features(model, loaders["test"])
    predictions = knn_predict(features, bank, bank_labels)
    return 100 * (predictions == labels).double().mean().item()


def few_label_accuracy(
    data: Path, checkpoint: Path | None, seed: int, work_dir: Path
) -> float:
    """Test accuracy in percent after fine-tuning on a few labels per class.

    Args:
        data: Folder written by :func:`write_digits`.
        checkpoint: The pre-trained encoder; None starts from random weights.
        seed: Decides the labelled digits, the initialisation and the draws.
        work_dir: Where the run goes.
    """
    options: dict[str, Any] = {
        "data_root": str(data),
        "randomness.seed": seed,
        "train_dataloader.dataset.dataset.indices": _few_labels(data, seed),
    }
    if checkpoint is not None:
        options["model.backbone.init_cfg"] = dict(
            type="Pretrained", checkpoint=str(checkpoint), prefix="backbone."
        )
    runner = _train_anew("finetune_digits.py", work_dir, options)
    return float(runner.test()["accuracy/top1"])


def _few_labels(data: Path, seed: int) -> list[int]:
    """Indices of ``LABELS_PER_CLASS`` random training digits of each class."""
    cfg = load_config(CONFIGS / "finetune_digits.py", {"data_root": str(data)})
    loader = {**cfg.test_dataloader}
    loader["dataset"] = {**loader["dataset"], "data_prefix": "train"}
    labels = np.array(Runner.build_dataloader(loader).dataset.get_gt_labels())
    draw = np.random.default_rng(seed)
    chosen = [
        draw.choice(np.flatnonzero(labels == c), LABELS_PER_CLASS, replace=False)
        for c in np.unique(labels)
    ]
    return [int(index) for index in np.concatenate(chosen)]


def losses_of(runner: Runner) -> Iterator[tuple[str, np.ndarray]]:
    """Names and per-iteration values of the losses of a finished run.

    The losses of the levels are named as the pictures of their predictions.
    """
    model: Any = runner.model
    pictures = {f"loss_{i}": name for i, name in enumerate(model.level_names)}
    for key, buffer in runner.message_hub.log_scalars.items():
        if key.startswith("train/") and "loss" in key:
            name = key.removeprefix("train/")
            yield pictures.get(name, name), buffer.data[0]


def draw_losses(runners: dict[str, Runner], path: Path) -> None:
    """Draws the losses of runs side by side, one line per level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(runners), figsize=(5 * len(runners), 3.5), squeeze=False, sharey=True
    )
    for axis, (title, runner) in zip(axes[0], runners.items(), strict=True):
        curves = dict(losses_of(runner))
        if len(curves) > 1:
            # The sum of the levels would dwarf them.
            curves.pop("loss")
        else:
            curves = dict(zip(runner.model.level_names, curves.values(), strict=True))
        for name, values in curves.items():
            window = np.ones(min(20, len(values))) / min(20, len(values))
            axis.plot(np.convolve(values, window, mode="valid"), label=name)
        axis.set(title=title, xlabel="iteration", ylabel="loss (mean of 20)")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def format_table(results: list[Accuracy]) -> str:
    """The accuracies as a table, mean and standard deviation over the seeds."""
    lines = [f"{'start from':<12}{'k-NN top-1 %':>16}{'10 labels/class %':>20}"]
    lines += [
        f"{r.name:<12}{_mean(r.knn):>16}{_mean(r.few_label):>20}" for r in results
    ]
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    """Mean and, of several values, standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
