"""Runs LocalMIM's golden cases on our modules."""

from __future__ import annotations

import math

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.checkpoints.layouts.localmim import rules_for
from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets import HOGTarget

from . import localmim_swin, segmentation
from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows, WithTies
from .ties import settle, settled_targets
from .vit import (
    IMAGENET,
    Produced,
    encoder_args,
    gradients,
    load_official,
    run_classifier,
)

# Options of the official HOG layer that its recipes never change.
HOG_CONSTANTS = {"max_angle": math.pi, "stride": 1, "padding": 1, "dilation": 1}


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    args = case.config["model"]
    if "cases" in args:
        return run_hog(case)
    if "global_pool" in args:
        return run_classifier(case)
    if "fpn1_norm" in args:
        return segmentation.run_vit(case, pool="avg", maps="feat_{}")
    if "pretrain_img_size" in args:
        return segmentation.run_swin(case)
    if "decoder_embed_dim" in args and "depth" in args:
        return run_vit(case)
    if "window_size" in args:
        return localmim_swin.run(case)
    raise NotImplementedError(
        f"LocalMIM variant {case.config.get('variant')!r} is not built yet"
    )


def official_taps(depth: int) -> tuple[int, ...]:
    """The supervised blocks but the last, which the official encoder hard-codes."""
    return 1, 3, depth - 3


def run_vit(case: GoldenCase) -> Produced:
    """Pre-training: masks, latents, targets, predictions, losses, gradients."""
    args = case.config["model"]
    model = MODELS.build(
        dict(
            type="LocalMIM",
            data_preprocessor=IMAGENET,
            mask_sampler=dict(
                type="RandomPatchMask", mask_ratio=case.config["mask_ratio"]
            ),
            backbone=dict(
                type="MIMVisionTransformer",
                taps=official_taps(args["depth"]),
                **encoder_args(args),
            ),
            neck=dict(
                type="MultiScaleDecoder",
                embed_dims=args["decoder_embed_dim"],
                depth=args["decoder_depth"],
                num_heads=args["decoder_num_heads"],
                mlp_ratio=args["mlp_ratio"],
            ),
            target_generator=dict(
                type="HOGTarget", nbins=args["hog_nbins"], bias=args["hog_bias"]
            ),
            head=dict(type="ReconstructionHead", criterion="L2"),
        )
    )
    ours = load_official(model, case, rules_for(case.weights))
    images = case.inputs["images"]
    mask = PatchMask.from_noise(
        case.inputs["noise"],
        model.mask_sampler.mask_ratio,
        model.backbone.image_grid(images),
    )
    latents = model.backbone(images, mask)
    targets, ties = settled_targets(model.target_generator, images, mask)
    predictions = model.neck(latents, mask)
    losses = model.head.loss(predictions, targets)
    total = sum(losses.values())
    total.backward()
    produced: Produced = {
        "mask": mask.mask,
        "ids_restore": mask.ids_restore,
        "loss": total,
        **gradients(model, ours),
    }
    for k, (decoder, latent, prediction, target, count, loss) in enumerate(
        zip(
            model.neck.decoders,
            latents,
            predictions,
            targets,
            ties,
            losses.values(),
            strict=True,
        )
    ):
        produced[f"latent_{k}"] = decoder.latent_norm(latent)
        produced[f"pred_{k}"] = all_or_masked("pred", prediction, mask, decoder.scale)
        produced[f"target_{k}"] = WithTies(
            all_or_masked("target", target.values, mask, decoder.scale), count
        )
        produced[f"mask_{k}"] = mask.at_scale(decoder.scale)
        produced[f"loss_{k}"] = loss
    return produced


def all_or_masked(
    name: str, values: Tensor, mask: PatchMask, scale: float
) -> Tensor | MaskedRows:
    """All cells where they pool patches, and else those of the removed patches."""
    if scale < 1:
        return values
    return MaskedRows(values, mask, MASKED_ONLY[name], int(scale))


def run_hog(case: GoldenCase) -> Produced:
    """The HOG target by itself, on many images and settings."""
    produced: Produced = {}
    for args in case.config["model"]["cases"]:
        for name, value in HOG_CONSTANTS.items():
            if not math.isclose(args.get(name, value), value):
                raise NotImplementedError(f"HOG with {name}={args[name]}")
        tag = args["name"]
        target = HOGTarget(args["nbins"], args["pool"], args["bias"])
        weights = {
            f"gradients.0.{name.split('.')[-1]}": value
            for name, value in case.weights.items()
            if name.startswith(f"{tag}.conv.")
        }
        target.load_state_dict(weights)
        images = case.inputs[f"{tag}/images"]
        gradient = torch.stack(target.responses(images)[0], dim=2)
        produced[f"{tag}/grad_ch0"] = gradient[:, 0]
        cells = target.histograms(images)[0].flatten(1, 2)
        on_cpu = target.cpu().histograms(images.cpu())[0].flatten(1, 2)
        produced[f"{tag}/target"] = WithTies(*settle(cells, on_cpu, cells.shape[-1]))
    return produced
