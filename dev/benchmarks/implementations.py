"""The implementations that ``tools/benchmark.py step`` compares."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmpretrain.models import BaseSelfSupervisor, SimMIM
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mim_plugins.engine import load_config
from mim_plugins.models import MaskedImageModel
from mim_plugins.models.attention import attention_backend

from .dims import MIMDims
from .flops import mim_terms, total
from .reference import ReferenceMAE
from .simmim import OPTIM_WRAPPER, build_simmim, masked_samples

# Only these keys of a config's optim_wrapper matter here: precision is the
# benchmark's, the same for all implementations.
OPTIM_KEYS = ("optimizer", "constructor", "paramwise_cfg", "clip_grad")

# Small enough for any model to stay finite on random images without a warm-up.
LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Setting:
    """What is the same for all implementations.

    Attributes:
        device: Where they run.
        dtype: ``torch.float32``, or ``torch.bfloat16`` for autocast to it.
    """

    device: torch.device
    dtype: torch.dtype


class Implementation:
    """One way to run a training step, split into its three parts.

    Args:
        name: How the report calls it.
        model: The model, on its device, in training mode.
        wrapper: The optimiser over it.
        loss: Maps a uint8 batch (N, C, H, W) to the scalar loss, normalisation
            included.
        setting: Where and how precisely it runs.
        attention: The attention backend it takes, for the report.
        dims: Sizes for the FLOP count, or None where no formula is known.
        lean: Whether it leaves out what the loss does not need; see
            :func:`~dev.benchmarks.flops.mim_terms`.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        wrapper: OptimWrapper,
        loss: Callable[[torch.Tensor], torch.Tensor],
        setting: Setting,
        attention: str,
        dims: MIMDims | None,
        lean: bool = False,
    ) -> None:
        self.name = name
        # Any: attributes of modules have no types.
        self.model: Any = model
        self.wrapper = wrapper
        self.loss = loss
        self.setting = setting
        self.attention = attention
        self.compiled = False
        self.official_flop: float | None = None
        self.computed_flop: float | None = None
        if dims is not None:
            self.official_flop = total(mim_terms(dims))
            self.computed_flop = total(mim_terms(dims, lean))
        self.dims = dims

    def autocast(self) -> torch.autocast:
        """Return the context in which the model runs."""
        lower = self.setting.dtype != torch.float32
        return torch.autocast(self.setting.device.type, torch.bfloat16, enabled=lower)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a uint8 batch (N, C, H, W)."""
        with self.autocast():
            return self.loss(images)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients."""
        self.wrapper.backward(loss)

    def update(self) -> None:
        """Step the optimiser and drop the gradients."""
        self.wrapper.step()
        self.wrapper.zero_grad()

    def compile_blocks(self) -> None:
        """Compile every transformer block, so that equal blocks share one graph.

        Raises:
            ValueError: If the model has no module list of blocks.
        """
        blocks: list[Any] = [
            block
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList)
            for block in module
            if any(isinstance(child, nn.LayerNorm) for child in block.children())
            and not any(isinstance(m, nn.ModuleList) for m in block.children())
        ]
        if not blocks:
            raise ValueError(f"{self.name}: no transformer blocks to compile")
        for block in blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
            if hasattr(block, "tail"):
                block.forward_last = torch.compile(block.forward_last, dynamic=False)
        self.compiled = True


def build_config(name: str, cfg: Config, setting: Setting) -> Implementation:
    """Build the model and the optimiser of a pre-training config.

    Args:
        name: How the report calls it.
        cfg: A config with ``model`` and ``optim_wrapper``.
        setting: Where and how precisely to run.

    Raises:
        ValueError: If the config has no model or no optimiser, or is not one of
            self-supervised pre-training.
    """
    for key in ("model", "optim_wrapper"):
        if key not in cfg:
            raise ValueError(f"{cfg.filename} has no `{key}`: give a training config")
    model_cfg = dict(cfg.model)
    if model_cfg.get("teacher_checkpoint") is not None:
        # The speed does not depend on the teacher's weights: no file is needed.
        model_cfg["teacher"] = MODELS.build(model_cfg["teacher"])
        model_cfg["teacher_checkpoint"] = None
    model = MODELS.build(model_cfg)
    if not isinstance(model, BaseSelfSupervisor):
        raise ValueError(
            f"{cfg.filename} builds {type(model).__name__}, which needs labels; the "
            "step benchmark takes pre-training configs"
        )
    ours = isinstance(model, MaskedImageModel)
    try:
        dims = MIMDims.from_model(model) if ours else None
    except ValueError:
        dims = None
    return _supervisor(name, model, dict(cfg.optim_wrapper), setting, dims)


def build_mmpretrain_mae(
    dims: MIMDims, cfg: Config, setting: Setting
) -> Implementation:
    """Build mmpretrain's own MAE with the sizes of another model.

    It has one level, whatever the other has; optimiser and parameter groups are those
    of mmpretrain's MAE configs.

    Args:
        dims: Sizes to take over.
        cfg: Config of the other model, for the normalisation of its images.
        setting: Where and how precisely to run.

    Raises:
        ValueError: If mmpretrain's MAE cannot have these sizes.
    """
    height, width = dims.img_size
    if height != width:
        raise ValueError(
            f"mmpretrain's MAE takes square images only, the config has {dims.img_size}"
        )
    encoder = dict(
        type="MAEViT",
        arch=dict(
            embed_dims=dims.width,
            num_layers=dims.depth,
            num_heads=dims.heads,
            feedforward_channels=dims.hidden,
        ),
        img_size=height,
        patch_size=dims.patch_size,
        mask_ratio=dims.mask_ratio,
        patch_cfg=dict(in_channels=dims.in_channels),
    )
    decoder = dict(
        type="MAEPretrainDecoder",
        num_patches=dims.patches,
        patch_size=dims.patch_size,
        in_chans=dims.in_channels,
        embed_dim=dims.width,
        decoder_embed_dim=dims.decoder_width,
        decoder_depth=dims.decoder_depth,
        decoder_num_heads=dims.decoder_heads,
        mlp_ratio=dims.decoder_hidden / dims.decoder_width,
    )
    head = dict(
        type="MAEPretrainHead",
        norm_pix=dims.norm_pix,
        patch_size=dims.patch_size,
        in_channels=dims.in_channels,
        loss=dict(type="PixelReconstructionLoss", criterion="L2"),
    )
    model = MODELS.build(
        dict(
            type="MAE",
            data_preprocessor=_plain_preprocessor(cfg),
            backbone=encoder,
            neck=decoder,
            head=head,
            init_cfg=[
                dict(type="Xavier", layer="Linear", distribution="uniform"),
                dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
            ],
        )
    )
    no_decay = ("ln", "bias", "pos_embed", "mask_token", "cls_token")
    optim_wrapper = dict(
        optimizer=dict(type="AdamW", betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=dict(custom_keys={key: dict(decay_mult=0.0) for key in no_decay}),
    )
    return _supervisor(
        "mmpretrain-mae", model, optim_wrapper, setting, replace(dims, taps=())
    )


def build_reference(dims: MIMDims, cfg: Config, setting: Setting) -> Implementation:
    """Build the plain reference with the sizes of another model.

    Args:
        dims: Sizes to take over.
        cfg: Config of the other model, for the normalisation of its images.
        setting: Where and how precisely to run.

    Raises:
        ValueError: If the reference cannot have these sizes.
    """
    mlp_ratio = dims.hidden / dims.width
    if mlp_ratio != dims.decoder_hidden / dims.decoder_width:
        raise ValueError(
            "the reference has one MLP ratio for encoder and decoders, the config has "
            f"{mlp_ratio} and {dims.decoder_hidden / dims.decoder_width}"
        )
    model = ReferenceMAE(
        img_size=dims.img_size,
        patch_size=dims.patch_size,
        in_chans=dims.in_channels,
        embed_dim=dims.width,
        depth=dims.depth,
        num_heads=dims.heads,
        decoder_embed_dim=dims.decoder_width,
        decoder_depth=dims.decoder_depth,
        decoder_num_heads=dims.decoder_heads,
        mlp_ratio=mlp_ratio,
        norm_pix_loss=dims.norm_pix,
        mask_ratio=dims.mask_ratio,
        taps=dims.taps,
    ).to(setting.device)
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": others, "weight_decay": 0.0},
            {"params": decayed, "weight_decay": 0.05},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.95),
    )
    preprocessor = MODELS.build(_plain_preprocessor(cfg)).to(setting.device)

    def loss(images: torch.Tensor) -> torch.Tensor:
        data = preprocessor({"inputs": images, "data_samples": []}, training=True)
        return model(data["inputs"]).loss

    wrapper = OptimWrapper(optimizer)
    return Implementation("reference", model, wrapper, loss, setting, "explicit", dims)


def build_baseline(
    name: str, dims: MIMDims | None, cfg: Config, setting: Setting
) -> Implementation:
    """Build the implementation that ``--vs NAME`` asks for.

    Args:
        name: ``mmpretrain-mae``, ``mmpretrain-simmim``, ``reference`` or the path of a
            config.
        dims: Sizes of the model to compare with.
        cfg: Config of that model.
        setting: Where and how precisely to run.

    Raises:
        ValueError: If the sizes are not known, or do not suit the implementation.
        FileNotFoundError: If the name is neither known nor a file.
    """
    builders = {"mmpretrain-mae": build_mmpretrain_mae, "reference": build_reference}
    if name == "mmpretrain-simmim":
        model = build_simmim(cfg, _plain_preprocessor(cfg))
        return _supervisor(name, model, OPTIM_WRAPPER, setting, None)
    if name in builders:
        if dims is None:
            raise ValueError(
                f"--vs {name} takes its sizes from the config, whose model is not one "
                "of a vision transformer, self-attention decoders and pixel targets"
            )
        return builders[name](dims, cfg, setting)
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"--vs {name}: neither a config file nor one of {', '.join(builders)}, "
            "mmpretrain-simmim"
        )
    return build_config(Path(name).stem, load_config(name), setting)


def _supervisor(
    name: str,
    model: BaseSelfSupervisor,
    optim_cfg: dict,
    setting: Setting,
    dims: MIMDims | None,
) -> Implementation:
    """Make an implementation of one of OpenMMLab's self-supervised models."""
    model.init_weights()
    model = model.to(setting.device)
    model.train()
    optim_cfg = {key: optim_cfg[key] for key in OPTIM_KEYS if key in optim_cfg}
    optim_cfg["optimizer"] = {**optim_cfg["optimizer"], "lr": LEARNING_RATE}
    wrapper = build_optim_wrapper(model, dict(type="OptimWrapper", **optim_cfg))
    ours = isinstance(model, MaskedImageModel)

    def loss(images: torch.Tensor) -> torch.Tensor:
        samples = _data_samples(images, ours, isinstance(model, SimMIM))
        data = {"inputs": images, "data_samples": samples}
        data = model.data_preprocessor(data, training=True)
        losses = model(data["inputs"], data["data_samples"], mode="loss")
        return model.parse_losses(losses)[0]

    # mmpretrain's own modules always take torch's fused function.
    backend = attention_backend(setting.device.type, setting.dtype) if ours else "fused"
    return Implementation(name, model, wrapper, loss, setting, backend, dims, lean=ours)


def _data_samples(images: torch.Tensor, ours: bool, simmim: bool) -> Any:
    """Make what the data pipeline sends along with a batch (N, C, H, W)."""
    count = len(images)
    if simmim:
        return masked_samples(count, (images.shape[2], images.shape[3]))
    if not ours:
        return [DataSample() for _ in range(count)]
    index = torch.arange(count, device=images.device)
    return {"sample_idx": index, "seed": index, "flip": index % 2 == 0}


def _plain_preprocessor(cfg: Config) -> dict:
    """Config of mmpretrain's preprocessor with another model's normalisation."""
    ours = cfg.model.get("data_preprocessor") or {}
    return dict(
        type="SelfSupDataPreprocessor",
        mean=ours.get("mean"),
        std=ours.get("std"),
        to_rgb=ours.get("bgr_to_rgb", False) or ours.get("to_rgb", False),
    )
