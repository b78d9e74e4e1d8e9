"""The layouts of tracking data: LaSOT, GOT-10k, TrackingNet, and COCO as stills."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.fileio import load
from mmengine.registry import DATASETS

from .box_files import read_boxes, read_flags, read_names

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")

# The 280 sequences of LaSOT's protocol II, from its evaluation toolkit (Apache-2.0).
LASOT_TESTING_SET = Path(__file__).with_name("lasot_testing_set.txt")


class Annotation(NamedTuple):
    """What is known of the frames of a sequence.

    Args:
        boxes: x, y, width, height in pixels, (n, 4).
        visible: Where the object can be seen, (n,).
    """

    boxes: np.ndarray
    visible: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Indices of the frames in which there is a visible box with an area."""
        return np.flatnonzero(self.visible & (self.boxes[:, 2:] > 0).all(axis=1))


class SequenceSource(ABC):
    """Sequences of frames of one data set, read when they are needed.

    Args:
        data_root: Folder of the data set,
        data_prefix: or where the data set is below it.
        ann_file: List of names, below that folder; by default all that is there.

    Attributes:
        is_video: False for stills, of which template and search region are one image.
    """

    is_video = True

    def __init__(
        self, data_root: str, data_prefix: str = "", ann_file: str = ""
    ) -> None:
        self.data_root = Path(data_root, data_prefix).expanduser()
        self.ann_file = ann_file

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.names)

    @cached_property
    def names(self) -> list[str]:
        """Names of the sequences.

        Raises:
            FileNotFoundError: If there is no such folder or list, or no sequence.
        """
        if not self.data_root.is_dir():
            raise FileNotFoundError(
                f"the folder {self.data_root} of {type(self).__name__} does not exist: "
                "set its data_root"
            )
        if self.ann_file:
            names = self._listed(read_names(self.data_root / self.ann_file))
        else:
            names = self._found()
        if not names:
            raise FileNotFoundError(
                f"{type(self).__name__} finds no sequence in {self.data_root}: set its "
                f"data_root to the folder that has {self._expected}"
            )
        return names

    _expected = "the sequences"

    def _listed(self, names: list[str]) -> list[str]:
        """Names from the lines of a list."""
        return names

    @abstractmethod
    def _found(self) -> list[str]:
        """Names of all sequences below the folder."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Boxes of a sequence.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If a file cannot be read, or numbers of lines differ.
        """

    @abstractmethod
    def frames(self, index: int) -> list[str]:
        """Paths of the frames of a sequence, in order.

        Raises:
            FileNotFoundError: If there are none.
        """

    def frame_path(self, index: int, frame: int) -> str:
        """Path of a frame; frames in archives have it after that of the archive."""
        return self.frames(index)[frame]

    def image(self, path: str) -> np.ndarray:
        """Reads a frame, (H, W, 3) uint8, BGR.

        Args:
            path: As of :meth:`frame_path`.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If it cannot be decoded.
        """
        return read_frame(path)


def read_frame(path: str) -> np.ndarray:
    """Reads an image file, (H, W, 3) uint8, BGR.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it cannot be decoded.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"the frame {path} does not exist")
    return _decoded(np.fromfile(path, np.uint8), path)


def _decoded(data: np.ndarray, path: str) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise ValueError(f"the frame {path} cannot be decoded")
    return image


def list_frames(folder: Path) -> list[str]:
    """Paths of the images of a folder, in the order of their numbers.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
    """
    found = []
    if folder.is_dir():
        found = [x.name for x in os.scandir(folder) if x.name.endswith(_ENDINGS)]
    if not found:
        raise FileNotFoundError(f"there are no frames in {folder}")
    found.sort(key=lambda name: (len(Path(name).stem), name))
    return [str(folder / name) for name in found]


def _checked(folder: Path, boxes: np.ndarray, visible: np.ndarray) -> Annotation:
    if len(boxes) != len(visible):
        raise ValueError(
            f"{folder} has {len(boxes)} boxes, but flags for {len(visible)} frames: "
            "its annotations are incomplete"
        )
    return Annotation(boxes, visible)


@DATASETS.register_module()
class LaSOTSequences(SequenceSource):
    """Sequences in LaSOT's layout.

    ``<class>/<class>-<n>/`` (or ``<class>-<n>/``) with ``img/00000001.jpg`` and on,
    ``groundtruth.txt``, and, where there are frames without object,
    ``full_occlusion.txt`` and ``out_of_view.txt``.

    References:
        - LaSOT: A High-quality Benchmark for Large-scale Single Object Tracking, 2019,
          https://arxiv.org/abs/1809.07845

    Args:
        data_root: Folder of the data set,
        data_prefix: or where the data set is below it.
        split: ``'test'``: the 280 sequences of protocol II, in their order;
            ``'train'``: all others; ``'all'``.
        ann_file: List of names instead, below that folder.

    Raises:
        ValueError: If there is no such split.
    """

    _expected = "<class>/<class>-<n>/groundtruth.txt (LaSOT's layout)"

    def __init__(
        self,
        data_root: str,
        data_prefix: str = "",
        split: str = "all",
        ann_file: str = "",
    ) -> None:
        super().__init__(data_root, data_prefix, ann_file)
        if split not in ("train", "test", "all"):
            raise ValueError(f"split of LaSOT is train, test or all, got {split!r}")
        self.split = split

    def _found(self) -> list[str]:
        testing = read_names(LASOT_TESTING_SET)
        if self.split == "test":
            # A sequence that is missing shows in the evaluation.
            return testing if any(self._folder(x).is_dir() for x in testing) else []
        files = [
            *self.data_root.glob("*/groundtruth.txt"),
            *self.data_root.glob("*/*/groundtruth.txt"),
        ]
        names = {path.parent.name for path in files}
        return sorted(names - set(testing) if self.split == "train" else names)

    def _folder(self, name: str) -> Path:
        nested = self.data_root / name.rpartition("-")[0] / name
        return nested if nested.is_dir() else self.data_root / name

    def annotation(self, index: int) -> Annotation:
        """Boxes of a sequence; occluded and out of view is not visible."""
        folder = self._folder(self.names[index])
        boxes = read_boxes(folder / "groundtruth.txt")
        visible = np.ones(len(boxes), dtype=bool)
        for name in ("full_occlusion.txt", "out_of_view.txt"):
            if (folder / name).is_file():
                flags = _checked(folder, boxes, read_flags(folder / name))
                visible &= ~flags.visible
        return Annotation(boxes, visible)

    def frames(self, index: int) -> list[str]:
        """Paths of the frames."""
        return list_frames(self._folder(self.names[index]) / "img")

    def frame_path(self, index: int, frame: int) -> str:
        """Path of a frame, which is not looked for."""
        folder = self._folder(self.names[index])
        return str(folder / "img" / f"{frame + 1:08}.jpg")


@DATASETS.register_module()
class GOT10kSequences(SequenceSource):
    """Sequences in GOT-10k's layout.

    ``<name>/`` with ``00000001.jpg`` and on, ``groundtruth.txt``, ``absence.label`` and
    ``cover.label``; what is absent or covered completely is not visible.

    References:
        - GOT-10k: A Large High-Diversity Benchmark for Generic Object Tracking in the
          Wild, 2018, https://arxiv.org/abs/1810.11981

    Args:
        data_root: Folder of a split, such as ``GOT-10k/train``,
        data_prefix: or where that is below it.
        ann_file: List of the sequences to take, below that folder: names, or their
            numbers in ``list.txt``, counted from 0, as in the lists of pytracking and
            OSTrack (``got10k_vot_train_split.txt``).
    """

    _expected = "<name>/groundtruth.txt, such as GOT-10k/train"

    def _found(self) -> list[str]:
        if (self.data_root / "list.txt").is_file():
            return read_names(self.data_root / "list.txt")
        return sorted(x.parent.name for x in self.data_root.glob("*/groundtruth.txt"))

    def _listed(self, names: list[str]) -> list[str]:
        if not all(name.isdigit() for name in names):
            return names
        everything = self._found()
        if (last := max(map(int, names))) >= len(everything):
            raise ValueError(
                f"{self.data_root / self.ann_file} names sequence {last} of "
                f"{len(everything)}: it is a list for another folder"
            )
        return [everything[int(name)] for name in names]

    def annotation(self, index: int) -> Annotation:
        """Boxes of a sequence."""
        folder = self.data_root / self.names[index]
        boxes = read_boxes(folder / "groundtruth.txt")
        visible = np.ones(len(boxes), dtype=bool)
        for name, hidden in (("absence.label", 1), ("cover.label", 0)):
            if (folder / name).is_file():
                labels = np.array(read_names(folder / name), dtype=int)
                visible &= _checked(folder, boxes, labels != hidden).visible
        return Annotation(boxes, visible)

    def frames(self, index: int) -> list[str]:
        """Paths of the frames."""
        return list_frames(self.data_root / self.names[index])

    def frame_path(self, index: int, frame: int) -> str:
        """Path of a frame, which is not looked for."""
        return str(self.data_root / self.names[index] / f"{frame + 1:08}.jpg")


@DATASETS.register_module()
class TrackingNetSequences(SequenceSource):
    """Sequences in TrackingNet's layout.

    ``TRAIN_0/anno/<video>.txt`` and, for the frames, ``TRAIN_0/frames/<video>/0.jpg``
    and on, or ``TRAIN_0/zips/<video>.zip`` as it is downloaded.

    References:
        - TrackingNet: A Large-Scale Dataset and Benchmark for Object Tracking in the
          Wild, 2018, https://arxiv.org/abs/1803.10794

    Args:
        data_root: Folder of the chunks,
        data_prefix: or where that is below it.
        ann_file: List of ``<chunk>/<video>``, below that folder.
    """

    _expected = "TRAIN_0/anno/<video>.txt"

    def _found(self) -> list[str]:
        files = self.data_root.glob("TRAIN_*/anno/*.txt")
        return sorted(f"{path.parent.parent.name}/{path.stem}" for path in files)

    def annotation(self, index: int) -> Annotation:
        """Boxes of a sequence, all of them visible."""
        chunk, _, video = self.names[index].partition("/")
        boxes = read_boxes(self.data_root / chunk / "anno" / f"{video}.txt")
        return Annotation(boxes, np.ones(len(boxes), dtype=bool))

    def frames(self, index: int) -> list[str]:
        """Paths of the frames."""
        chunk, _, video = self.names[index].partition("/")
        archive = self.data_root / chunk / "zips" / f"{video}.zip"
        if archive.is_file():
            with zipfile.ZipFile(archive) as file:
                names = [x for x in file.namelist() if x.endswith(_ENDINGS)]
            names.sort(key=lambda name: (len(Path(name).stem), name))
            return [f"{archive}/{name}" for name in names]
        return list_frames(self.data_root / chunk / "frames" / video)

    def frame_path(self, index: int, frame: int) -> str:
        """Path of a frame; one in a folder is not looked for."""
        chunk, _, video = self.names[index].partition("/")
        folder = self.data_root / chunk
        if (folder / "zips" / f"{video}.zip").is_file():
            return self.frames(index)[frame]
        return str(folder / "frames" / video / f"{frame}.jpg")

    def image(self, path: str) -> np.ndarray:
        """Reads a frame from its archive, or from a file."""
        archive, inside, name = path.partition(".zip/")
        if not inside:
            return read_frame(path)
        with zipfile.ZipFile(f"{archive}.zip") as file:
            return _decoded(np.frombuffer(file.read(name), np.uint8), path)


@DATASETS.register_module()
class COCOStills(SequenceSource):
    """COCO's objects as sequences of one frame.

    Crowds are left out, and boxes of which a side has 50 pixels or less.

    Args:
        data_root: Folder of the data set,
        data_prefix: or where the data set is below it.
        ann_file: Its annotations, below that folder.
        images: Folder of the images, likewise.
        min_side: Pixels that both sides of a box must exceed.
    """

    is_video = False

    def __init__(
        self,
        data_root: str,
        data_prefix: str = "",
        ann_file: str = "annotations/instances_train2017.json",
        images: str = "train2017",
        min_side: float = 50,
    ) -> None:
        super().__init__(data_root, data_prefix, ann_file)
        self.folder = self.data_root / images
        self.min_side = min_side

    @cached_property
    def _objects(self) -> tuple[list[str], np.ndarray]:
        """Files of the images, and the box of each object, (n, 4)."""
        path = self.data_root / self.ann_file
        if not path.is_file():
            raise FileNotFoundError(f"COCOStills: there are no annotations {path}")
        content = load(str(path))
        files = {image["id"]: image["file_name"] for image in content["images"]}
        kept = [
            x
            for x in content["annotations"]
            if not x.get("iscrowd") and min(x["bbox"][2:]) > self.min_side
        ]
        boxes = np.array([x["bbox"] for x in kept], dtype=float).reshape(-1, 4)
        return [files[x["image_id"]] for x in kept], boxes

    @cached_property
    def names(self) -> list[str]:
        """The image of each object."""
        if not self._objects[0]:
            raise FileNotFoundError(
                f"COCOStills: no object of {self.ann_file} is larger than "
                f"{self.min_side} pixels"
            )
        return self._objects[0]

    def _found(self) -> list[str]:
        return self._objects[0]

    def annotation(self, index: int) -> Annotation:
        """The box of an object."""
        return Annotation(self._objects[1][index : index + 1], np.ones(1, dtype=bool))

    def frames(self, index: int) -> list[str]:
        """Path of the image."""
        return [str(self.folder / self.names[index])]
