"""Runs MIRL's golden cases on our modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints.files.paddle import read_paddle_state_dict
from mim_plugins.checkpoints.layouts.mirl import (
    convert_official,
    rules_for,
    transpose_linears,
)
from mim_plugins.models.masking import PatchMask

from .case import GoldenCase
from .compare import MASKED_ONLY, MaskedRows
from .paddle_files import FOLDED, paddle_files, read_forms
from .vit import Produced, encoder_args


def run(case: GoldenCase) -> Produced:
    """Computes the arrays of a case with our modules.

    Raises:
        NotImplementedError: If the case is of a variant that is not known.
    """
    args = case.config["model"]
    if "files" in case.config:
        return run_files(case)
    if "from_grid" in args:
        return run_resize(case)
    if "global_pool" in args:
        return run_classifier(case)
    if "decoder_embed_dims" in args:
        return run_pretraining(case)
    raise NotImplementedError(
        f"MIRL variant {case.config.get('variant')!r} is not known: it has none of "
        "files, model.from_grid, model.global_pool, model.decoder_embed_dims"
    )


def run_pretraining(case: GoldenCase) -> Produced:
    """Pre-training: masks, latents, predictions, losses, gradients."""
    model = build_pretraining(case.config)
    load(model, case.weights)
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
    normed = [
        norm(latent)
        for norm, latent in zip(model.neck.norms, latents[:-1], strict=True)
    ]
    return {
        "mask": mask.mask,
        "ids_restore": mask.ids_restore,
        "low_feat": normed[0],
        **{f"feats_{k}": feature for k, feature in enumerate(normed[1:])},
        "latent": latents[-1],
        "target": MaskedRows(targets[0].values, mask, MASKED_ONLY["target"]),
        **{
            f"pred_{k}": MaskedRows(prediction, mask, MASKED_ONLY["pred"])
            for k, prediction in enumerate(predictions)
        },
        # Ours are shares of the mean over the pairs.
        **{f"loss_{k}": len(losses) * x for k, x in enumerate(losses.values())},
        "loss": total,
        **gradients(model, case.weights),
    }


def build_pretraining(config: dict) -> Any:
    """A MIRL model from the official constructor's arguments."""
    args = config["model"]
    channels = args["in_chans"]
    return MODELS.build(
        dict(
            type="MIRL",
            data_preprocessor=dict(mean=[0.0] * channels, std=[1.0] * channels),
            mask_sampler=dict(
                type="RandomPatchMask", mask_ratio=config.get("mask_ratio") or 0.75
            ),
            backbone=dict(
                type="MIMVisionTransformer",
                taps=args["out_indices"],
                tap_embedding=True,
                norm_cfg=norm_cfg(args),
                **encoder_args(args),
            ),
            neck=dict(
                type="MIRLDecoder",
                embed_dims=args["decoder_embed_dims"],
                depth=args["decoder_depth"],
                num_heads=args["decoder_num_heads"],
                mlp_ratio=args["mlp_ratio"],
                weight_norm=args["weight_norm_pred"],
                norm_cfg=norm_cfg(args),
            ),
            # The official code normalises whatever norm_pix_loss says.
            target_generator=dict(type="PixelTarget", norm_pix=True),
            head=dict(type="ResidualPairHead", criterion="L2"),
        )
    )


def run_classifier(case: GoldenCase) -> Produced:
    """The fine-tuned classifier: features, logits, loss, residual stream, gradients."""
    args = case.config["model"]
    pooled = args["global_pool"]
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="MIMVisionTransformer",
                fixed_pos_embed=False,
                out_type="avg_featmap" if pooled else "cls_token",
                final_norm=not pooled,
                qkv_bias=args["qkv_bias"],
                norm_cfg=norm_cfg(args),
                **encoder_args(args),
            ),
            head=dict(
                type="LinearClsHead",
                num_classes=args["class_num"],
                in_channels=args["embed_dim"],
                loss=dict(type="CrossEntropyLoss", use_soft=True),
            ),
        )
    )
    load(model, case.weights)
    seen: dict[str, Tensor] = {}
    layers = model.backbone.layers
    # Counted from one: the first block, block depth // 2, the last block.
    named = {"first": 0, "mid": len(layers) // 2 - 1, "last": len(layers) - 1}
    for name, index in named.items():
        layers[index].register_forward_hook(
            lambda _m, _i, output, name=f"block_{name}": seen.update({name: output})
        )
    model.backbone.patch_embed.register_forward_hook(
        lambda _m, _i, output: seen.update(patch_tokens=output[0])
    )
    samples = [DataSample().set_gt_score(score) for score in case.inputs["targets"]]
    features = model.extract_feat(case.inputs["images"])
    loss = model.head.loss(features, samples)["loss"]
    loss.backward()
    return {
        "features": features[-1],
        "logits": model.head(features),
        "loss": loss,
        **seen,
        **gradients(model, case.weights),
    }


def run_resize(case: GoldenCase) -> Produced:
    """Position tables resized when they are loaded into a model of another size."""
    args = case.config["model"]
    table = case.inputs["pos_embed"]
    produced: Produced = {}
    for name in ("up", "down"):
        model = MODELS.build(
            dict(
                type="MIMVisionTransformer",
                arch=dict(
                    embed_dims=args["dim"],
                    num_layers=1,
                    num_heads=1,
                    feedforward_channels=1,
                ),
                img_size=args[f"to_grid_{name}"],
                patch_size=1,
            )
        )
        model.load_state_dict({"pos_embed": table.clone()}, strict=False)
        produced[f"pos_embed_{name}"] = model.pos_embed
    return produced


def run_files(case: GoldenCase) -> Produced:
    """What Paddle's files hold, as stored, transposed, and in a model of ours."""
    produced: Produced = {}
    for name in paddle_files(case.config):
        path = Path(case.name) / name
        produced |= read_forms(path)
        state = read_paddle_state_dict(path)
        if "decoder_embed0_1.weight" in state:
            model = build_pretraining(case.config)
            load(model, state)
            # The weights that the normalised predictors compute with.
            for k, decoder in enumerate(model.neck.decoders):
                key = f"{name}:{FOLDED}:decoder_pred{k}.weight"
                produced[key] = decoder.decoder_pred.weight
    return produced


def norm_cfg(args: dict) -> dict:
    """The norm layer that ``norm_layer`` of a case names."""
    match = re.search(r"epsilon=([\d.e-]+)", args.get("norm_layer", ""))
    return dict(type="LN", eps=float(match[1]) if match else 1e-6)


def load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads official weights, every key.

    Raises:
        KeyError: If a key is missing or left over.
    """
    converted = convert_official(weights)
    model.load_state_dict(converted, strict=False)
    missing = set(model.state_dict()) ^ set(converted)
    if missing:
        raise KeyError(f"keys without a counterpart: {sorted(missing)}")
    model.eval()


def gradients(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients in Paddle's layout, under the names ``grad:<official key>``."""
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    official = transpose_linears(rules_for(weights).convert(found, to="official"))
    return {f"grad:{key}": value for key, value in official.items()}
