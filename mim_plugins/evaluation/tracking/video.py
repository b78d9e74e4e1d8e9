"""Tracking through videos, folders of frames and cameras: what tools/track.py does."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from ... import model_index
from ...checkpoints.files import read
from ...checkpoints.loading import Target, state_for
from ...datasets.tracking.box_files import write_boxes
from ...datasets.tracking.sequences import list_frames, read_frame
from ...engine.prepare import load_config
from ...engine.strict_loading import require_strict_loading
from ...models.trackers import OneStreamTracker, Tracker
from ...models.trackers.onnx import OnnxNetwork, export_onnx
from ...models.trackers.tracker import Network, TorchNetwork
from ..run_config import config_next_to

_COLOUR = (60, 220, 60)
_DEFAULT_FPS = 25.0


class Frames:
    """The frames of a video file, a folder, or a camera.

    Args:
        source: Path of a video, a folder of images, or the number of a camera.

    Attributes:
        fps: Frames per second of the source, as far as it says so.

    Raises:
        FileNotFoundError: If there is no such file, or no image in the folder.
        ValueError: If it cannot be decoded.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.fps = _DEFAULT_FPS
        self._files: list[str] = []
        self._announced = 0
        self.is_camera = self.source.isdigit() and not os.path.exists(self.source)
        if os.path.isdir(self.source):
            folder = Path(self.source)
            inside = folder / "img"  # of a sequence in LaSOT's layout
            self._files = list_frames(inside if inside.is_dir() else folder)
            return
        if not self.is_camera and not os.path.isfile(self.source):
            raise FileNotFoundError(
                f"there is no video or folder {self.source}, nor a camera of that "
                "number"
            )
        what: Any = int(self.source) if self.is_camera else self.source
        self._video = cv2.VideoCapture(what)
        if not self._video.isOpened():
            kind = "camera" if self.is_camera else "video"
            raise ValueError(
                f"the {kind} {self.source} cannot be opened: OpenCV has no decoder for "
                "it, or it is damaged"
            )
        self.fps = self._video.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        if not self.is_camera:
            self._announced = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames, (H, W, 3) uint8, BGR.

        Raises:
            ValueError: If not a single frame can be decoded, or an image of a folder
                cannot.
        """
        if self._files:
            yield from map(read_frame, self._files)
            return
        count = 0
        try:
            while True:
                found, frame = self._video.read()
                if not found:
                    break
                count += 1
                yield frame
        finally:
            self._video.release()
        if not count:
            raise ValueError(f"no frame of {self.source} can be decoded")
        if count < self._announced:
            print_log(
                f"{self.source} ends after {count} of {self._announced} frames: it was "
                "cut off, or the rest cannot be decoded",
                "current",
                logging.WARNING,
            )


class TimedNetwork:
    """A network, and the time it takes.

    Args:
        network: The network.
        clock: What tells the time in seconds.

    Attributes:
        seconds: Time spent in it.
    """

    def __init__(
        self, network: Network, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        self.network = network
        self.template_size = network.template_size
        self.search_size = network.search_size
        self.template_factor = network.template_factor
        self.search_factor = network.search_factor
        self.seconds = 0.0

    def template(self, crop: np.ndarray) -> Any:
        """What is kept of the template; not timed."""
        return self.network.template(crop)

    def maps(self, template: Any, crop: np.ndarray) -> Any:
        """The maps of a search region."""
        start = self.clock()
        maps = self.network.maps(template, crop)
        if maps.score.is_cuda:
            torch.cuda.synchronize()
        self.seconds += self.clock() - start
        return maps


@dataclass
class Tracked:
    """What tracking a video gave.

    Args:
        boxes: x, y, width, height of every frame.
        seconds: Time of all updates but the first, which warms up.
        network_seconds: Of it, time in the network.
    """

    boxes: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    network_seconds: float = 0.0

    @property
    def timed(self) -> int:
        """Number of timed updates."""
        return max(0, len(self.boxes) - 2)

    def summary(self) -> str:
        """Number of frames, and speed without decoding and drawing."""
        text = f"{len(self.boxes)} frames"
        if not self.timed or not self.seconds:
            return text
        each = 1000 * self.seconds / self.timed
        network = 1000 * self.network_seconds / self.timed
        return (
            f"{text}, {self.timed / self.seconds:.1f} frames/s ({each:.1f} ms each: "
            f"network {network:.1f}, crop, window and box {each - network:.1f}; "
            "decoding and drawing not counted)"
        )


def track_video(
    network: OneStreamTracker | Network,
    source: str | Path,
    box: Sequence[float] | None,
    out_dir: str | Path,
    *,
    write_video: bool = True,
    max_frames: int | None = None,
    show: bool = False,
) -> Tracked:
    """Tracks an object and writes ``boxes.txt`` and ``video.mp4``.

    What was tracked is written, too, when a frame cannot be decoded, or Ctrl-C ends a
    camera.

    Args:
        network: The tracker.
        source: See :class:`Frames`.
        box: x, y, width, height in the first frame; None asks for it in a window.
        out_dir: Where the files go.
        write_video: Whether to write the video.
        max_frames: Stop after as many frames.
        show: Whether to show the frames in a window; q ends it.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it cannot be decoded, or the box does not fit.
    """
    if isinstance(network, OneStreamTracker):
        network = TorchNetwork(network)
    frames, timed = Frames(source), TimedNetwork(network)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    tracker, result = Tracker(timed), Tracked()
    writer: Any = None
    try:
        for frame in frames:
            if not result.boxes:
                tracker.init(frame, select_box(frame) if box is None else box)
            else:
                start = time.perf_counter()
                tracker.update(frame)
                if len(result.boxes) > 1:
                    result.seconds += time.perf_counter() - start
                else:
                    timed.seconds = 0.0
            assert tracker.box is not None
            result.boxes.append(tracker.box)
            drawn = drawn_box(frame, tracker) if write_video or show else frame
            if write_video:
                writer = writer or _writer(folder / "video.mp4", frames.fps, frame)
                writer.write(drawn)
            if show and _shown(drawn):
                break
            if max_frames is not None and len(result.boxes) >= max_frames:
                break
    except KeyboardInterrupt:
        if not result.boxes:
            raise
    finally:
        result.network_seconds = timed.seconds
        if writer is not None:
            writer.release()
        if result.boxes:
            write_boxes(folder / "boxes.txt", np.stack(result.boxes))
    return result


def drawn_box(frame: np.ndarray, tracker: Tracker) -> np.ndarray:
    """A copy of a frame with the box and its score."""
    image = frame.copy()
    assert tracker.box is not None
    x, y, w, h = (round(float(value)) for value in tracker.box)
    cv2.rectangle(image, (x, y), (x + w, y + h), _COLOUR, 2)
    place, font = (x, max(12, y - 4)), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, f"{tracker.score:.2f}", place, font, 0.5, _COLOUR, 1)
    return image


def select_box(frame: np.ndarray) -> tuple[float, ...]:
    """The box that is drawn with the mouse in a window.

    Raises:
        ValueError: If none was drawn, or there are no windows.
    """
    try:
        box = cv2.selectROI("draw a box, then press Enter", frame, showCrosshair=False)
        cv2.destroyAllWindows()
    except cv2.error as error:
        raise ValueError(
            "no window can be opened: this OpenCV has none, or there is no display; "
            "give the box with --init x,y,w,h"
        ) from error
    if not (box[2] and box[3]):
        raise ValueError("no box was drawn")
    return tuple(float(value) for value in box)


def _shown(image: np.ndarray) -> bool:
    """Shows an image; whether q was pressed."""
    try:
        cv2.imshow("tracking (q ends)", image)
        return cv2.waitKey(1) & 0xFF == ord("q")
    except cv2.error as error:
        raise ValueError("no window can be opened: leave out --show") from error


def _writer(path: Path, fps: float, frame: np.ndarray) -> Any:
    height, width = frame.shape[:2]
    codec = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
    if not writer.isOpened():
        raise ValueError(
            f"{path} cannot be written: this OpenCV has no encoder for it; leave the "
            "video out (--no-video)"
        )
    return writer


def load_tracker(
    checkpoint: str | Path | None, model: str | None = None, device: str = "cpu"
) -> Network:
    """A tracker with its weights, to track with.

    Args:
        checkpoint: Its weights, ours or OSTrack's; or a ``.onnx`` file; None for
            random weights, which is warned about.
        model: Name or config file; by default the config next to the checkpoint.
        device: Where to compute.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If it is no tracker, or the checkpoint lacks some of it.
    """
    if checkpoint is not None and Path(checkpoint).suffix == ".onnx":
        return OnnxNetwork(checkpoint)
    if model is None:
        _, config = config_next_to(checkpoint)
    elif model.endswith(".py"):
        config = load_config(model)
    else:
        config, _ = model_index.find(model)
        if not isinstance(config, Config):
            raise ValueError(f"the model index has no config of {model}")
    if config.get("model", {}).get("type") != "OneStreamTracker":
        raise ValueError(
            f"the config's model is a {config.get('model', {}).get('type')}, not a "
            "OneStreamTracker"
        )
    config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        tracker: OneStreamTracker = MODELS.build(config.model)
    if checkpoint is None:
        print_log(
            "no checkpoint was given: the weights are random, and so are the boxes",
            "current",
            logging.WARNING,
        )
        tracker.init_weights()
    else:
        state = state_for(Target.of(tracker), read(checkpoint))
        require_strict_loading(tracker, str(checkpoint))
        tracker.load_state_dict(state, strict=False)
    return TorchNetwork(tracker.to(device))


def export(network: Network, path: str | Path) -> None:
    """Writes a tracker as an ONNX file, see :func:`.onnx.export_onnx`.

    Raises:
        ValueError: If it is one already.
    """
    if not isinstance(network, TorchNetwork):
        raise ValueError("the checkpoint is an ONNX file already: leave the export out")
    export_onnx(network.model, path)
