"""The pooling between a hierarchical encoder and a linear classifier."""

from __future__ import annotations

from mmpretrain.models.necks import GlobalAveragePooling
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class PooledNorm(GlobalAveragePooling):
    """Averages a feature map over its positions, then norms the mean.

    The order of LocalMIM's fine-tuning (its released Swin Transformer), where
    mmpretrain's norms the tokens before it averages them: another result. The
    encoder's own output norm is left out, ``backbone.norm_cfg=None``.

    Args:
        in_channels: Width of the feature map.
        norm_cfg: Norm layer; LayerNorm with eps 1e-6 by default.
    """

    def __init__(self, in_channels: int, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg or dict(type="LN", eps=1e-6), in_channels)

    def forward(
        self, inputs: tuple[Tensor, ...] | Tensor
    ) -> tuple[Tensor, ...] | Tensor:
        """Pools and norms one feature map (N, C, H, W), or each of several."""
        pooled = super().forward(inputs)
        if isinstance(pooled, tuple):
            return tuple(self.norm(x) for x in pooled)
        return self.norm(pooled)
