"""Runs DeepMIM's golden cases on our modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets import CLIPTarget

from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows
from .segmentation import run_vit
from .vit import (
    IMAGENET,
    Produced,
    encoder_args,
    gradients,
    load_official,
    run_classifier,
)

# Blocks 6, 8 and 10, counted from one, are hard-coded in the official encoder.
OFFICIAL_TAPS = (5, 7, 9)

# Shares of the true pixels at the four levels of the hybrid targets (the paper's).
OFFICIAL_ALPHA = (0, 1 / 3, 2 / 3, 1)


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    if "global_pool" in case.config["model"]:
        return run_classifier(case)
    if "fpn1_norm" in case.config["model"]:
        return run_vit(case, pool="max", maps="feat{}")
    if "decoder_pred_out" in case.config["model"] or has_clip_teacher(case):
        return run_pretraining(case)
    raise NotImplementedError(
        f"DeepMIM variant {case.config.get('variant')!r} is not built yet"
    )


def run_pretraining(case: GoldenCase) -> Produced:
    """Pre-training: masks, latents, targets, predictions, losses, gradients."""
    hybrid, clip = "teacher_pred" in case.outputs, has_clip_teacher(case)
    make_target = hybrid_target if hybrid else clip_target if clip else pixel_target
    model = MODELS.build(
        dict(
            **model_config(case, OFFICIAL_TAPS),
            target_generator=make_target(case),
            head=dict(type="ReconstructionHead", criterion="cosine" if clip else "L2"),
        )
    )
    rules = load_official(model, case)
    images = case.inputs["images"]
    mask = PatchMask.from_noise(
        case.inputs["noise"],
        model.mask_sampler.mask_ratio,
        model.backbone.image_grid(images),
    )
    latents = model.backbone(images, mask)
    teacher = watch_clip_teacher(model.target_generator, images, mask) if clip else {}
    targets = model.target_generator(images, mask)
    predictions = model.neck(latents, mask)
    losses = model.head.loss(predictions, targets)
    total = sum(losses.values())
    total.backward()
    masked: dict[str, Tensor] = {
        f"pred{k}": prediction for k, prediction in enumerate(predictions, 1)
    }
    if hybrid:
        masked |= {f"target{k}": t.values for k, t in enumerate(targets, 1)}
        masked["teacher_pred"] = model.target_generator.predict(images, mask)
    else:
        masked["target"] = targets[0].values
    return {
        "mask": mask.mask,
        "ids_restore": mask.ids_restore,
        "loss": total,
        **teacher,
        **{f"latent{k}": latent for k, latent in enumerate(latents, 1)},
        **{
            name: MaskedRows(values, mask, MASKED_ONLY[name.strip("1234")])
            for name, values in masked.items()
        },
        **{f"loss{k}": loss for k, loss in enumerate(losses.values(), 1)},
        **gradients(model, rules),
    }


def model_config(case: GoldenCase, taps: tuple[int, ...]) -> dict:
    """The model of a case without its target and head."""
    args = case.config["model"]
    return dict(
        type="DeepMIM",
        data_preprocessor=IMAGENET,
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=case.config["mask_ratio"]),
        backbone=dict(type="MIMVisionTransformer", taps=taps, **encoder_args(args)),
        neck=dict(
            type="MIMDecoder",
            embed_dims=args["decoder_embed_dim"],
            depth=args["decoder_depth"],
            num_heads=args["decoder_num_heads"],
            mlp_ratio=args["mlp_ratio"],
        ),
    )


def pixel_target(case: GoldenCase) -> dict:
    """The target of MAE and of DeepMIM on pixels."""
    return dict(type="PixelTarget", norm_pix=case.config["model"]["norm_pix_loss"])


def hybrid_target(case: GoldenCase) -> dict:
    """Pixels mixed with a frozen MAE of the same arguments."""
    teacher: dict[str, Any] = dict(
        **model_config(case, taps=()),
        target_generator=pixel_target(case),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )
    return dict(
        type="HybridTarget",
        alpha=OFFICIAL_ALPHA,
        teacher=teacher,
        checkpoint=Path(case.name) / "teacher.safetensors",
    )


def has_clip_teacher(case: GoldenCase) -> bool:
    """Whether the case's target is CLIP features."""
    return "output_dim" in case.config.get("teacher", {})


def clip_target(case: GoldenCase) -> dict:
    """The features of the case's own CLIP tower."""
    return dict(
        type="CLIPTarget",
        checkpoint=Path(case.name) / "teacher.safetensors",
        num_heads=case.config["teacher"]["heads"],
    )


def watch_clip_teacher(
    target: CLIPTarget, images: Tensor, mask: PatchMask
) -> dict[str, Tensor]:
    """What goes into the tower, and its residual stream once it has run."""
    seen = {"teacher_input": target.teacher_input(images, mask.grid)}
    tower: Any = target.teacher.network
    for name, index in (("teacher_block1", 0), ("teacher_last_block", -1)):
        tower.vit.layers[index].register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.update({name: output})
        )
    return seen
