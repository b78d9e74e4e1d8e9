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
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import GlobalAveragePooling
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.on_load import converted_for
from ..checkpoints.own_layout import account_of
from ..checkpoints.report import listed
from ..engine.launch import load_config
from ..engine.overrides import apply_options
from ..models.selfsup.unmasked import (
    ImageFeatures,
    UnmaskedFeatures,
    inference_pipeline,
    unmasked_features,
)
from .run_config import config_beside


class Encoder(BaseModel):
    """What of a model makes features, without decoders, teachers and heads.

    Args:
        config: A config of pre-training or of classification.

    Raises:
        ValueError: If it is a config of something else, or its images are no files.
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
            self.masks = issubclass(kind, UnmaskedFeatures)
            super().__init__(data_preprocessor=_preprocessor(config, self.masks))
            self.backbone: Any = MODELS.build(model["backbone"])
            neck = None if self.masks else model.get("neck")
            neck = MODELS.build(neck) if neck else None
        # A neck that averages belongs to the mean, others to the head.
        self.neck = neck if isinstance(neck, GlobalAveragePooling) else None
        self.pipeline = inference_pipeline(config, self.backbone)
        if not any("Load" in str(step["type"]) for step in self.pipeline):
            # Which order of colours its data set has, nothing here tells.
            raise ValueError(
                "the test pipeline of this config loads no files: its data set holds "
                "arrays, as CIFAR's does. Give a config whose test_dataloader has a "
                "pipeline that begins with LoadImageFromFile"
            )

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor"
    ) -> Any:
        """Features of normalised images, (N, C, H, W)."""
        return self.image_features(inputs)

    def image_features(self, inputs: Tensor) -> ImageFeatures:
        """Features of normalised images, (N, C, H, W)."""
        if self.masks:
            return unmasked_features(self.backbone, inputs)
        return plain_features(self.backbone, inputs, self.neck)

    def load(self, checkpoint: str) -> None:
        """Loads the encoder of a checkpoint, ours or an official one.

        Args:
            checkpoint: Path or URL of the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If something of the encoder is not in it, or of another size.
        """
        content = mmengine_checkpoint._load_checkpoint(checkpoint, map_location="cpu")
        state: Any = converted_for(self, content, checkpoint)
        if state is None:
            state = content.get("state_dict", content)
        parts = ("backbone.", "neck.") if self.neck is not None else ("backbone.",)
        kept = OrderedDict((k, x) for k, x in state.items() if k.startswith(parts))
        kept._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
        account_of(self, kept, checkpoint)
        try:
            # mmengine's would go on with what fits.
            missing = self.load_state_dict(kept, strict=False).missing_keys
        except RuntimeError as error:
            sizes = re.findall(
                r"size mismatch for ([^:]+): .*?(\[.*?\]).*?(\[.*?\])", str(error)
            )
            if not sizes:
                raise
            some = [f"{key} {theirs} instead of {own}" for key, theirs, own in sizes]
            raise ValueError(
                f"{checkpoint} has other sizes than the encoder, which is a "
                f"{type(self.backbone).__name__} here: {len(some)} tensors, "
                f"{listed(some, 4)}. Give the config it was trained with"
            ) from error
        buffers = dict(self.named_buffers())
        if missing := [key for key in missing if key not in buffers]:
            raise ValueError(
                f"{checkpoint} does not hold the whole encoder, which is a "
                f"{type(self.backbone).__name__} here: {len(missing)} tensors are "
                f"missing, {listed(missing, 4)}. Give the config it was trained with"
            )


def load_encoder(
    model: str | None,
    checkpoint: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Encoder:
    """Builds the encoder of a model and loads its weights.

    Args:
        model: Name or config file; None for the only one beside the checkpoint.
        checkpoint: The weights; None for those the model names.
        cfg_options: Values that replace those of the config, by dotted key.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such model, or nobody names its weights.
    """
    weights = None
    if model is None:
        model, config = config_beside(checkpoint)
        apply_options(config, cfg_options)
    elif model.endswith(".py"):
        config = load_config(model, cfg_options)
    else:
        entry = ModelHub.get(model)
        config, weights = entry.config, entry.weights
        if not isinstance(config, Config):
            raise ValueError(f"the zoo has no config of {model}: give a config file")
        apply_options(config, cfg_options)
    weights = checkpoint or weights or config.get("load_from")
    if not weights:
        raise ValueError(
            f"nobody names the weights of {model}, and without them features mean "
            "nothing: give a checkpoint"
        )
    encoder = Encoder(config)
    encoder.load(str(weights))
    return encoder


def plain_features(
    backbone: Any, inputs: Tensor, neck: nn.Module | None = None
) -> ImageFeatures:
    """Features of an encoder of mmpretrain.

    Args:
        backbone: A Vision Transformer, or an encoder that returns maps. Of several
            outputs the last one is taken.
        inputs: Normalised images, (N, C, H, W).
        neck: What averages maps, where it does more than that.

    Returns:
        Tokens as the encoder gives them to its head; their mean normed where the
        encoder or the neck norms it, so that it is what the head gets.

    Raises:
        ValueError: If the encoder returns neither tokens nor a map.
    """
    # mmpretrain's own encoders of pre-training mask unless told not to.
    masks = "mask" in inspect.signature(backbone.forward).parameters
    with _whole_output(backbone):
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
def _whole_output(backbone: Any) -> Iterator[None]:
    """Lets an encoder return all tokens, or its map, inside."""
    chosen = getattr(backbone, "out_type", None)
    if chosen is not None:
        tokens = "raw" in getattr(backbone, "OUT_TYPES", ())
        backbone.out_type = "raw" if tokens else "featmap"
    try:
        yield
    finally:
        if chosen is not None:
            backbone.out_type = chosen


def _preprocessor(config: Config, masks: bool) -> dict:
    """The config of what normalises batches."""
    given = config.model.get("data_preprocessor") or config.get("data_preprocessor")
    kind = "MIMDataPreprocessor" if masks else "ClsDataPreprocessor"
    return {"type": kind, **(given or {})}
