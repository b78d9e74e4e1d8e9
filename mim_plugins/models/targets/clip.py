"""Patch features of a frozen CLIP image tower as targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import MMLogger
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..attention import use_attention_dispatch
from .clip_weights import CLIPWeights, read_clip
from .features import FeatureTarget
from .teacher import AbsentTeacher

# CLIP's name of an activation -> the registry's.
ACTIVATIONS = {"quick_gelu": "mmpretrain.QuickGELU", "gelu": "GELU"}

# Of OpenAI's images, in pixel values.
CLIP_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
CLIP_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


class CLIPImageTower(nn.Module):
    """CLIP's Vision Transformer with its norm and projection on every token.

    mmpretrain's ``VisionTransformer``, as which it runs at any image size, positions
    resized. The residual stream stays float32 under autocast, hence so do the
    LayerNorms.

    Args:
        weights: What a CLIP file holds.
    """

    def __init__(self, weights: CLIPWeights) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            arch=dict(
                embed_dims=weights.width,
                num_layers=weights.depth,
                num_heads=weights.num_heads,
                feedforward_channels=weights.hidden,
            ),
            img_size=weights.image_size,
            patch_size=weights.patch_size,
            pre_norm=True,
            norm_cfg=dict(type="LN", eps=weights.norm_eps),
            layer_cfgs=dict(act_cfg=dict(type=ACTIVATIONS[weights.act])),
            out_type="raw",
        )
        self.proj = nn.Linear(weights.width, weights.out_dims, bias=False)
        use_attention_dispatch(self)
        self.load_state_dict(weights.state)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to projected tokens (N, 1 + L, out_dims)."""
        return self.proj(self.vit(images)[0])


@MODELS.register_module()
class CLIPTarget(FeatureTarget):
    """Last-layer patch features of CLIP's image tower, projected.

    The target of the released DeepMIM model (https://arxiv.org/abs/2303.08817), to be
    used with ``criterion='cosine'``, 2 - 2 cos: every patch token after the tower's
    last norm and its projection, without further whitening. Size, depth, patch,
    resolution and width of the tower are read from the file.

    References:
        - Learning Transferable Visual Models From Natural Language Supervision, 2021,
          https://arxiv.org/abs/2103.00020

    Args:
        checkpoint: Weights of a CLIP model with a Vision Transformer: OpenAI's file
            as downloaded, a state dict of the model or of its image tower, or a file
            or folder of open_clip or of Hugging Face; half or full precision.
        num_heads: Attention heads. By default the one in the configuration next to
            the file, else one per 64 channels.
        act: ``'quick_gelu'`` (OpenAI's models) or ``'gelu'`` (most of open_clip's).
            By default the one in the configuration next to the file, else OpenAI's.
        mean: Mean of the tower's images, in pixel values from 0 to 255. By default
            the one in the configuration next to the file, else OpenAI's.
        std: Standard deviation, likewise.
        input_size: See :class:`FeatureTarget`.
        norm_features: See :class:`FeatureTarget`.
        dims: Width of the projected features. With it the model can be built where the
            file does not exist, for anything but training. Otherwise the width is read
            from the file, with a warning if it differs.

    Raises:
        FileNotFoundError: If there is no such file or folder, and no ``dims``.
        TypeError: If an argument is of another type.
        ValueError: If it holds no CLIP Vision Transformer, or ``num_heads`` or ``act``
            does not fit it.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        num_heads: int | None = None,
        act: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
        norm_features: bool = False,
        dims: int | None = None,
    ) -> None:
        try:
            weights = read_clip(checkpoint, num_heads=num_heads, act=act)
        except FileNotFoundError as error:
            if dims is None:
                raise FileNotFoundError(
                    f"{error}. With target_generator.dims, the width of its features "
                    "(512 of OpenAI's ViT-B/16), the model can be built without the "
                    "file, for anything but training"
                ) from error
            super().__init__(
                AbsentTeacher(str(error)),
                dims=dims,
                patch_size=None,
                mean=mean or CLIP_MEAN,
                std=std or CLIP_STD,
                input_size=input_size,
                norm_features=norm_features,
            )
            return
        super().__init__(
            CLIPImageTower(weights),
            dims=weights.out_dims,
            patch_size=weights.patch_size,
            mean=mean or weights.mean or CLIP_MEAN,
            std=std or weights.std or CLIP_STD,
            input_size=input_size,
            norm_features=norm_features,
        )
        logger = MMLogger.get_current_instance()
        if dims not in (None, weights.out_dims):
            logger.warning(
                f"target_generator.dims={dims}, but the features of {checkpoint} have "
                f"{weights.out_dims}, which are taken: set dims={weights.out_dims}, or "
                "the model cannot be built to fit its checkpoints without that file"
            )
        logger.info(f"CLIP teacher from {checkpoint}: {weights.describe()}")
