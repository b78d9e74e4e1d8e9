"""mmpretrain's SimMIM, which encodes removed tokens too, on Swin Transformers."""

from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mim_plugins.models import RandomPatchMask

# Of mmpretrain's SimMIM configs.
MASK_RATIO = 0.6
OPTIM_WRAPPER = dict(
    optimizer=dict(type="AdamW", betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys={
            key: dict(decay_mult=0.0)
            for key in ("norm", "bias", "absolute_pos_embed", "relative_position_bias")
        }
    ),
)


def build_simmim(cfg: Config, preprocessor: dict) -> BaseSelfSupervisor:
    """Builds SimMIM on a Swin Transformer of the same sizes as a config's.

    Args:
        cfg: Config of a model on ``MIMSwinTransformer``.
        preprocessor: Config of the data preprocessor.

    Raises:
        ValueError: If the config's encoder is another.
    """
    encoder = cfg.model.backbone
    if encoder.type != "MIMSwinTransformer":
        raise ValueError(
            "--vs mmpretrain-simmim takes its sizes from a config with a "
            f"MIMSwinTransformer, this one has a {encoder.type}"
        )
    arch = encoder.get("arch", "base")
    swin: Any = MODELS.get("SwinTransformer")
    widths = swin.arch_zoo[arch] if isinstance(arch, str) else arch
    side = 2 ** (len(widths["depths"]) - 1)
    backbone = dict(
        type="SimMIMSwinTransformer",
        arch=arch,
        img_size=encoder.get("img_size", 224),
        stage_cfgs=dict(
            block_cfgs=dict(window_size=encoder.get("window_size", 7)),
        ),
        drop_path_rate=0.0,
    )
    neck = dict(
        type="SimMIMLinearDecoder",
        in_channels=widths["embed_dims"] * side,
        encoder_stride=4 * side,
    )
    head = dict(
        type="SimMIMHead",
        patch_size=4,
        loss=dict(type="PixelReconstructionLoss", criterion="L1", channel=3),
    )
    return MODELS.build(
        dict(
            type="SimMIM",
            data_preprocessor=preprocessor,
            backbone=backbone,
            neck=neck,
            head=head,
        )
    )


def masked_samples(count: int, size: tuple[int, int]) -> list[DataSample]:
    """What SimMIM's pipeline sends along: a mask over tokens, removed in cells of 32.

    Args:
        count: Number of images.
        size: Their height and width in pixels.
    """
    grid = size[0] // 32, size[1] // 32
    mask = RandomPatchMask(MASK_RATIO)(count, grid, seeds=torch.arange(count))
    # A cell is 8x8 tokens of 4 pixels.
    tokens = mask.mask.view(count, *grid).repeat_interleave(8, 1)
    return [
        DataSample().set_mask(each.numpy()) for each in tokens.repeat_interleave(8, 2)
    ]
