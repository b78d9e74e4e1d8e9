"""Runs the golden cases of segmentation backbones on our modules.

What the official backbones do after their blocks, the neck of a segmentor does here.
"""

from __future__ import annotations

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mim_plugins.checkpoints.layouts import beit
from mim_plugins.checkpoints.layouts.localmim import convert_official

from .case import GoldenCase
from .localmim_swin import encoder_args as swin_args
from .localmim_swin import gradients as swin_gradients
from .localmim_swin import load_all
from .vit import Produced, encoder_args, gradients, load_official, watch_blocks


def run_vit(case: GoldenCase, pool: str, maps: str) -> Produced:
    """A ViT with relative positions and its pyramid: maps, and what pins them.

    Args:
        case: The case.
        pool: What makes the coarsest map, see ``ViTPyramid``.
        maps: Name of a map, with ``{}`` for its number, which starts at 0 or 1.

    Raises:
        NotImplementedError: If the case has what our backbone has not.
    """
    args = case.config["model"]
    for name in ("qk_scale", "norm_layer", "hybrid_backbone"):
        if args.get(name) is not None:
            raise NotImplementedError(f"segmentation with {name}={args[name]}")
    backbone = MODELS.build(
        dict(
            type="RelPosVisionTransformer",
            bias=args["qkv_bias"],
            use_abs_pos_emb=args["use_abs_pos_emb"],
            use_rel_pos_bias=args["use_rel_pos_bias"],
            use_shared_rel_pos_bias=args["use_shared_rel_pos_bias"],
            layer_scale_init_value=args["init_values"] or 0.0,
            out_type="featmap",
            out_indices=args["out_indices"],
            final_norm=False,
            **encoder_args(args),
        )
    )
    neck = MODELS.build(
        dict(
            type="ViTPyramid",
            in_channels=args["embed_dim"],
            pool=pool,
            norm_cfg=dict(type=args["fpn1_norm"]),
        )
    )
    model = nn.ModuleDict(dict(backbone=backbone, neck=neck))
    ours = load_official(model, case, beit.RULES)
    residuals = watch_blocks(backbone.layers)
    levels = neck(backbone(case.inputs["images"]))
    return {
        **scored(levels, case, maps),
        **residuals,
        **gradients(model, ours),
    }


def run_swin(case: GoldenCase) -> Produced:
    """A Swin Transformer on maps that windows do not divide: its normed stages."""
    args = case.config["model"]
    if args["ape"]:
        raise NotImplementedError("Swin Transformers with absolute positions")
    encoder = MODELS.build(
        swin_args(args | {"img_size": args["pretrain_img_size"]})
        | dict(norm_eps=1e-5, pad_small_map=True, out_indices=args["out_indices"])
    )
    model = nn.ModuleDict(dict(backbone=encoder))
    load_all(model, convert_official(case.weights))
    maps = encoder(case.inputs["images"])
    return {**scored(maps, case, "feat_{}"), **swin_gradients(model)}


def scored(levels: tuple[Tensor, ...], case: GoldenCase, maps: str) -> Produced:
    """Maps by their names, and the loss, if a case has one, which gives gradients."""
    first = 0 if maps.format(0) in case.outputs else 1
    produced: Produced = {maps.format(k): x for k, x in enumerate(levels, first)}
    if "loss" in case.outputs:
        total = torch.zeros(())
        for level in levels:
            weights = torch.linspace(-1, 1, level.numel()).view_as(level)
            total = total + (level * weights).mean()
        total.backward()
        produced["loss"] = total
    return produced
