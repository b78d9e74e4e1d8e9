"""The tracker as an ONNX file, and tracking with one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..onnx import graph_of, needed, save_graph
from .centre_head import Maps
from .one_stream import OneStreamTracker

# Of the file, what must be known to track with it.
_SETTINGS = ("template_factor", "search_factor", "mean", "std", "bgr_to_rgb")
_METADATA = "mim_plugins_tracker"


class _Pair(nn.Module):
    """A tracker with two inputs and three outputs."""

    def __init__(self, model: OneStreamTracker) -> None:
        super().__init__()
        self.model = model

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.predict_maps(template, search))


def export_onnx(model: OneStreamTracker, path: str | Path) -> None:
    """Writes a tracker as an ONNX file.

    Inputs are ``template`` (1, C, t, t) and ``search`` (1, C, s, s), normalised;
    outputs ``score``, ``size`` and ``offset``, see :class:`.centre_head.Maps`. The
    normalisation and the sizes of the crops are in the file's metadata.

    Args:
        model: The tracker; it is put into evaluation mode.
        path: The file; one that is there is replaced.

    Raises:
        ImportError: If onnx is not installed.
        FileNotFoundError: If there is no folder to write to.
    """
    model = model.eval()
    backbone = model.backbone
    channels = backbone.patch_embed.projection.in_channels
    device = backbone.search_pos_embed.device
    template, search = (
        torch.zeros(1, channels, size, size, device=device)
        for size in (backbone.template_size, backbone.search_size)
    )
    content = graph_of(
        _Pair(model).eval(),
        (template, search),
        ["template", "search"],
        ["score", "size", "offset"],
    )
    preprocessor = model.data_preprocessor
    settings = {
        "template_factor": model.template_factor,
        "search_factor": model.search_factor,
        "mean": _values(preprocessor.mean),
        "std": _values(preprocessor.std),
        "bgr_to_rgb": preprocessor.bgr_to_rgb,
    }
    save_graph(content, path, _METADATA, settings)


class OnnxNetwork:
    """A tracker from an ONNX file, for :class:`.tracker.Tracker`.

    Args:
        path: A file of :func:`export_onnx`.
        threads: Of onnxruntime; by default those of torch.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of a tracker.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        runtime = needed("onnxruntime")
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        try:
            self.session = runtime.InferenceSession(
                str(path), options, providers=runtime.get_available_providers()
            )
        except Exception as error:  # onnxruntime has a class for each reason
            raise ValueError(f"{path} cannot be read as ONNX: {error}") from error
        noted = self.session.get_modelmeta().custom_metadata_map.get(_METADATA)
        settings = json.loads(noted or "{}")
        if set(settings) != set(_SETTINGS):
            raise ValueError(
                f"{path} is not a tracker that export_onnx has written: it lacks the "
                "sizes of the crops and the normalisation"
            )
        sizes = {x.name: x.shape[-1] for x in self.session.get_inputs()}
        self.template_size = int(sizes["template"])
        self.search_size = int(sizes["search"])
        self.template_factor = float(settings["template_factor"])
        self.search_factor = float(settings["search_factor"])
        self._mean, self._std = (
            np.array(settings[name], np.float32)[:, None, None]
            for name in ("mean", "std")
        )
        self._reverse = bool(settings["bgr_to_rgb"])

    def template(self, crop: np.ndarray) -> np.ndarray:
        """The template, normalised."""
        return self._normalised(crop)

    def maps(self, template: np.ndarray, crop: np.ndarray) -> Maps:
        """The maps of a search region."""
        inputs = {"template": template, "search": self._normalised(crop)}
        return Maps(*map(torch.from_numpy, self.session.run(None, inputs)))

    def _normalised(self, crop: np.ndarray) -> np.ndarray:
        image = crop[..., ::-1] if self._reverse else crop
        return ((image.transpose(2, 0, 1) - self._mean) / self._std)[None]


def _values(values: Tensor | None) -> list[float]:
    if values is None:
        raise ValueError("a tracker for ONNX needs a mean and std in data_preprocessor")
    return values.flatten().tolist()
