"""MIRL: segments of a deep encoder that predict the image and its residual."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..heads.residual import pair_up
from ..initialisation import is_pretrained
from .base import Draw, MaskedImageModel


@MODELS.register_module()
class MIRL(MaskedImageModel):
    """Masked image residual learning for deep Vision Transformers.

    The encoder's blocks are split into an even number of segments, each with a
    decoder of its own. A shallow decoder predicts the main part of the image; the
    deep decoder that mirrors it predicts the residual; their sum is compared with the
    target. What the paper adds to the shared algorithm is in the config:
    ``backbone.taps`` names the last block of every segment but the last one,
    ``backbone.tap_embedding=True`` adds the low feature, the neck is a
    ``MIRLDecoder`` and the head a ``ResidualPairHead``. A list of targets has one
    entry per pair.

    References:
        - Masked Image Residual Learning for Scaling Deeper Vision Transformers, 2023,
          https://arxiv.org/abs/2309.14136, section 3

    Raises:
        ValueError: If the segments cannot be paired, the low feature is missing, or
            neck or head do not support pairs.
    """

    predictions_per_target = 2

    @property
    def level_names(self) -> list[str]:
        """Captions of the pictures: main part, residual and sum of every pair."""
        count = 2 * len(self.neck.out_dims)
        pairs = [(g + 1, count - g) for g in range(count // 2)]
        return [
            name
            for main, rest in pairs
            for name in (f"main {main}", f"residual {rest}", f"sum {main}+{rest}")
        ]

    def arrange(self, predictions: Sequence[Tensor], draw: Draw) -> list[Tensor | None]:
        """Main part, residual and sum of every pair; see the base class.

        A residual is a difference of pictures, shown around their zero: in the space of
        normalised inputs the mean colour.
        """
        pairs = pair_up(predictions)
        mains = draw([main for main, _ in pairs])
        sums = draw([main + rest for main, rest in pairs])
        pictures: list[Tensor | None] = []
        for main, total in zip(mains, sums, strict=True):
            residual = None if main is None or total is None else total - main
            pictures += [main, residual, total]
        return pictures

    def init_weights(self) -> None:
        """Initialises as the official code, unless weights were loaded."""
        super().init_weights()
        if is_pretrained(self.init_cfg) or is_pretrained(self.backbone.init_cfg):
            return
        # MIRL's patch embedding starts without a bias, MAE's with the convolution's.
        nn.init.zeros_(self.backbone.patch_embed.projection.bias)
