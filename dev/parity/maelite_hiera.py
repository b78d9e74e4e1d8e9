"""Runs MAE-Lite's golden cases on Hiera."""

from __future__ import annotations

import re
from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from mim_plugins.checkpoints.layouts.hiera import PREDICTION, channels_first
from mim_plugins.models.backbones.hiera import feature_map
from mim_plugins.models.backbones.hiera_block import reroll
from mim_plugins.models.masking import PatchMask

from .case import GoldenCase
from .maelite_finetune import load_official
from .maelite_teaching import distillation_terms, load_encoder, teaching
from .vit import Produced, gradients


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules."""
    if case.config["model"].get("cls") == "Hiera":
        return run_classifier(case)
    return run_pretraining(case)


def run_pretraining(case: GoldenCase) -> Produced:
    """MAE, with or without distillation: all that leads to the loss, and gradients."""
    args = case.config["model"]
    distilled = "distill" in args
    config = mae_config(args.get("student", args), case.config["mask_ratio"])
    if distilled:
        teacher = dict(type="MIMHiera", **encoder_args(args["teacher"]))
        config |= dict(
            type="DistilledMIM",
            teacher=load_encoder(teacher, case.weights),
            distillation=distillation_terms(args["distill"], order="student"),
        )
    model: Any = MODELS.build(config)
    official = load_official(model, case.weights)
    images = case.inputs["images"]
    mask = official_mask(model, case)
    stream = list(model.backbone.stream(images, mask))
    latents = model.backbone.latents(stream)
    predictions = model.neck(latents, mask)
    targets = model.target_generator(images, mask)
    total = model.head.loss(predictions, targets)["loss"]
    everything = model.neck(latents, mask, masked_only=False)[0]
    arrays: Produced = {
        "loss_recon": total,
        "pred": to_patches(everything, model, mask),
        **{
            f"stage_out_{k}": by_unit(reroll(tokens).flatten(1, 2), mask)
            for k, tokens in enumerate(model.backbone.stage_outputs(stream))
        },
        **reconstruction_arrays(model, latents, predictions[0], targets[0][0], mask),
    }
    if distilled:
        loss, taught = teaching(model, images, mask, stream)
        total = total + loss
        arrays |= {k: official_attention(k, v, mask) for k, v in taught.items()}
    total.backward()
    return {"loss": total, **arrays, **official_gradients(model, official)}


def reconstruction_arrays(
    model: Any,
    latents: list[Tensor],
    prediction: Tensor,
    target: Tensor,
    mask: PatchMask,
) -> Produced:
    """The arrays of every pre-training case other than the losses."""
    fused = model.neck.fuse(latents)
    removed = mask.at_scale(model.neck.scales[0])
    return {
        "mask_units_keep": 1 - mask.mask,
        "pred_mask_visible": 1 - removed,
        "fused_before_norm": by_unit(fused, mask),
        "latent": by_unit(model.neck.fusion_norm(fused), mask),
        "pred_masked": to_patches(complete(prediction, mask), model, mask)[removed > 0],
        "target_masked": to_patches(complete(target, mask), model, mask)[removed > 0],
    }


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier: stages, logits, loss, scores, gradients."""
    args = case.config["model"]
    backbone = encoder_args(args)
    width = backbone["arch"]["embed_dims"] * 2 ** (len(args["stages"]) - 1)
    model: Any = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(type="Hiera", **backbone),
            head=dict(
                type="LinearClsHead", num_classes=args["num_classes"], in_channels=width
            ),
        )
    )
    official = load_official(model, case.weights)
    images = case.inputs["images"]
    grid = model.backbone.image_grid(images)
    stages: Produced = {}
    for k, end in enumerate(stage_ends(args["stages"])):
        model.backbone.layers[end].register_forward_hook(
            lambda _m, _i, tokens, name=f"stage_out_{k}": stages.update(
                {name: feature_map(tokens, grid).permute(0, 2, 3, 1)}
            )
        )
    samples = [DataSample().set_gt_label(x) for x in case.inputs["labels"].tolist()]
    features = model.extract_feat(images)
    loss = model.head.loss(features, samples)["loss"]
    loss.backward()
    scores = [sample.pred_score for sample in model.head.predict(features)]
    return {
        "loss": loss,
        "logits": model.head(features),
        "eval_output_softmax": torch.stack(scores),
        **stages,
        **official_gradients(model, official),
    }


def mae_config(args: dict, mask_ratio: float) -> dict[str, Any]:
    """An MAE from the official arguments.

    Raises:
        NotImplementedError: If the prediction is not of whole patches.
    """
    if args.get("pred_dim"):
        raise NotImplementedError(f"Hiera with pred_dim={args['pred_dim']}")
    channels = args["in_chans"]
    return dict(
        type="DeepMIM",
        data_preprocessor=dict(mean=[0.0] * channels, std=[1.0] * channels),
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=mask_ratio),
        backbone=dict(type="MIMHiera", **encoder_args(args)),
        neck=dict(
            type="FusionDecoder",
            embed_dims=args["decoder_embed_dim"],
            depth=args["decoder_depth"],
            num_heads=args["decoder_num_heads"],
            mlp_ratio=args["mlp_ratio"],
            norm_cfg=norm_cfg(args),
        ),
        # One cell for each token of the last stage.
        target_generator=dict(
            type="PixelTarget", cell_size=args["patch_stride"][0] * 2 ** args["q_pool"]
        ),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )


def encoder_args(args: dict) -> dict:
    """Arguments of our Hiera from the official ones.

    Raises:
        NotImplementedError: If the official arguments ask for what ours has not.
    """
    stages = len(args["stages"])
    kernel, stride = args["patch_kernel"][0], args["patch_stride"][0]
    fixed = {
        "q_stride": [2, 2],
        "mask_unit_size": [2 ** (stages - 1)] * 2,
        "dim_mul": 2.0,
        "head_mul": 2.0,
        "patch_kernel": [kernel] * 2,
        "patch_stride": [stride] * 2,
        "patch_padding": [(kernel - 1) // 2] * 2,
        "sep_pos_embed": False,
    }
    for name, value in fixed.items():
        if args.get(name, value) != value:
            raise NotImplementedError(f"Hiera with {name}={args[name]}")
    return dict(
        arch=dict(
            embed_dims=args["embed_dim"],
            depths=args["stages"],
            num_heads=args["num_heads"],
        ),
        img_size=tuple(args["input_size"]),
        patch_size=stride,
        patch_kernel=kernel,
        in_channels=args["in_chans"],
        mlp_ratio=args["mlp_ratio"],
        q_pool=args["q_pool"],
        mask_unit_attn=args["mask_unit_attn"],
        drop_path_rate=args["drop_path_rate"],
        norm_cfg=norm_cfg(args),
    )


def norm_cfg(args: dict) -> dict:
    """The norm layer that ``norm_layer`` of a case names."""
    match = re.search(r"eps=([\d.e-]+)", args.get("norm_layer", ""))
    return dict(type="LN", eps=float(match[1]) if match else 1e-6)


def stage_ends(depths: list[int]) -> list[int]:
    """Zero-based index of the last block of each stage."""
    return [sum(depths[: k + 1]) - 1 for k in range(len(depths))]


def official_mask(model: Any, case: GoldenCase) -> PatchMask:
    """The mask of a case, visible units in raster order, as in the official code."""
    drawn = PatchMask.from_noise(
        case.inputs["noise"],
        model.mask_sampler.mask_ratio,
        model.backbone.image_grid(case.inputs["images"]),
    )
    return PatchMask.from_mask(drawn.mask, drawn.grid)


def by_unit(tokens: Tensor, mask: PatchMask) -> Tensor:
    """(N, L_vis * t * t, C) -> (N, L_vis, t, t, C)."""
    side = round((tokens.shape[1] // mask.num_visible) ** 0.5)
    return tokens.unflatten(1, (mask.num_visible, side, side))


def complete(values: Tensor, mask: PatchMask) -> Tensor:
    """Values of removed units among zeros, in raster order, (N, L, D)."""
    visible = values.new_zeros(len(values), mask.num_visible, values.shape[-1])
    return mask.restore(torch.cat([visible, values], dim=1))


def to_patches(values: Tensor, model: Any, mask: PatchMask) -> Tensor:
    """Predictions or targets of units as official patches in raster order.

    Args:
        values: A unit's s x s cells row by row, (N, L, s * s * p * p * C).
        model: Has the scale s and the number of channels C.
        mask: Has the grid.

    Returns:
        (N, L * s * s, C * p * p).
    """
    (rows, cols), side = mask.grid, int(model.neck.scales[0])
    cells = values.unflatten(2, (side, side, -1)).unflatten(1, (rows, cols))
    cells = cells.transpose(2, 3).flatten(1, 4)
    pixels = cells.unflatten(2, (-1, model.backbone.in_channels))
    return pixels.transpose(2, 3).flatten(2)


def official_attention(name: str, values: Tensor, mask: PatchMask) -> Tensor:
    """Attention (N, heads, queries, keys) in the official order of tokens.

    A unit's tokens follow each other here, equal tokens of all units there. An axis of
    windows, of which there is one, is squeezed before the adapter.
    """
    if values.ndim == 0:
        return values
    for dim in (2, 3):
        units = values.unflatten(dim, (mask.num_visible, -1))
        values = units.transpose(dim, dim + 1).flatten(dim, dim + 1)
    return values if name.startswith("adapted") else values.unsqueeze(2)


def official_gradients(model: Any, official: dict[str, str]) -> dict[str, Tensor]:
    """Gradients in the official layout, under the names ``grad:<official key>``."""
    channels = model.backbone.in_channels
    return {
        name: channels_first(value, channels) if PREDICTION in name else value
        for name, value in gradients(model, official).items()
    }
