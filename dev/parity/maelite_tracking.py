"""Runs MAE-Lite's tracking cases on our tracker."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from mim_plugins.checkpoints.layouts.ostrack import convert_official
from mim_plugins.models.trackers.centre_head import hann_window
from mim_plugins.models.trackers.centre_target import centre_heatmap
from mim_plugins.models.trackers.elimination import central_token
from mim_plugins.models.trackers.losses import overlaps, to_corners

from .case import GoldenCase
from .vit import Produced, gradients


def run(case: GoldenCase) -> Produced:
    """All that a tracker computes on the way to its losses, and gradients.

    Raises:
        KeyError: If a key has no counterpart.
    """
    model = build(case.config["model"])
    official = load_official(model, case.weights)
    template, search = (case.inputs[name] for name in ("template", "search"))
    boxes = case.inputs["gt_boxes"]
    encoded = model.backbone(template, search, case.config.get("ce_keep_rate_call"))
    maps = model.maps_of(encoded.search)
    losses = model.loss_by_maps(maps, boxes)
    total = losses["loss_giou"] + losses["loss_l1"] + losses["loss_focal"]
    total.backward()
    grid = model.backbone.search_grid
    window = hann_window(grid)
    predicted, _ = maps.boxes()
    corners = to_corners(predicted, centred=True)
    of_template = torch.zeros(model.backbone.template_pos_embed.shape[1])
    of_template[central_token(model.backbone.template_grid)] = 1
    return {
        "loss": total,
        "loss_giou": losses["loss_giou"] / model.giou_weight,
        "loss_l1": losses["loss_l1"] / model.l1_weight,
        "loss_focal": losses["loss_focal"] / model.focal_weight,
        "iou": overlaps(corners, to_corners(boxes).clamp(0, 1))[0],
        "score_map": maps.score,
        "size_map": maps.size,
        "offset_map": maps.offset,
        "pred_boxes": predicted[:, None],
        "backbone_feat": torch.cat(encoded[:2], dim=1),
        "heatmap": centre_heatmap(boxes, grid),
        "ce_template_mask": of_template.expand(len(boxes), -1),
        **{f"removed_{i}": places for i, places in enumerate(encoded.removed)},
        "hann": window[None, None],
        "pred_boxes_hann": maps.boxes(window)[0],
        **gradients(model, official),
    }


def build(args: dict) -> Any:
    """A tracker from the official arguments."""
    return MODELS.build(
        dict(
            type="OneStreamTracker",
            backbone=dict(
                type="OneStreamVisionTransformer",
                arch=dict(
                    embed_dims=args["embed_dim"],
                    num_layers=args["depth"],
                    num_heads=args["num_heads"],
                    feedforward_channels=int(args["embed_dim"] * args["mlp_ratio"]),
                ),
                img_size=args["img_size"],
                patch_size=args["patch_size"],
                template_size=args["template_size"],
                search_size=args["search_size"],
                elimination_blocks=args["ce_loc"] or (),
                keep_ratios=args["ce_keep_ratio"] or (),
            ),
            head=dict(type="CentreHead", channels=args["head_channels"]),
        )
    )


def load_official(model: Any, weights: dict[str, Tensor]) -> dict[str, str]:
    """Loads official weights, every key; returns official key -> our key.

    Raises:
        KeyError: If a key has no counterpart.
    """
    state = convert_official(weights)
    if missing := model.state_dict().keys() ^ state.keys():
        raise KeyError(f"keys without a counterpart: {sorted(missing)}")
    model.load_state_dict(state)
    model.eval()
    names = convert_official({key: key for key in weights})
    return {official: ours for ours, official in names.items()}
