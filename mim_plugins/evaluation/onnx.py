"""Encoders and classifiers as ONNX files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.files import Checkpoint, check_destination, read
from ..checkpoints.files.local_files import check_file
from ..checkpoints.layouts.key_rules import listed
from ..checkpoints.loading import Target, state_for
from ..checkpoints.metadata import recorded_classes
from ..models.backbones import MIMVisionTransformer
from ..models.data_preprocessor import image_statistics, reverses_channels
from ..models.onnx import graph_of, needed, save_graph
from ..models.traceable import traceable
from .encoder import Encoder, find_model, load_exact_sizes, plain_features

METADATA = "mim_plugins_model"

# Largest difference between onnxruntime and the model, as a share of the largest value
# where that is above 1.
TOLERANCE = 1e-4

Size = tuple[int, int]


class _Graph(NamedTuple):
    """A graph, and how far it is from the model."""

    graph: Any
    outputs: dict[str, Tensor]
    difference: float


def export_onnx(
    checkpoint: str,
    path: str | Path,
    model: str | None = None,
    encoder_only: bool = False,
    force: bool = False,
) -> list[str]:
    """Writes an encoder, or a classifier with its head, as an ONNX file.

    The input is ``image``, (N, C, H, W), normalised. Outputs of an encoder are ``cls``,
    ``mean`` and ``patch``, as of :class:`.ImageFeatures`, with nothing masked, those
    of a classifier ``logits``. Any number of images is taken, and any height and width,
    unless the model has relative positions for one size alone. The file is run in
    onnxruntime at several sizes before it is written.

    Args:
        checkpoint: The weights, ours or official ones.
        path: The file to write, ``*.onnx``.
        model: Name or config file; None for the only config next to the checkpoint.
        encoder_only: Whether to leave out the head of a classifier.
        force: Whether to replace what is at ``path``.

    Returns:
        Sentences: what the file takes and gives, and how it was checked.

    Raises:
        FileExistsError: If something is at ``path``.
        FileNotFoundError: If there is no such file, or no folder to write to.
        ImportError: If onnx or onnxruntime is not installed.
        ValueError: If model and weights do not fit, or the file would compute
            something else.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: name the file *.onnx, by which it is recognised")
    for name in ("onnx", "onnxruntime"):
        needed(name)
    check_file(checkpoint)
    check_destination(path, force, checkpoint)
    config, _ = find_model(model, checkpoint)
    encoder = _encoder(config)
    content = read(checkpoint)
    classifies = not (encoder.masks or encoder_only) and bool(config.model.get("head"))
    if classifies:
        module: Any = _classifier(config, content, checkpoint)
        reference = _logits(module)
    else:
        encoder.load(checkpoint)
        module, reference = encoder, _features(encoder)
    size, step = _image_size(encoder.backbone), _step(encoder.backbone)
    channels = _channels(encoder)
    reason = _fixed_because(encoder)
    found = None
    if reason is None:
        try:
            found = _exported(module, classifies, reference, channels, size, step)
        except Exception as error:  # torch and onnxruntime have a class for each reason
            reason = f"at another size the exported model fails ({_first(error)})"
    if found is None:
        try:
            found = _exported(module, classifies, reference, channels, size, None)
        except Exception as error:
            raise ValueError(
                f"this {type(encoder.backbone).__name__} cannot be exported: "
                f"{_first(error)}"
            ) from error
    multiple = [1, 1]
    if reason is None and not _takes(reference, channels, (size[0] + 1, size[1])):
        multiple = list(step)
    preprocessor = encoder.data_preprocessor
    mean, std = image_statistics(preprocessor)
    settings = {
        "outputs": list(found.outputs),
        "img_size": list(size),
        "fixed_size": reason is not None,
        "multiple": multiple,
        "mean": None if mean is None else mean.flatten().tolist(),
        "std": None if std is None else std.flatten().tolist(),
        "bgr_to_rgb": reverses_channels(preprocessor),
        "classes": recorded_classes(content.content) if classifies else None,
    }
    save_graph(found.graph, path, METADATA, settings)
    return [
        f"image (N, {channels}, H, W), normalised as the metadata say, to "
        + ", ".join(f"{name} {_shape(value)}" for name, value in found.outputs.items()),
        _sizes(size, multiple, reason),
        f"in onnxruntime within {found.difference:.0e} of the model",
    ]


def _encoder(config: Config) -> Encoder:
    """The encoder of a model, on the CPU."""
    if str((config.get("model") or {}).get("type")).endswith("OneStreamTracker"):
        raise ValueError(
            "this is a tracker, which `tools/track.py --export-onnx FILE` exports"
        )
    encoder = Encoder(config)
    coordinates = getattr(encoder.backbone, "merge_coordinates", "correct")
    if encoder.masks and coordinates != "correct":
        raise ValueError(
            "the coordinates of merge_coordinates='official' cannot be exported: give "
            "the model of fine-tuning, which has correct ones (--model)"
        )
    encoder.eval()
    return encoder


def _classifier(config: Config, content: Checkpoint, source: str) -> ImageClassifier:
    """The classifier of a config, without a teacher, with its weights."""
    parts = {
        name: copy.deepcopy(config.model.get(name))
        for name in ("backbone", "neck", "head")
    }
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        parts = {name: MODELS.build(cfg) for name, cfg in parts.items() if cfg}
        model = ImageClassifier(**parts)
    state = state_for(Target.of(model), content)
    buffers = dict(model.named_buffers())
    missing = [
        key for key in load_exact_sizes(model, state, source) if key not in buffers
    ]
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} tensors of this classifier, "
            f"{listed(missing, 4)}: give the checkpoint of a fine-tuned model, or "
            "--encoder-only for the encoder alone"
        )
    model.eval()
    return model


class _Traced(nn.Module):
    """A model with one input, and a tuple of outputs."""

    def __init__(self, function: Callable[[Tensor], dict[str, Tensor]], of: nn.Module):
        super().__init__()
        self.of, self.function = of, function

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.function(image).values())


def _logits(model: ImageClassifier) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda images: {"logits": model(images, mode="tensor")}


def _features(encoder: Encoder) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda images: encoder.image_features(images).present


def _plain_features(encoder: Encoder) -> Callable[[Tensor], dict[str, Tensor]]:
    """As :func:`_features`, without the masks of pre-training, which decide by sizes.

    Args:
        encoder: A copy, which is changed.
    """
    if not encoder.masks:
        return _features(encoder)
    backbone = encoder.backbone
    if isinstance(backbone, MIMVisionTransformer):
        # The last block of D2-MAE's is no latent, and has no norm.
        backbone.final_norm &= backbone.final_block == backbone.num_layers - 1

    def compute(images: Tensor) -> dict[str, Tensor]:
        features = plain_features(backbone, images)
        return features._replace(mean=features.patch.mean(dim=1)).present

    return compute


def _exported(
    module: nn.Module,
    classifies: bool,
    reference: Callable[[Tensor], dict[str, Tensor]],
    channels: int,
    size: Size,
    step: Size | None,
) -> _Graph:
    """Traces a model, and compares the graph with it.

    Args:
        module: An :class:`.Encoder` or a classifier.
        classifies: Which of them.
        reference: What it computes.
        channels: Of images.
        size: Height and width that it was built for.
        step: Height and width to which other sizes differ; None for one size alone.

    Raises:
        ValueError: If the graph computes something else.
    """
    copied: Any = traceable(module)
    function = _logits(copied) if classifies else _plain_features(copied)
    height, width = size
    cases, traced = [(1, size), (3, size)], size
    if step is not None:
        down, right = step
        # The size it was built for would be kept: no positions are resized for it.
        traced = (height + 2 * down, width + down)
        others = [
            (height + down, width),
            (height, width + 2 * right),
            (height, 2 * width),
            (height + 1, width + 3),
        ]
        taken = [other for other in others if _takes(reference, channels, other)]
        if not taken:
            raise ValueError("the model takes images of no other size")
        cases += [(2, other) for other in taken]
    with torch.no_grad():
        outputs = reference(torch.zeros(1, channels, *size))
    axes = {0: "N"} if step is None else {0: "N", 2: "H", 3: "W"}
    dynamic = {"image": axes} | {
        name: {0: "N"} if step is None or value.ndim == 2 else {0: "N", 1: f"{name}_L"}
        for name, value in outputs.items()
    }
    graph = graph_of(
        _Traced(function, copied),
        (torch.zeros(2, channels, *traced),),
        ["image"],
        list(outputs),
        dynamic,
    )
    return _Graph(graph, outputs, _compared(graph, reference, channels, cases))


def _compared(
    graph: Any,
    reference: Callable[[Tensor], dict[str, Tensor]],
    channels: int,
    cases: Sequence[tuple[int, Size]],
) -> float:
    """The largest difference between onnxruntime and the model.

    Raises:
        ValueError: If it is above the tolerance.
    """
    session = _session(graph)
    draw, largest = torch.Generator().manual_seed(0), 0.0
    for count, size in cases:
        images = torch.randn(count, channels, *size, generator=draw)
        with torch.no_grad():
            wanted = reference(images)
        given = session.run(list(wanted), {"image": images.numpy()})
        for (name, own), theirs in zip(wanted.items(), given, strict=True):
            if theirs.shape != own.shape:
                raise ValueError(f"{name} is {theirs.shape}, not {tuple(own.shape)}")
            scale = max(1.0, own.abs().max().item())
            apart = (own - torch.from_numpy(theirs)).abs().max().item() / scale
            if not apart <= TOLERANCE:
                raise ValueError(
                    f"{name} of {count} images of {size[0]}x{size[1]} is {apart:.1e} "
                    "apart from the model's in onnxruntime"
                )
            largest = max(largest, apart)
    return largest


def _session(graph: Any) -> Any:
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return runtime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _takes(
    reference: Callable[[Tensor], dict[str, Tensor]], channels: int, size: Size
) -> bool:
    """Whether a model takes images of a size."""
    try:
        with torch.no_grad():
            reference(torch.zeros(1, channels, *size))
    except (ValueError, RuntimeError, AssertionError):
        return False
    return True


def _fixed_because(encoder: Encoder) -> str | None:
    """Why a model is of one image size, or None."""
    backbone = encoder.backbone
    shared = getattr(backbone, "rel_pos_bias", None) is not None
    if shared or getattr(backbone, "use_rel_pos_bias", False):
        return "its tables of relative positions are of this size"
    return None


def _image_size(backbone: Any) -> Size:
    """Height and width that an encoder was built for, in pixels."""
    size = getattr(backbone, "img_size", None)
    if size is not None:
        return (size, size) if isinstance(size, int) else tuple(size)
    resolution = getattr(backbone, "patch_resolution", None)
    if resolution is None:
        return 224, 224
    stride = backbone.patch_embed.projection.stride
    return resolution[0] * stride[0], resolution[1] * stride[1]


def _step(backbone: Any) -> Size:
    """Height and width to which sizes of images may have to be multiples."""
    step: Any = getattr(backbone, "mask_patch_size", None)
    if step is None:
        embed = getattr(backbone, "patch_embed", None)
        projection = getattr(embed, "projection", None)
        step = getattr(projection, "stride", (32, 32))
    return step[0], step[1]


def _channels(encoder: Encoder) -> int:
    """Channels of images."""
    convolutions = (x for x in encoder.backbone.modules() if isinstance(x, nn.Conv2d))
    return next(convolutions).in_channels


def _first(error: Exception) -> str:
    """The first line of a message, not too long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _shape(value: Tensor) -> str:
    dims = ["N", *("L" for _ in value.shape[1:-1]), str(value.shape[-1])]
    return f"({', '.join(dims)})"


def _sizes(size: Size, multiple: Sequence[int], reason: str | None) -> str:
    if reason is not None:
        return f"any number of images; their size is fixed at {size[0]}x{size[1]}: " + (
            reason
        )
    if max(multiple) > 1:
        steps = " and ".join(map(str, dict.fromkeys(multiple)))
        return (
            "any number of images, of any height and width that are multiples of "
            f"{steps}"
        )
    return "any number of images, of any height and width"
