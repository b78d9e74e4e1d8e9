"""Runs MAE-Lite's golden cases on Swin: SimMIM, distilled or not, and classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mim_plugins.checkpoints.layouts.mae_lite import parts_of
from mim_plugins.checkpoints.layouts.simmim import convert_to_official
from mim_plugins.models.masking import PatchMask

from .case import GoldenCase
from .localmim_swin import encoder_args
from .maelite_finetune import classified, load_official
from .maelite_teaching import load_encoder, teaching
from .vit import Produced


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules."""
    if case.config["model"].get("cls") == "SwinTransformer":
        return run_classifier(case)
    return run_pretraining(case)


def run_pretraining(case: GoldenCase) -> Produced:
    """SimMIM, with or without distillation: what leads to the loss, and gradients."""
    args = case.config["model"]
    student = args.get("student", args)
    config = simmim_config(student, case.config["mask_ratio"])
    distilled = "distill" in args
    if distilled:
        teacher = simmim_encoder(args["teacher"]["encoder"])
        arch = config["backbone"]["arch"]
        # The last block of the last stage has attention logits alone.
        arch["depths"] = [*arch["depths"][:-1], arch["depths"][-1] - 1]
        config |= dict(
            type="DistilledMIM",
            teacher=load_encoder(teacher, case.weights),
            extra_block=True,
            distillation=[
                dict(
                    type="AttentionDistillation",
                    student_layers=[sum(arch["depths"])],
                    teacher_layers=[sum(teacher["arch"]["depths"]) - 1],
                    weight=args["distill"]["distill_attn_alpha"],
                )
            ],
        )
    model: Any = MODELS.build(config)
    load_official(model, case.weights)
    images = case.inputs["images"]
    mask = cell_mask(case.inputs["mask"], model.backbone.image_grid(images))
    stream = list(model.backbone.stream(images, mask))
    latents = model.backbone.latents(stream)
    losses = model.head.loss(
        model.neck(latents, mask), model.target_generator(images, mask)
    )
    total = losses["loss"]
    everything = model.neck(latents, mask, masked_only=False)
    arrays: Produced = {
        "loss_recon": total,
        "latent": model.neck.norm(latents[0]),
        "pred": model.pictures(everything, images, mask)[0],
    }
    if distilled:
        loss, taught = teaching(model, images, mask, stream)
        total, arrays = total + loss, arrays | taught
    total.backward()
    return {"loss": total, **arrays, **gradients(model, case.weights)}


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier, mmpretrain's own: features, loss, gradients."""
    args = case.config["model"]
    width = args["embed_dim"] * 2 ** (len(args["depths"]) - 1)
    model: Any = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=classifier_encoder(args),
            neck=dict(type="GlobalAveragePooling"),
            head=dict(
                type="LinearClsHead", num_classes=args["num_classes"], in_channels=width
            ),
        )
    )
    load_official(model, case.weights)
    features = model.extract_feat(case.inputs["images"])
    arrays = {"pooled": features[-1], **classified(case, model, features)}
    return {**arrays, **gradients(model, case.weights)}


def simmim_config(args: dict, mask_ratio: float) -> dict[str, Any]:
    """A SimMIM from the official arguments."""
    encoder = simmim_encoder(args["encoder"])
    channels = args["encoder"]["in_chans"]
    (final_stage,) = args["encoder"]["decoder_idx"]
    decoder: dict[str, Any] = dict(depth=0)
    if args["if_stu"]:
        decoder = dict(embed_dims=args["decoder_embed_dim"], depth=1, num_heads=3)
    return dict(
        type="DeepMIM",
        data_preprocessor=dict(mean=[0.0] * channels, std=[1.0] * channels),
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=mask_ratio),
        backbone=encoder | dict(final_stage=final_stage),
        neck=dict(type="SimMIMDecoder", **decoder),
        target_generator=dict(
            type="PixelTarget", norm_pix=False, cell_size=args["encoder_stride"]
        ),
        head=dict(type="ReconstructionHead", criterion="L1"),
    )


def simmim_encoder(args: Mapping[str, Any]) -> dict[str, Any]:
    """A masked encoder from the official arguments."""
    return encoder_args(args) | dict(
        type="SimMIMSwin", norm_eps=None, use_abs_pos_embed=args["ape"]
    )


def classifier_encoder(args: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder of mmpretrain, whose windows are no larger than the maps."""
    encoder = encoder_args(args) | dict(
        type="SwinTransformer", use_abs_pos_embed=args["ape"]
    )
    shared, window = encoder.pop("stage_cfgs"), encoder.pop("window_size")
    encoder.pop("norm_eps")
    side = args["img_size"] // args["patch_size"]
    stages = range(len(args["depths"]))
    return encoder | dict(
        out_indices=(stages[-1],),
        stage_cfgs=[dict(shared, window_size=min(window, side >> k)) for k in stages],
    )


def cell_mask(mask: Tensor, grid: tuple[int, int]) -> PatchMask:
    """A mask of tokens, (N, H / 4, W / 4), constant on cells, as one of cells."""
    rows, cols = (size // side for size, side in zip(mask.shape[1:], grid, strict=True))
    return PatchMask.from_mask(mask[:, ::rows, ::cols], grid)


def gradients(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients in the official layout, under the names ``grad:<official key>``."""
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    adapters = "distillation.attention.adapters.0.weight"
    adapter = found.pop(adapters, None)
    official = convert_to_official(found)
    parts = parts_of(weights)
    if "attn_adapter" not in parts:
        return {f"grad:{key}": value for key, value in official.items()}
    result = {f"grad:model.{key}": value for key, value in official.items()}
    (name,) = parts["attn_adapter"]
    assert adapter is not None
    return result | {f"grad:attn_adapter.{name}": adapter}
