"""The encoder of a pre-training or classification config, with its weights."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.models import GlobalAveragePooling
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .. import model_index
from ..checkpoints.files import read
from ..checkpoints.layouts.key_rules import listed
from ..checkpoints.loading import Target, state_for
from ..engine.prepare import load_config, merge_options
from ..models.selfsup.feature_extraction import (
    FeatureExtraction,
    ImageFeatures,
    extract_features,
)
from ..models.selfsup.image_loading import inference_pipeline
from .run_config import config_next_to


class Encoder(BaseModel):
    """The part of a model that computes features, without decoders, teachers, heads.

    Args:
        config: A config of pre-training or of classification.

    Raises:
        ValueError: If it is another kind of config, or its images are not files.
    """

    def __init__(self, config: Config) -> None:
        model = config.get("model") or {}
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            kind: Any = model.get("type")
            kind = MODELS.get(kind) if isinstance(kind, str) else kind
            if "backbone" not in model or not hasattr(kind, "extract_feat"):
                raise ValueError(
                    "features are made by models of pre-training and classification; "
                    f"this config's model is of type {model.get('type')!r}"
                )
            self.masks = issubclass(kind, FeatureExtraction)
            super().__init__(data_preprocessor=preprocessor_of(config, self.masks))
            self.backbone: Any = MODELS.build(model["backbone"])
            neck = None if self.masks else model.get("neck")
            neck = MODELS.build(neck) if neck else None
        # A pooling neck is part of the mean feature, any other neck of the head.
        self.neck = neck if isinstance(neck, GlobalAveragePooling) else None
        self.pipeline = file_pipeline(config, self.backbone, self.masks)

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor"
    ) -> Any:
        """Features of normalised images, (N, C, H, W)."""
        return self.image_features(inputs)

    def image_features(self, inputs: Tensor) -> ImageFeatures:
        """Features of normalised images, (N, C, H, W)."""
        if self.masks:
            return extract_features(self.backbone, inputs)
        return plain_features(self.backbone, inputs, self.neck)

    def load(self, checkpoint: str) -> None:
        """Loads the encoder's weights from a checkpoint, ours or an official one.

        Args:
            checkpoint: Path or URL of the file.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If tensors of the encoder are missing or have other sizes.
        """
        state = state_for(Target.of(self), read(checkpoint))
        parts = ("backbone.", "neck.") if self.neck is not None else ("backbone.",)
        kept = OrderedDict((k, x) for k, x in state.items() if k.startswith(parts))
        kept._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
        missing = load_exact_sizes(self, kept, checkpoint)
        buffers = dict(self.named_buffers())
        if missing := [key for key in missing if key not in buffers]:
            raise ValueError(
                f"{checkpoint} lacks part of the encoder, which is a "
                f"{type(self.backbone).__name__} here: {len(missing)} tensors are "
                f"missing, {listed(missing, 4)}. Use the config it was trained with"
            )


def load_encoder(
    model: str | None,
    checkpoint: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Encoder:
    """Builds the encoder of a model and loads its weights.

    Args:
        model: Name or config file; None for the only config next to the checkpoint.
        checkpoint: The weights; None for those of the model index or the config.
        cfg_options: Values that replace those of the config, by dotted key.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the model is unknown, or no weights are given.
    """
    config, weights = find_model(model, checkpoint, cfg_options)
    if not weights:
        raise ValueError(
            f"no weights are known for {model}, and features of random weights are "
            "meaningless: give a checkpoint"
        )
    encoder = Encoder(config)
    encoder.load(weights)
    return encoder


def find_model(
    model: str | None,
    checkpoint: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> tuple[Config, str | None]:
    """The config of a model, and where its weights are; arguments as above.

    Raises:
        FileNotFoundError: If the config file does not exist.
        ValueError: If the model is unknown.
    """
    weights = None
    if model is None:
        model, config = config_next_to(checkpoint)
        merge_options(config, cfg_options)
    elif model.endswith(".py"):
        config = load_config(model, cfg_options)
    else:
        config, weights = model_index.find(model)
        if not isinstance(config, Config):
            raise ValueError(
                f"the model index has no config of {model}: give a config file"
            )
        merge_options(config, cfg_options)
    weights = checkpoint or weights or config.get("load_from")
    return config, str(weights) if weights else None


def file_pipeline(config: Config, backbone: nn.Module, pretraining: bool) -> list[dict]:
    """The pipeline that loads image files for an encoder as its training did.

    Args:
        config: A config of training.
        backbone: The encoder.
        pretraining: Whether the config is one of pre-training.

    Raises:
        ValueError: If its images are not files.
    """
    pipeline = inference_pipeline(config, backbone, pretraining)
    if not any("Load" in str(step["type"]) for step in pipeline):
        # Nothing here says whether its arrays are RGB or BGR.
        raise ValueError(
            "the test pipeline of this config loads no files: its data set holds "
            "arrays, as CIFAR's does. Use a config whose test_dataloader has a "
            "pipeline that begins with LoadImageFromFile"
        )
    return pipeline


def load_exact_sizes(
    model: nn.Module, state: OrderedDict[str, Tensor], source: str
) -> list[str]:
    """Loads tensors, none of which may have another size than the model's.

    Args:
        model: A model with an encoder, ``backbone``.
        state: The tensors.
        source: Where they are from, for the message.

    Returns:
        What is missing.

    Raises:
        ValueError: If tensors have other sizes.
    """
    try:
        # mmengine's own function would load only the matching tensors.
        return list(model.load_state_dict(state, strict=False).missing_keys)
    except RuntimeError as error:
        sizes = re.findall(
            r"size mismatch for ([^:]+): .*?(\[.*?\]).*?(\[.*?\])", str(error)
        )
        if not sizes:
            raise
        some = [f"{key} {theirs} instead of {own}" for key, theirs, own in sizes]
        raise ValueError(
            f"{source} has other sizes than the model, whose encoder is a "
            f"{type(model.backbone).__name__} here: {len(some)} tensors, "
            f"{listed(some, 4)}. Use the config it was trained with"
        ) from error


def plain_features(
    backbone: Any, inputs: Tensor, neck: nn.Module | None = None
) -> ImageFeatures:
    """Features of an encoder of mmpretrain.

    Args:
        backbone: A Vision Transformer, or an encoder that returns feature maps. If it
            has several outputs, the last one is used.
        inputs: Normalised images, (N, C, H, W).
        neck: The pooling neck of the classifier, if any.

    Returns:
        Tokens as the encoder passes them to its head; their mean with the norm of the
        encoder or the neck, if any, so that it equals the input of the head.

    Raises:
        ValueError: If the encoder returns neither tokens nor a feature map.
    """
    # mmpretrain's own pre-training encoders mask by default.
    masks = "mask" in inspect.signature(backbone.forward).parameters
    with _all_tokens(backbone):
        outputs = backbone(inputs, mask=None) if masks else backbone(inputs)
    last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
    norm = getattr(backbone, "ln2", None) or nn.Identity()
    if last.ndim == 4:
        patch = last.flatten(2).transpose(1, 2)
        mean = neck((last,))[-1] if neck is not None else norm(patch.mean(dim=1))
        return ImageFeatures(None, mean, patch, tuple(last.shape[2:]))
    if last.ndim != 3:
        raise ValueError(
            f"a {type(backbone).__name__} returns neither tokens (N, L, C) nor a map "
            f"(N, C, rows, cols), but {tuple(last.shape)}"
        )
    extra = int(getattr(backbone, "num_extra_tokens", 0))
    patch = last[:, extra:]
    size = zip(inputs.shape[2:], backbone.patch_embed.projection.stride, strict=True)
    rows, cols = (-(-side // stride) for side, stride in size)
    return ImageFeatures(
        cls=last[:, 0] if extra else None,
        mean=norm(patch.mean(dim=1)),
        patch=patch,
        grid=(rows, cols),
    )


@contextmanager
def _all_tokens(backbone: Any) -> Iterator[None]:
    """Context in which an encoder returns all tokens, or its feature map."""
    chosen = getattr(backbone, "out_type", None)
    if chosen is not None:
        tokens = "raw" in getattr(backbone, "OUT_TYPES", ())
        backbone.out_type = "raw" if tokens else "featmap"
    try:
        yield
    finally:
        if chosen is not None:
            backbone.out_type = chosen


def preprocessor_of(config: Config, masks: bool) -> dict:
    """The config of the data preprocessor of a model, which may pre-train."""
    given = config.model.get("data_preprocessor") or config.get("data_preprocessor")
    kind = "MIMDataPreprocessor" if masks else "ClsDataPreprocessor"
    return {"type": kind, **(given or {})}
