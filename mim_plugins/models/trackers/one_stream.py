"""The one-stream tracker: one transformer for template and search region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from ...checkpoints.loading import convert_when_loaded
from .centre_head import CentreHead, Maps
from .centre_target import centre_heatmap
from .losses import focal_loss, overlaps, to_corners
from .one_stream_vit import OneStreamVisionTransformer


@MODELS.register_module()
class OneStreamTracker(BaseModel):
    """OSTrack: finds in a search region what is in the template.

    Both images pass through one Vision Transformer as one sequence; a head of
    convolutions reads the box from the search region's tokens. Any checkpoint of a
    Vision Transformer loads into it, and OSTrack's own files do.

    References:
        - Joint Feature Learning and Relation Modeling for Tracking: A One-Stream
          Framework (OSTrack), 2022, https://arxiv.org/abs/2203.11991
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        backbone: An :class:`OneStreamVisionTransformer`.
        head: A :class:`CentreHead`; its ``in_channels`` follows from the backbone.
        data_preprocessor: A :class:`TrackingDataPreprocessor`.
        template_factor: Side of the template, relative to the square root of the area
            of the box.
        search_factor: Side of the search region, likewise.
        giou_weight: Weight of the loss of generalised IoU.
        l1_weight: Weight of the L1 loss of the corners.
        focal_weight: Weight of the focal loss of the scores.
        init_cfg: As mmengine's ``BaseModel``.

    Attributes:
        keep_rate: Share of the search tokens that blocks with elimination keep in
            training, which ``KeepRateHook`` sets; None leaves each block its own.
    """

    backbone: OneStreamVisionTransformer
    head: CentreHead

    def __init__(
        self,
        backbone: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        template_factor: float = 2.0,
        search_factor: float = 4.0,
        giou_weight: float = 2.0,
        l1_weight: float = 5.0,
        focal_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is not None:
            data_preprocessor = {"type": "TrackingDataPreprocessor"} | dict(
                data_preprocessor
            )
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build({"in_channels": self.backbone.embed_dims} | dict(head))
        self.template_factor = template_factor
        self.search_factor = search_factor
        self.giou_weight = giou_weight
        self.l1_weight = l1_weight
        self.focal_weight = focal_weight
        self.keep_rate: float | None = None
        convert_when_loaded(self)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: Mapping[str, Tensor] | None = None,
        mode: str = "tensor",
    ) -> Any:
        """Runs the tracker on pairs of images.

        Args:
            inputs: ``template`` (N, C, t, t) and ``search`` (N, C, s, s), normalised.
            data_samples: ``box`` (N, 4): x, y, width and height of the target in the
                search region, relative to its side.
            mode: ``'tensor'`` for the maps, ``'loss'`` for the losses, ``'predict'``
                for a list of dicts with ``pred_box`` and, if it is given, ``box``.

        Raises:
            ValueError: If the mode is another one, or boxes are missing.
        """
        maps = self.predict_maps(inputs["template"], inputs["search"])
        if mode == "tensor":
            return maps
        if mode == "predict":
            boxes, _ = maps.boxes()
            corner = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)
            targets: Any = {} if data_samples is None else data_samples
            rows = [dict(pred_box=box) for box in corner]
            if "box" in targets:
                for row, box in zip(rows, targets["box"], strict=True):
                    row["box"] = box
            return rows
        if mode != "loss":
            raise ValueError(f"mode is 'tensor', 'loss' or 'predict', got {mode!r}")
        if data_samples is None or "box" not in data_samples:
            raise ValueError(
                "the loss of a tracker needs data_samples with 'box', as TrackingPairs "
                "and PackPair make them"
            )
        return self.loss_by_maps(maps, data_samples["box"])

    def predict_maps(
        self, template: Tensor, search: Tensor, keep_rate: float | None = None
    ) -> Maps:
        """The maps of pairs of normalised images.

        Args:
            template: (N, C, t, t).
            search: (N, C, s, s).
            keep_rate: Replaces the ratio of every block that eliminates; by default
                :attr:`keep_rate` in training, and each block's own otherwise.
        """
        if keep_rate is None and self.training:
            keep_rate = self.keep_rate
        return self.maps_of(self.backbone(template, search, keep_rate).search)

    def maps_of(self, search: Tensor) -> Maps:
        """The maps, from encoded search tokens (N, L, C) in raster order."""
        features = search.transpose(1, 2).unflatten(2, self.backbone.search_grid)
        return self.head(features)

    def loss_by_maps(self, maps: Maps, boxes: Tensor) -> dict[str, Tensor]:
        """Losses and, for the log, the mean IoU.

        Args:
            maps: What was predicted.
            boxes: Targets, (N, 4), as of :meth:`forward`.
        """
        maps = Maps(*(x.float() for x in maps))
        boxes = boxes.float()
        heat = centre_heatmap(boxes, self.backbone.search_grid)
        # The corners are clamped, the heat map is of the box as it is.
        target = to_corners(boxes).clamp(0, 1)
        predicted = to_corners(maps.boxes()[0], centred=True)
        iou, giou = overlaps(predicted, target)
        return {
            "loss_giou": self.giou_weight * (1 - giou).mean(),
            "loss_l1": self.l1_weight * F.l1_loss(predicted, target),
            "loss_focal": self.focal_weight * focal_loss(maps.score, heat),
            "iou": iou.detach().mean(),
        }
