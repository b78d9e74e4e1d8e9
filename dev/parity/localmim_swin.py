"""Runs the golden cases of LocalMIM's Swin Transformers on our modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints.layouts.localmim import convert_official, to_official
from mim_plugins.models.masking import PatchMask
from mim_plugins.models.patches import unpatchify

from .case import GoldenCase
from .compare import WithTies
from .ties import settled_targets
from .vit import IMAGENET, Produced

# Tokens of a stage between two that are stored, where a case does not say.
TRANSFER_STRIDES = (16, 4, 1, 1)


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    args = case.config["model"]
    if args["ape"]:
        raise NotImplementedError("Swin Transformers with absolute positions")
    if "decoder_embed_dim" in args:
        return run_pretraining(case)
    if "encoder.patch_embed.proj.weight" in case.weights:
        return run_transfer(case)
    if "head.weight" in case.weights:
        return run_classifier(case)
    raise NotImplementedError(
        f"LocalMIM variant {case.config.get('variant')!r} is not built yet"
    )


def run_pretraining(case: GoldenCase) -> Produced:
    """Pre-training: masks, latents, targets, predictions, losses, gradients."""
    args = case.config["model"]
    width = args["decoder_embed_dim"]
    model = MODELS.build(
        dict(
            type="LocalMIM",
            data_preprocessor=IMAGENET,
            mask_sampler=dict(
                type="SharedPatchMask", mask_ratio=case.config["mask_ratio"]
            ),
            # The official MLP ratio reaches the decoders alone.
            backbone=dict(
                merge_coordinates="official", **encoder_args(args | {"mlp_ratio": 4})
            ),
            neck=dict(
                type="MultiScaleDecoder",
                embed_dims=[width // 2] + [width] * (len(args["depths"]) - 1),
                depth=args["decoder_depth"],
                num_heads=args["decoder_num_heads"],
                mlp_ratio=args["mlp_ratio"],
            ),
            target_generator=dict(type="PixelTarget", norm_pix=args["norm_pix_loss"])
            if args["target"] == "Pixel"
            else dict(type="HOGTarget", nbins=args["hog_nbins"], bias=args["hog_bias"]),
            head=dict(type="ReconstructionHead", criterion="L2"),
        )
    )
    load_all(model, convert_official(case.weights))
    images = case.inputs["images"]
    grid = model.backbone.image_grid(images)
    mask = model.mask_sampler.from_ranks(
        case.inputs["perm"], len(images), grid, images.device
    )
    latents = model.backbone(images, mask)
    targets, _ = settled_targets(model.target_generator, images, mask)
    losses = model.head.loss(model.neck(latents, mask), targets)
    total = sum(losses.values())
    total.backward()
    with torch.no_grad():
        predictions = model.neck(latents, mask, masked_only=False)
    everything, ties = settled_targets(
        model.target_generator, images, all_removed(mask)
    )
    produced: Produced = {"mask": mask.mask, "loss": total, **gradients(model)}
    for k, (latent, scale) in enumerate(
        zip(latents, model.backbone.level_scales, strict=True)
    ):
        stride = int(case.outputs[f"stride_{k}"])
        inside = torch.arange(scale**2)
        produced |= {
            f"latent_{k}": model.neck.decoders[k].latent_norm(latent),
            f"ids_restore_{k}": (
                mask.ids_restore[:1, :, None] * scale**2 + inside
            ).flatten(1),
            f"mask_{k}": mask.at_scale(scale)[:1],
            f"loss_{k}": losses[f"loss_{k}"],
            f"pred_{k}": in_raster(predictions[k], grid, scale)[:, ::stride],
            f"target_{k}": WithTies(
                in_raster(everything[k].values, grid, scale)[:, ::stride], ties[k]
            ),
            # How the case is stored, which is all that this array says.
            f"stride_{k}": torch.tensor(stride),
        }
    return produced


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier: stages, features, logits, loss, gradients."""
    args = case.config["model"]
    width = args["embed_dim"] * 2 ** (len(args["depths"]) - 1)
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=finetuning_args(args),
            neck=dict(type="PooledNorm", in_channels=width),
            head=dict(
                type="LinearClsHead", num_classes=args["num_classes"], in_channels=width
            ),
        )
    )
    load_all(model, convert_official(case.weights))
    stages = record_stages(model.backbone)
    samples = [DataSample().set_gt_label(x) for x in case.inputs["labels"].tolist()]
    features = model.extract_feat(case.inputs["images"])
    loss = model.head.loss(features, samples)["loss"]
    loss.backward()
    return {
        "features": features[-1],
        "logits": model.head(features),
        "loss": loss,
        **stages,
        **gradients(model),
    }


def run_transfer(case: GoldenCase) -> Produced:
    """Pre-trained weights in the fine-tuning encoder, in either order of merging."""
    produced: Produced = {}
    for prefix, order in (("", "official_transfer"), ("reordered/", "trained")):
        encoder: Any = MODELS.build(finetuning_args(case.config["model"]))
        state = convert_official(case.weights, merge_order=order)
        last = f"backbone.norm{len(encoder.stages) - 1}."
        load_all(
            encoder,
            {
                key.removeprefix("backbone."): value
                for key, value in state.items()
                if key.startswith("backbone.") and not key.startswith(last)
            },
        )
        stages = record_stages(encoder)
        with torch.no_grad():
            features = encoder(case.inputs["images"])[-1]
        produced[f"{prefix}pooled"] = features.mean(dim=(2, 3))
        for k, stride in enumerate(TRANSFER_STRIDES[: len(encoder.stages)]):
            produced[f"{prefix}stage_{k}"] = stages[f"stage_{k}"][:, ::stride]
    return produced


def encoder_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Config of our encoder from the official arguments."""
    return dict(
        type="MIMSwinTransformer",
        arch=dict(
            embed_dims=args["embed_dim"],
            depths=args["depths"],
            num_heads=args["num_heads"],
        ),
        img_size=args["img_size"],
        patch_size=args["patch_size"],
        in_channels=args["in_chans"],
        window_size=args["window_size"],
        drop_path_rate=0.0,
        norm_eps=1e-6,
        patch_cfg={} if args["patch_norm"] else dict(norm_cfg=None),
        stage_cfgs=dict(
            block_cfgs=dict(
                ffn_ratio=args["mlp_ratio"],
                attn_cfgs=dict(qkv_bias=args["qkv_bias"], qk_scale=args["qk_scale"]),
            )
        ),
    )


def finetuning_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the encoder of fine-tuning, which norms after pooling."""
    return dict(norm_cfg=None, mlp_norm_eps=1e-5, **encoder_args(args))


def load_all(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads converted weights, every key, for evaluation.

    Raises:
        KeyError: If a key is missing or left over.
    """
    keys = set(model.state_dict()) ^ set(state)
    if keys:
        raise KeyError(f"keys without a counterpart: {sorted(keys)}")
    model.load_state_dict(state)
    model.eval()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients under the names, and in the layout, of the golden cases."""
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {f"grad:{key}": value for key, value in to_official(found).items()}


def record_stages(encoder: Any) -> dict[str, Tensor]:
    """Fills a dict with the tokens after the embedding and each merging."""
    recorded: dict[str, Tensor] = {}
    parts = {"patch_embed": encoder.patch_embed}
    for k, stage in enumerate(encoder.stages):
        parts[f"stage_{k}"] = stage.downsample or stage
    for name, part in parts.items():
        part.register_forward_hook(
            lambda _module, _inputs, output, name=name: recorded.update(
                {name: output[0]}
            )
        )
    return recorded


def all_removed(mask: PatchMask) -> PatchMask:
    """A mask of the same size that leaves nothing, so that targets cover all."""
    cells = torch.arange(mask.num_patches).expand_as(mask.ids_restore)
    return PatchMask(cells[:, :0], cells, torch.ones_like(mask.mask), mask.grid)


def in_raster(values: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """Values cell by cell, (N, L, scale**2 * D), as (N, rows * cols, D)."""
    return unpatchify(values, grid, (scale, scale)).flatten(2).transpose(1, 2)
