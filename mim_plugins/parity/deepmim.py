"""Runs DeepMIM's golden cases on our modules."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints.deepmim import rules_for
from mim_plugins.models.masking import PatchMask

from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows

# Blocks 6, 8 and 10, counted from one, are hard-coded in the official encoder.
OFFICIAL_TAPS = (5, 7, 9)

Produced = dict[str, Tensor | MaskedRows]


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant not built yet.
    """
    if "global_pool" in case.config["model"]:
        return run_classifier(case)
    if "decoder_pred_out" in case.config["model"] and "target" in case.outputs:
        return run_pretraining(case)
    raise NotImplementedError(
        f"DeepMIM variant {case.config.get('variant')!r} is not built yet"
    )


def run_pretraining(case: GoldenCase) -> Produced:
    """Pre-training on pixels: masks, latents, predictions, losses, gradients."""
    args = case.config["model"]
    model = MODELS.build(
        dict(
            type="DeepMIM",
            data_preprocessor=dict(
                mean=[0.0] * args["in_chans"], std=[1.0] * args["in_chans"]
            ),
            mask_sampler=dict(
                type="RandomPatchMask", mask_ratio=case.config["mask_ratio"]
            ),
            backbone=dict(
                type="MIMVisionTransformer", taps=OFFICIAL_TAPS, **encoder_args(args)
            ),
            neck=dict(
                type="MIMDecoder",
                embed_dims=args["decoder_embed_dim"],
                depth=args["decoder_depth"],
                num_heads=args["decoder_num_heads"],
                mlp_ratio=args["mlp_ratio"],
            ),
            target_generator=dict(type="PixelTarget", norm_pix=args["norm_pix_loss"]),
            head=dict(type="ReconstructionHead", criterion="L2"),
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
    targets = model.target_generator(images, mask)
    predictions = model.neck(latents, mask)
    losses = model.head.loss(predictions, targets)
    total = sum(losses.values())
    total.backward()
    return {
        "mask": mask.mask,
        "ids_restore": mask.ids_restore,
        "target": MaskedRows(targets[0].values, mask, MASKED_ONLY["target"]),
        "loss": total,
        **{f"latent{k}": latent for k, latent in enumerate(latents, 1)},
        **{
            f"pred{k}": MaskedRows(prediction, mask, MASKED_ONLY["pred"])
            for k, prediction in enumerate(predictions, 1)
        },
        **{f"loss{k}": loss for k, loss in enumerate(losses.values(), 1)},
        **gradients(model, rules),
    }


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier: features, logits, loss, residual stream, gradients."""
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


def load_official(model: nn.Module, case: GoldenCase) -> dict[str, str]:
    """Loads official weights, every key; returns official key -> our key."""
    rules = rules_for(case.weights)
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
        if (value := gradient[key]) is not None
    }
