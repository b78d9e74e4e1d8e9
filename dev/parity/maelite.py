"""Runs MAE-Lite's golden cases on our modules: pre-training and distillation."""

from __future__ import annotations

from typing import Any

from mmpretrain.registry import MODELS

from mim_plugins.checkpoints.layouts.mae_lite import extra_block_of, parts_of
from mim_plugins.models.masking import PatchMask

from . import (
    maelite_analysis,
    maelite_finetune,
    maelite_hiera,
    maelite_swin,
    maelite_tracking,
)
from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows
from .maelite_finetune import load_official
from .maelite_hiera import norm_cfg
from .maelite_teaching import distillation_terms, load_encoder, teaching
from .vit import Produced, encoder_args, gradients


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    args = case.config["model"]
    kind = args.get("student", args).get("cls", "")
    if kind.startswith("OSTrack"):
        return maelite_tracking.run(case)
    if kind.startswith("MaskedAutoencoderViT"):
        return run_pretraining(case)
    if kind.startswith("VisionTransformer"):
        return maelite_finetune.run(case)
    if "Hiera" in kind:
        return maelite_hiera.run(case)
    if kind in ("SimMIM", "SwinTransformer"):
        return maelite_swin.run(case)
    if kind == "RepCmpAnalyzer":
        return maelite_analysis.run_cka(case)
    if "AttnAnalyzer" in kind:
        return maelite_analysis.run_attention(case)
    raise NotImplementedError(
        f"MAE-Lite variant {case.config.get('variant')!r} is not built yet"
    )


def run_pretraining(case: GoldenCase) -> Produced:
    """MAE, with or without distillation: all that leads to the loss, and gradients."""
    args = case.config["model"]
    student = args.get("student", args)
    config = mae_config(student, case.config["mask_ratio"])
    distilled = "distill" in args
    if distilled:
        extra = extra_block_of(parts_of(case.weights)["model"]) is not None
        config["backbone"]["arch"]["num_layers"] -= extra
        if (blocks := args["distill"].get("decode_idx")) is not None:
            config["backbone"]["final_block"] = blocks - 1
        config |= dict(
            type="DistilledMIM",
            teacher=load_encoder(encoder_config(args["teacher"]), case.weights),
            distillation=distillation_terms(args["distill"], order="teacher"),
            extra_block=extra,
        )
    model: Any = MODELS.build(config)
    official = load_official(model, case.weights)
    images = case.inputs["images"]
    ratio = model.mask_sampler.mask_ratio
    mask = PatchMask.from_noise(case.inputs["noise"], ratio, model.backbone.grid)
    stream = list(model.backbone.stream(images, mask))
    latents = model.backbone.latents(stream)
    predictions = model.neck(latents, mask)
    targets = model.target_generator(images, mask)
    total = model.head.loss(predictions, targets)["loss"]
    arrays: Produced = {
        "mask": mask.mask,
        "ids_restore": mask.ids_restore,
        "ids_shuffle": mask.ids_shuffle,
        "latent": latents[0],
        "loss_recon": total,
        "pred": MaskedRows(predictions[0], mask, MASKED_ONLY["pred"]),
        "target": MaskedRows(targets[0].values, mask, MASKED_ONLY["target"]),
    }
    if distilled:
        loss, taught = teaching(model, images, mask, stream)
        total, arrays = total + loss, arrays | taught
    total.backward()
    return {"loss": total, **arrays, **gradients(model, official)}


def mae_config(args: dict, mask_ratio: float) -> dict[str, Any]:
    """An MAE from the official arguments.

    Raises:
        NotImplementedError: If it predicts something other than the pixels of a patch.
    """
    if args.get("decoder_pred_dim") is not None:
        raise NotImplementedError(f"decoder_pred_dim={args['decoder_pred_dim']}")
    return dict(
        type="DeepMIM",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=mask_ratio),
        backbone=encoder_config(args),
        neck=dict(
            type="MIMDecoder",
            embed_dims=args["decoder_embed_dim"],
            depth=args["decoder_depth"],
            num_heads=args["decoder_num_heads"],
            mlp_ratio=args["mlp_ratio"],
            norm_cfg=norm_cfg(args),
        ),
        target_generator=dict(type="PixelTarget", norm_pix=args["norm_pix_loss"]),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )


def encoder_config(args: dict) -> dict[str, Any]:
    """A masked encoder from the official arguments."""
    return dict(
        type="MIMVisionTransformer", norm_cfg=norm_cfg(args), **encoder_args(args)
    )
