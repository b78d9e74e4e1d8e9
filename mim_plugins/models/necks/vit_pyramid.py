"""The feature pyramid of segmentation, from blocks of a plain ViT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

# What makes the coarsest map; mmseg's neck has the first one only.
POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


@MODELS.register_module()
class ViTPyramid(BaseModule):
    """Scales the maps of four blocks of a ViT by 4, 2, 1 and 1/2.

    For patches of 16 pixels the strides are 4, 8, 16 and 32. Deconvolutions enlarge,
    pooling reduces; nothing flows between levels. With the defaults it is mmseg's
    ``Feature2Pyramid``, key by key, which has neither of the two arguments by which the
    papers differ: DeepMIM (ADE20K, released code) takes the maximum, LocalMIM the
    average; MAE-Lite's Semantic FPN narrows every level to a quarter.

    References:
        - BEiT: BERT Pre-Training of Image Transformers, 2021,
          https://arxiv.org/abs/2106.08254 (its code for segmentation)

    Args:
        in_channels: Width of the encoder.
        out_channels: Width of every level. By default levels keep the encoder's width,
            and the map of scale 1 is passed on as it is; given, 1x1 convolutions bring
            the maps of scales 1 and 1/2 to it, before pooling.
        pool: What makes the map of scale 1/2, ``'max'`` or ``'avg'``.
        norm_cfg: The norm between the two deconvolutions of scale 4. SyncBN works on
            one process anywhere, on several ones on GPUs alone.
        init_cfg: Initialisation; by default torch's, as the papers' code.

    Raises:
        ValueError: If ``pool`` is unknown, or there are not four maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        pool: str = "max",
        norm_cfg: Mapping[str, Any] = dict(type="SyncBN"),  # noqa: B006
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pool not in POOLS:
            raise ValueError(f"pool is one of {list(POOLS)}, got {pool!r}")
        width = in_channels if out_channels is None else out_channels
        self.upsample_4x = nn.Sequential(
            nn.ConvTranspose2d(in_channels, width, kernel_size=2, stride=2),
            build_norm_layer(dict(norm_cfg), width)[1],
            nn.GELU(),
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
        )
        self.upsample_2x = nn.Sequential(
            nn.ConvTranspose2d(in_channels, width, kernel_size=2, stride=2)
        )
        self.identity: nn.Module = nn.Identity()
        self.downsample_2x: nn.Module = POOLS[pool](kernel_size=2, stride=2)
        if out_channels is not None:
            self.identity = nn.Conv2d(in_channels, width, kernel_size=1)
            narrow = nn.Conv2d(in_channels, width, kernel_size=1)
            self.downsample_2x = nn.Sequential(narrow, self.downsample_2x)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps (N, C, H, W), shallow to deep, to four of other scales."""
        levels = (
            self.upsample_4x,
            self.upsample_2x,
            self.identity,
            self.downsample_2x,
        )
        if len(inputs) != len(levels):
            raise ValueError(
                f"ViTPyramid makes {len(levels)} levels of as many maps, got "
                f"{len(inputs)}: set backbone.out_indices to {len(levels)} blocks"
            )
        return tuple(level(x) for level, x in zip(levels, inputs, strict=True))
