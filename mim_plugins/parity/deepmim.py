"""Runs DeepMIM's golden cases on our modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints import KeyRules
from mim_plugins.checkpoints.deepmim import rules_for
from mim_plugins.models.masking import PatchMask
from mim_plugins.models.targets import CLIPTarget

from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows, WithTies

# Blocks 6, 8 and 10, counted from one, are hard-coded in the official encoder.
OFFICIAL_TAPS = (5, 7, 9)

# Shares of the true pixels at the four levels of the hybrid targets (the paper's).
OFFICIAL_ALPHA = (0, 1 / 3, 2 / 3, 1)

# Normalisation of the images, in pixel values; official constants, in no case.json.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

Produced = dict[str, Tensor | MaskedRows | WithTies]


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    if "global_pool" in case.config["model"]:
        return run_classifier(case)
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


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier: features, logits, loss, residual stream, gradients.

    The residual stream after a block has the names of DeepMIM's and LocalMIM's cases.
    """
    args = case.config["model"]
    pooled = args["global_pool"]
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="VisionTransformer",
                out_type="avg_featmap" if pooled else "cls_token",
                final_norm=not pooled,
                qkv_bias=args["qkv_bias"],
                **encoder_args(args),
            ),
            head=dict(
                type="LinearClsHead",
                num_classes=args["num_classes"],
                in_channels=args["embed_dim"],
            ),
        )
    )
    rules = load_official(model, case)
    layers = model.backbone.layers
    residuals: dict[str, Tensor] = {}
    # Counted from one: the first block, block depth // 2, the last block.
    named = {"block1": 0, "block_mid": len(layers) // 2 - 1, "block_last": -1}
    # Counted from zero: every block.
    named |= {f"block_{index}": index for index in range(len(layers))}
    for name, index in named.items():
        layers[index].register_forward_hook(
            lambda _module, _inputs, output, name=name: residuals.update({name: output})
        )
    samples = [DataSample().set_gt_label(x) for x in case.inputs["labels"].tolist()]
    features = model.extract_feat(case.inputs["images"])
    loss = model.head.loss(features, samples)["loss"]
    loss.backward()
    return {
        "features": features[-1],
        "logits": model.head(features),
        "loss": loss,
        **residuals,
        **gradients(model, rules),
    }


def encoder_args(args: dict) -> dict:
    """Arguments of mmpretrain's Vision Transformer from the official ones."""
    return dict(
        arch=dict(
            embed_dims=args["embed_dim"],
            num_layers=args["depth"],
            num_heads=args["num_heads"],
            feedforward_channels=int(args["embed_dim"] * args["mlp_ratio"]),
        ),
        img_size=args["img_size"],
        patch_size=args["patch_size"],
        in_channels=args["in_chans"],
    )


def load_official(
    model: nn.Module, case: GoldenCase, rules: KeyRules | None = None
) -> dict[str, str]:
    """Loads official weights, every key; returns official key -> our key.

    Args:
        model: Takes the weights.
        case: Has the weights.
        rules: Rules of their layout, DeepMIM's and MAE's by default.

    Raises:
        KeyError: If a key is missing or left over.
    """
    rules = rules or rules_for(case.weights)
    model.load_state_dict(rules.convert(case.weights), strict=False)
    ours = {key: str(rules.to_ours(key)) for key in case.weights}
    missing = set(model.state_dict()) ^ set(ours.values())
    if missing:
        raise KeyError(f"keys without a counterpart: {sorted(missing)}")
    model.eval()
    return ours


def gradients(model: nn.Module, ours: dict[str, str]) -> dict[str, Tensor]:
    """Gradients under the names of the golden cases, ``grad:<official key>``."""
    gradient = {name: p.grad for name, p in model.named_parameters()}
    return {
        f"grad:{official}": value
        for official, key in ours.items()
        if (value := gradient.get(key)) is not None
    }
