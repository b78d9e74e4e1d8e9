"""Tracking, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .centre_head import Maps, hann_window
from .crops import Region, clip_box
from .one_stream import OneStreamTracker


class Network(Protocol):
    """What a :class:`Tracker` needs of a network.

    Attributes:
        template_size: Side of the template in pixels.
        search_size: Side of the search region in pixels.
        template_factor: Side of the template, relative to the box.
        search_factor: Side of the search region, likewise.
    """

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float

    def template(self, crop: np.ndarray) -> Any:
        """What is kept of the template, (t, t, 3) uint8, BGR."""

    def maps(self, template: Any, crop: np.ndarray) -> Maps:
        """The maps of a search region, (s, s, 3) uint8, BGR."""


class TorchNetwork:
    """A :class:`OneStreamTracker` that tracks, without autograd.

    The template is embedded once.

    Args:
        model: The tracker; it is put into evaluation mode.
    """

    def __init__(self, model: OneStreamTracker) -> None:
        self.model = model.eval()
        self.template_size = model.backbone.template_size
        self.search_size = model.backbone.search_size
        self.template_factor = model.template_factor
        self.search_factor = model.search_factor

    @torch.inference_mode()
    def template(self, crop: np.ndarray) -> Tensor:
        """Tokens of the template."""
        return self.model.backbone.embed_template(self._normalised("template", crop))

    @torch.inference_mode()
    def maps(self, template: Tensor, crop: np.ndarray) -> Maps:
        """The maps of a search region."""
        backbone = self.model.backbone
        search = backbone.embed_search(self._normalised("search", crop))
        maps = self.model.maps_of(backbone.encode(template, search).search)
        return Maps(*(values.float() for values in maps))

    def _normalised(self, name: str, crop: np.ndarray) -> Tensor:
        image = torch.from_numpy(crop).permute(2, 0, 1)[None]
        return self.model.data_preprocessor({"inputs": {name: image}})["inputs"][name]


class Tracker:
    """Follows one object through a video.

    ``Tracker(model).init(frame, box)``, then ``.update(frame)`` for every further
    frame. The template is of the first frame and stays; each search region is around
    the last box. Scores are multiplied with a Hann window, since objects move little.

    Args:
        model: A :class:`OneStreamTracker`, or another :class:`Network`, such as
            :class:`.onnx.OnnxNetwork`.

    Attributes:
        box: The last box: x, y, width, height in pixels, the left upper corner of the
            image being 0, 0.
        score: The score of the last box, in (0, 1).
    """

    def __init__(self, model: OneStreamTracker | Network) -> None:
        if isinstance(model, OneStreamTracker):
            model = TorchNetwork(model)
        self.network: Network = model
        self.box: np.ndarray | None = None
        self.score = 1.0
        self._template: Any = None
        self._window: Tensor | None = None

    def init(self, frame: np.ndarray, box: Sequence[float] | np.ndarray) -> Tracker:
        """Takes the object to follow.

        Args:
            frame: (H, W, 3) uint8, BGR, as OpenCV reads it.
            box: x, y, width, height of the object in pixels.

        Raises:
            ValueError: If the frame is no such image, or the box has no area or is
                outside of it.
        """
        self._check(frame)
        if np.shape(box) != (4,):
            raise ValueError(f"a box is four numbers x,y,width,height, got {box!r}")
        region = Region.around(box, self.network.template_factor)
        x, y, w, h = (float(value) for value in box)
        height, width = frame.shape[:2]
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise ValueError(
                f"the box {x:g},{y:g},{w:g},{h:g} is outside of the frame, which is "
                f"{width} pixels wide and {height} high"
            )
        crop = region.crop(frame, self.network.template_size)
        self._template = self.network.template(crop)
        self.box, self.score = np.array([x, y, w, h]), 1.0
        return self

    def update(self, frame: np.ndarray) -> np.ndarray:
        """Finds the object in the next frame.

        Args:
            frame: As of :meth:`init`.

        Returns:
            Its box: x, y, width, height in pixels.

        Raises:
            RuntimeError: If there was no :meth:`init`.
            ValueError: If the frame is no such image.
        """
        if self.box is None:
            raise RuntimeError("call init(frame, box) before update(frame)")
        self._check(frame)
        region = Region.around(self.box, self.network.search_factor)
        crop = region.crop(frame, self.network.search_size)
        maps = self.network.maps(self._template, crop)
        if self._window is None:
            rows, cols = maps.score.shape[-2:]
            self._window = hann_window((rows, cols), device=maps.score.device)
        boxes, best = maps.boxes(self._window)
        x, y, w, h = boxes[0].tolist()
        found = region.absolute([x - w / 2, y - h / 2, w, h])
        self.box = clip_box(found, *frame.shape[:2])
        self.score = float(best)
        return self.box.copy()

    @staticmethod
    def _check(frame: Any) -> None:
        is_image = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        if not is_image or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            what = getattr(frame, "shape", type(frame).__name__)
            kind = getattr(frame, "dtype", "")
            raise ValueError(
                "a frame is a uint8 array (height, width, 3) in the order blue, green, "
                f"red, as OpenCV reads it; got {what} {kind}"
            )
