"""What the golden cases on Vision Transformers share."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints import KeyRules
from mim_plugins.checkpoints.layouts.deepmim import rules_for

from .case import GoldenCase
from .compare import MaskedRows, WithTies

# Normalisation of the images, in pixel values; official constants, in no case.json.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

Produced = dict[str, Tensor | MaskedRows | WithTies]


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
    residuals = watch_blocks(model.backbone.layers)
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


def watch_blocks(layers: nn.ModuleList) -> dict[str, Tensor]:
    """Fills a dict with the residual stream after blocks, as they are run.

    Its names are those of DeepMIM's and LocalMIM's cases.
    """
    residuals: dict[str, Tensor] = {}
    # Counted from one: the first block, block depth // 2, the last block.
    named = {"block1": 0, "block_mid": len(layers) // 2 - 1, "block_last": -1}
    # Counted from zero: every block.
    named |= {f"block_{index}": index for index in range(len(layers))}
    for name, index in named.items():
        layers[index].register_forward_hook(
            lambda _module, _inputs, output, name=name: residuals.update({name: output})
        )
    return residuals


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
