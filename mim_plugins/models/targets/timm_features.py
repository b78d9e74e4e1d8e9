"""Patch features of a frozen Vision Transformer of timm as targets."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...checkpoints.files import read
from .features import FeatureTarget
from .teacher import AbsentTeacher


class TimmPatchTokens(nn.Module):
    """The patch tokens after the last block of a Vision Transformer of timm.

    Args:
        model: The model, without the blocks that follow.
        final_norm: Apply the model's final norm to them.
    """

    def __init__(self, model: nn.Module, final_norm: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.final_norm = final_norm

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to patch tokens (N, L, dims) in raster order."""
        return self.model.forward_intermediates(
            images,
            indices=[-1],
            norm=self.final_norm,
            output_fmt="NLC",
            intermediates_only=True,
        )[0]


@MODELS.register_module()
class TimmFeatureTarget(FeatureTarget):
    """Patch features of a frozen Vision Transformer of timm, DINO and DINOv2 included.

    Deep supervision towards such features is a combination of this package; no paper
    it follows has published one.

    Args:
        model_name: Name in timm, such as ``'vit_small_patch14_dinov2.lvd142m'``. The
            class, register and distillation tokens are left out.
        checkpoint: Weights in timm's layout (with or without the classifier), which
            for most Vision Transformers is also the authors' own.
        pretrained: Let timm download its weights instead.
        layer: Zero-based index of the block whose output is taken, counted from the
            end if negative; the blocks after it are dropped.
        final_norm: Apply the model's final norm to it.
        mean: Mean of the teacher's images, in pixel values from 0 to 255; timm's for
            this model by default.
        std: Standard deviation, likewise.
        input_size: See :class:`FeatureTarget`. DINOv2's patches of 14 pixels fit a
            student with 14x14 patches at ``input_size=196``.
        norm_features: See :class:`FeatureTarget`.
        model_kwargs: Further arguments of ``timm.create_model``.

    Raises:
        ImportError: If timm is not installed.
        ValueError: If timm has no such model, it has no patch tokens, no such block
            or no final norm, or the weights are another model's.

    Note:
        If the file ``checkpoint`` does not exist the model can still be built, for
        anything but training.
    """

    def __init__(
        self,
        model_name: str,
        checkpoint: str | Path | None = None,
        pretrained: bool = False,
        layer: int = -1,
        final_norm: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
        norm_features: bool = False,
        model_kwargs: dict | None = None,
    ) -> None:
        model = create_vit(model_name, checkpoint, pretrained, model_kwargs or {})
        depth = len(model.blocks)
        if not -depth <= layer < depth:
            raise ValueError(
                f"layer={layer} is out of range: {model_name} has {depth} blocks, 0 to "
                f"{depth - 1} (zero-based), or -1 for the last"
            )
        if final_norm and isinstance(model.norm, nn.Identity):
            raise ValueError(
                f"{model_name} has no norm after its last block (it norms the pooled "
                "features instead): set final_norm=False"
            )
        patch_size = model.feature_info[layer]["reduction"]
        model.prune_intermediate_layers([layer], prune_norm=not final_norm)
        statistics = model.pretrained_cfg
        absent = checkpoint is not None and not Path(checkpoint).exists()
        super().__init__(
            AbsentTeacher(
                f"there is no teacher checkpoint {checkpoint}: set "
                f"target_generator.checkpoint to weights of timm's {model_name}, or "
                "pretrained=True to let timm download them"
            )
            if absent
            else TimmPatchTokens(model, final_norm),
            dims=model.num_features,
            patch_size=(patch_size, patch_size),
            mean=mean or [value * 255 for value in statistics["mean"]],
            std=std or [value * 255 for value in statistics["std"]],
            input_size=input_size,
            norm_features=norm_features,
        )
        if absent:
            return
        MMLogger.get_current_instance().info(
            f"Teacher {model_name} from {checkpoint or 'the weights of timm'}: block "
            f"{layer % depth} of 0 to {depth - 1}, {self.dims} features, patches of "
            f"{patch_size} pixels"
        )


def create_vit(
    model_name: str, checkpoint: str | Path | None, pretrained: bool, kwargs: dict
) -> Any:
    """Builds a Vision Transformer of timm that takes images of any size, with weights.

    It is randomly initialised if the file ``checkpoint`` does not exist.

    Raises:
        ImportError: If timm is not installed.
        ValueError: If timm has no such model, it is not a Vision Transformer, or its
            weights cannot be had.
    """
    timm = _import_timm()
    if not timm.is_model(model_name):
        close = difflib.get_close_matches(model_name, timm.list_models(), n=3)
        raise ValueError(
            f"timm {timm.__version__} has no model {model_name!r}"
            + (f": did you mean {' or '.join(close)}?" if close else "")
            + " timm.list_models('vit_*') lists its Vision Transformers"
        )
    if pretrained == (checkpoint is not None):
        raise ValueError(
            f"where do the weights of the teacher {model_name} come from? Give either "
            "checkpoint='file', or pretrained=True to let timm download them; targets "
            "of an untrained network teach nothing"
        )
    overlay: dict[str, Any] = {}
    absent = checkpoint is not None and not Path(checkpoint).exists()
    if checkpoint is not None and not absent:
        tensors = read(checkpoint).tensors
        heads = ("head", "head_dist")
        overlay = dict(
            state_dict={
                k: v for k, v in tensors.items() if k.split(".")[0] not in heads
            },
            custom_load=False,
            # As many classes as the model has, so that timm checks every key.
            num_classes=0,
            label_offset=0,
        )
    try:
        model = timm.create_model(
            model_name,
            pretrained=not absent,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            dynamic_img_size=True,
            **kwargs,
        )
    except TypeError as error:
        raise ValueError(_not_a_vit(model_name, f"it was refused: {error}")) from error
    except RuntimeError as error:
        source = checkpoint or "of timm"
        raise ValueError(
            f"the weights {source} do not fit {model_name}: {error}"
        ) from error
    if not hasattr(model, "blocks") or not hasattr(model, "num_prefix_tokens"):
        raise ValueError(_not_a_vit(model_name, f"it is a {type(model).__name__}"))
    # Or the model would hold a second copy of its weights.
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _not_a_vit(model_name: str, why: str) -> str:
    return (
        f"{model_name} cannot be a teacher, {why}: it takes a Vision Transformer with "
        "one patch grid for all blocks, such as vit_base_patch16_224.dino or "
        "vit_small_patch14_dinov2.lvd142m"
    )


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "TimmFeatureTarget needs timm: pip install 'mim_plugins[teachers]'"
        ) from error
    return timm
