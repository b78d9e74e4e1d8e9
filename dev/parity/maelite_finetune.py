"""Runs MAE-Lite's fine-tuning cases on ViT: plain, distilled, relative positions."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mim_plugins.checkpoints.layouts.mae_lite import convert_official

from .case import GoldenCase
from .vit import Produced, encoder_args, gradients


def run(case: GoldenCase) -> Produced:
    """Features, logits, losses and gradients of a classifier."""
    args = case.config["model"]
    head: dict[str, Any] = dict(
        type="LinearClsHead",
        num_classes=args["num_classes"],
        in_channels=args["embed_dim"],
    )
    if "use_rel_pos_bias" in args:
        return run_relative_position(case, head)
    pooled = args["global_pool"]
    if args.get("distilled"):
        head["type"] = "TokenDistillationHead"
        out_type = "raw"
    else:
        out_type = "avg_featmap" if pooled else "cls_token"
    backbone = dict(
        type="VisionTransformer",
        out_type=out_type,
        final_norm=not pooled,
        qkv_bias=args["qkv_bias"],
        **encoder_args(args),
    )
    model, official = build(case, backbone, head)
    features = model.extract_feat(case.inputs["images"])
    arrays = token_distillation(case, model, features) if args.get("distilled") else {}
    if not arrays:
        arrays = {"pooled": features[-1], **classified(case, model, features)}
    return {**arrays, **gradients(model, official)}


def run_relative_position(case: GoldenCase, head: dict) -> Produced:
    """The model with relative positions: also its first and last block's inside."""
    args = case.config["model"]
    pooled = args["use_mean_pooling"]
    if args["qk_scale"] is not None:
        raise NotImplementedError(f"relative positions with {args['qk_scale']=}")
    backbone = dict(
        type="RelPosVisionTransformer",
        bias="qv_bias" if args["qv_bias"] else args["qkv_bias"],
        use_abs_pos_emb=args["use_abs_pos_emb"],
        use_rel_pos_bias=args["use_rel_pos_bias"],
        use_shared_rel_pos_bias=args["use_shared_rel_pos_bias"],
        layer_scale_init_value=args["init_values"] or 0.0,
        out_type="avg_featmap" if pooled else "cls_token",
        final_norm=not pooled,
        **encoder_args(args),
    )
    model, official = build(case, backbone, head)
    encoder = model.backbone
    inside: dict[str, Tensor] = {}
    for name, layer in (("first", encoder.layers[0]), ("last", encoder.layers[-1])):
        layer.register_forward_pre_hook(partial(_look_inside, inside, name))
    encoder.layers[-1].register_forward_hook(
        lambda _m, _i, tokens: inside.update(
            hidden_last=(encoder.ln2 if pooled else encoder.ln1)(tokens)
        )
    )
    features = model.extract_feat(case.inputs["images"])
    return {
        "pooled": features[-1],
        **classified(case, model, features),
        **inside,
        **gradients(model, official),
    }


def _look_inside(
    found: dict[str, Tensor], name: str, layer: Any, inputs: tuple
) -> None:
    tokens, shared = inputs
    normed = layer.ln1(tokens)
    found[f"attn_{name}"] = layer.attn.logits(normed, shared)
    if name == "first":
        found["hidden_first"] = normed


def classified(case: GoldenCase, model: Any, features: tuple) -> Produced:
    """Logits and loss of a head, and its gradients."""
    loss = model.head.loss(features, samples(case))["loss"]
    loss.backward()
    return {"logits": model.head(features), "loss": loss}


def token_distillation(case: GoldenCase, model: Any, features: tuple) -> Produced:
    """Both tokens' logits, and every loss a teacher's logits make."""
    head, teacher = model.head, case.inputs["teacher_logits"]
    losses = head.loss(features, samples(case), teacher)
    total = sum(losses.values())
    total.backward()
    pooled, pooled_dist = head.pre_logits(features)
    logits, logits_dist = head.both_logits(features)
    arrays: Produced = {
        "pooled": pooled,
        "pooled_dist": pooled_dist,
        "logits": logits,
        "logits_dist": logits_dist,
        "eval_logits": head(features),
        "loss_ce": head._get_loss(logits, samples(case))["loss"],
        "loss_kd_hard": head.teacher_loss(logits_dist, teacher),
        "loss": total,
    }
    head.kind = "soft"
    for name in case.outputs:
        if match := re.fullmatch(r"loss_kd_soft_tau([\d.]+)", name):
            head.tau = float(match[1])
            arrays[name] = head.teacher_loss(logits_dist, teacher)
    return arrays


def samples(case: GoldenCase) -> list[DataSample]:
    """The labels of a case as mmpretrain takes them."""
    return [DataSample().set_gt_label(x) for x in case.inputs["labels"].tolist()]


def build(case: GoldenCase, backbone: dict, head: dict) -> tuple[Any, dict[str, str]]:
    """A classifier with the case's weights, and official key -> our key.

    Raises:
        KeyError: If a key has no counterpart, or a buffer is not what we compute.
    """
    model = MODELS.build(dict(type="ImageClassifier", backbone=backbone, head=head))
    official = load_official(model, case.weights)
    return model, official


def load_official(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, str]:
    """Loads official weights, every key; returns official key -> our key.

    Raises:
        KeyError: If a key has no counterpart, or a buffer is not what we compute.
    """
    state = convert_official(weights)
    missing = model.state_dict().keys() ^ state.keys()
    other = [
        name
        for name, buffer in model.named_buffers()
        if name in state and not torch.equal(buffer, state[name])
    ]
    if missing or other:
        raise KeyError(
            f"keys without a counterpart: {sorted(missing)}; other buffers: {other}"
        )
    model.load_state_dict(state)
    model.eval()
    names = convert_official({key: key for key in weights})
    return {official: ours for ours, official in names.items()}
