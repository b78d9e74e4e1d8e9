"""A feature pyramid from the single map of a plain backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (4.0, 2.0, 1.0, 0.5)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """ViTDet's pyramid: the last map of the backbone at several scales.

    From a map of stride 16: 4 times finer by two transposed convolutions, 2 times by
    one, as it is, and coarser by pooling; each then goes through a 1x1 and a 3x3
    convolution to a common width. Further levels sub-sample the coarsest.

    References:
        - Exploring Plain Vision Transformer Backbones for Object Detection, 2022,
          https://arxiv.org/abs/2203.16527, section 3

    Args:
        in_channels: Width of the backbone's map.
        out_channels: Width of every level.
        scales: Factors on the map's size, each 4, 2, 1 or 0.5, fine to coarse.
        num_outs: Number of levels; those beyond ``scales`` halve the last one.
        norm_cfg: Norm layer; over the channels of each position by default.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If a scale is another, or there are fewer levels than scales.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = SCALES,
        num_outs: int = 5,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if any(scale not in SCALES for scale in scales) or not scales:
            raise ValueError(
                f"scales of a SimpleFeaturePyramid are of {SCALES}, got {scales}"
            )
        if num_outs < len(scales):
            raise ValueError(
                f"num_outs={num_outs} is fewer levels than the {len(scales)} scales"
            )
        norm_cfg = norm_cfg or dict(type="mmpretrain.LN2d", eps=1e-6)
        self.num_outs = num_outs
        self.levels = nn.ModuleList()
        for scale in scales:
            level = _rescaling(scale, in_channels, norm_cfg)
            width = int(in_channels / max(scale, 1))
            level["lateral"] = ConvModule(
                width, out_channels, kernel_size=1, norm_cfg=norm_cfg, act_cfg=None
            )
            level["output"] = ConvModule(
                out_channels,
                out_channels,
                kernel_size=3,
                padding=1,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )
            self.levels.append(nn.Sequential(level))

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Computes the levels, (N, out_channels, rows, cols) each, fine to coarse.

        Args:
            inputs: The backbone's map, (N, C, rows, cols); of several the last.
        """
        feature = inputs if isinstance(inputs, Tensor) else inputs[-1]
        outs = [level(feature) for level in self.levels]
        while len(outs) < self.num_outs:
            # Every second position of a stride 32 map has stride 64.
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)


def _rescaling(
    scale: float, channels: int, norm_cfg: dict
) -> OrderedDict[str, nn.Module]:
    """Layers that make a map finer or coarser; twice as fine halves the width."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if scale == 0.5:
        layers["coarser"] = nn.MaxPool2d(kernel_size=2, stride=2)
    if scale > 1:
        layers["finer1"] = _doubling(channels)
    if scale == 4:
        layers["ln"] = build_norm_layer(norm_cfg, channels // 2)
        layers["act"] = nn.GELU()
        layers["finer2"] = _doubling(channels // 2)
    return layers


def _doubling(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)
