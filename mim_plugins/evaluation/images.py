"""Image files on the way to an encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.fileio import list_from_file
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from ..datasets.image_files import check_image_file, readable_endings
from ..datasets.seeded_dataset import reason_of
from ..datasets.unlabelled_images import UnlabelledImages


class ImageList(NamedTuple):
    """Images of a folder.

    Args:
        root: The folder.
        files: Paths relative to it.
        labels: A class for each, or None.
        classes: Names of the classes, or None where only their numbers are known.
    """

    root: str
    files: list[str]
    labels: np.ndarray | None = None
    classes: list[str] | None = None

    def path(self, index: int) -> str:
        """Path of an image."""
        return os.path.join(self.root, self.files[index])


def list_images(
    folder: str, ann_file: str | None = None, pipeline: Sequence[dict] = ()
) -> ImageList:
    """Finds the images of a folder, and their classes if there are sub-folders.

    Args:
        folder: Searched recursively; images are sorted by path. If all of them are in
            sub-folders, those of the first level are the classes.
        ann_file: Lines ``path`` or ``path class``, as mmpretrain has them: only these
            images, in this order. The classes are numbers.
        pipeline: Configs of the transforms that will load the images.

    Raises:
        FileNotFoundError: If the folder or file does not exist, or has no images.
        ValueError: If some lines have a class and others have none.
    """
    root = os.path.expanduser(folder)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"there is no folder {folder} with images")
    if ann_file is not None:
        return _listed_images(root, ann_file)
    endings = readable_endings(pipeline)
    try:
        found = UnlabelledImages(root, data_prefix="", extensions=endings, pipeline=[])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there are no images below {folder}; their names end in "
            f"{', '.join(endings)}"
        ) from None
    paths = (found.get_data_info(index)["img_path"] for index in range(len(found)))
    files = [os.path.relpath(path, root) for path in paths]
    folders = [file.split(os.sep)[0] if os.sep in file else None for file in files]
    if None in folders:
        return ImageList(root, files)
    classes = sorted({name for name in folders if name is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for name in folders if name is not None])
    return ImageList(root, files, labels, classes)


def _listed_images(root: str, ann_file: str) -> ImageList:
    """The images listed in an annotation file.

    Raises:
        FileNotFoundError: If the file does not exist or is empty.
        ValueError: If some lines have a class and others have none.
    """
    if not os.path.isfile(ann_file):
        raise FileNotFoundError(f"there is no annotation file {ann_file}")
    lines = [line.strip() for line in list_from_file(ann_file) if line.strip()]
    if not lines:
        raise FileNotFoundError(f"{ann_file} names no images")
    parts = [line.rsplit(maxsplit=1) for line in lines]
    labelled = [len(part) == 2 and part[1].isdecimal() for part in parts]
    if not any(labelled):
        return ImageList(root, lines)
    if not all(labelled):
        raise ValueError(
            f"{ann_file}: lines are 'path class', the class a number, or all of them "
            f"only a path; line {labelled.index(False) + 1} of those that are not "
            f"empty has no class: {lines[labelled.index(False)]!r}"
        )
    labels = np.array([int(part[1]) for part in parts])
    return ImageList(root, [part[0] for part in parts], labels)


class Batch(NamedTuple):
    """A batch of readable images, and the unreadable ones among them.

    Args:
        rows: Indices of the readable images in the list.
        inputs: Images, (N, C, H, W), or a list if their sizes differ.
        unreadable: Index and reason for each unreadable image.
    """

    rows: list[int]
    inputs: torch.Tensor | list[torch.Tensor]
    unreadable: list[tuple[int, str]]


class ImageFiles(Dataset):
    """Loads images; an unreadable one is returned with the reason, not raised.

    Args:
        images: The images.
        pipeline: Configs of the transforms, including the one that loads the file.
    """

    def __init__(self, images: ImageList, pipeline: Sequence[dict]) -> None:
        self.images = images
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            self.pipeline = Compose([TRANSFORMS.build(step) for step in pipeline])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images.files)

    def __getitem__(self, index: int) -> tuple[int, Any, str]:
        """Loads an image: its index, (C, H, W) or None, and the reason for None."""
        path = self.images.path(index)
        results: dict[str, Any] = {"img_path": path, "sample_idx": index}
        try:
            check_image_file(path)
            return index, self.pipeline(results)["inputs"], ""
        except FileNotFoundError:
            return index, None, "there is no such file"
        except Exception as error:
            if "img" in results:
                raise  # an error of the pipeline
            return index, None, reason_of(error, path)


def collate(items: Sequence[tuple[int, Any, str]]) -> Batch:
    """Collates samples of :class:`ImageFiles`."""
    unreadable = [(index, why) for index, image, why in items if image is None]
    read = [(index, image) for index, image, _ in items if image is not None]
    inputs: Any = [image for _, image in read]
    if len({image.shape for image in inputs}) == 1:
        inputs = torch.stack(inputs)
    return Batch([index for index, _ in read], inputs, unreadable)


def image_loader(
    images: ImageFiles,
    batch_size: int,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> DataLoader:
    """Loads images in order; batches do not depend on the number of processes.

    Args:
        images: The images.
        batch_size: Images per batch.
        workers: Data loading workers.
        part: Rank and number of processes, which take turns: batch i belongs to
            process i modulo their number.
    """
    starts = range(0, len(images), batch_size)
    batches = [
        list(range(start, min(start + batch_size, len(images)))) for start in starts
    ]
    return DataLoader(
        images,
        batch_sampler=batches[part[0] :: part[1]],
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_single_thread,
    )


def _single_thread(_: int) -> None:
    """Disables OpenCV's threads: workers are parallel already."""
    cv2.setNumThreads(0)
