"""Labelled images in one folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.custom import find_folders

from .image_files import describe_skipped, printable, readable_endings, walk_files

# Of the 1,000 folders of ImageNet-1K.
_FIRST, _LAST = "n01440764", "n15075141"


@DATASETS.register_module()
class ClassFolders(ImageNet):
    """mmpretrain's ``ImageNet`` for any classes: those of the sub-folders.

    The images of a class are in ``data_root/split/CLASS``, at any depth; classes are
    numbered in sorted order of their folders, as ImageNet's. Hidden files and folders
    are left out, and what cannot be read is skipped and counted. ImageNet itself has
    the names that mmpretrain gives its classes, and its lists of images,
    ``data_root/meta/{split}.txt``, are read where they are.

    Args:
        data_root: The folder above ``train`` and ``val``.
        split: ``train``, ``val``, or ``test`` (without labels).
        extensions: File name endings of images, in lower case; by default those that
            the pipeline's loader can read.
        metainfo: As mmpretrain's, such as ``dict(classes=[...])``, other names for
            the classes, in the order of their folders.
        **kwargs: Further arguments of mmpretrain's ``ImageNet``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder does not exist, or has no class folders.
        ValueError: If ``metainfo`` has another number of classes than there are
            folders.
    """

    def __init__(
        self,
        data_root: str = "",
        split: str = "",
        extensions: Sequence[str] | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self._names = (metainfo or {}).get("classes")
        super().__init__(
            data_root=os.path.expanduser(data_root),
            split=split,
            extensions=extensions or readable_endings(kwargs.get("pipeline") or ()),
            metainfo=metainfo,
            **kwargs,
        )

    def class_folders(self) -> list[str] | None:
        """Names of the class folders in the order of their numbers.

        None if classes are not those of folders, but numbers in a list.

        Raises:
            FileNotFoundError: If the folder does not exist, or has no class folders.
        """
        if self.ann_file or not self.with_label:
            return None
        try:
            folders, _ = find_folders(self.img_prefix)
        except FileNotFoundError:
            folders = None
        where = printable(self.img_prefix)
        if not (shown := [name for name in folders or () if not _hidden(name)]):
            raise FileNotFoundError(
                f"the folder {where} "
                + ("does not exist" if folders is None else "has no class folders")
                + f" (data_root={printable(self.data_root)!r}): images of a class "
                f"belong into {where.rstrip('/')}/CLASS/"
            )
        return shown

    def _find_samples(self) -> list:
        """Finds the images, as (path, number of the class)."""
        folders = self.class_folders()
        if folders is None:
            return super()._find_samples()
        if self._names is not None and len(self._names) != len(folders):
            raise ValueError(
                f"metainfo names {len(self._names)} classes, but "
                f"{printable(self.img_prefix)} has {len(folders)} class folders"
            )
        self.folder_to_idx = {name: number for number, name in enumerate(folders)}
        if self._names is None and not _is_imagenet(folders):
            self._metainfo["classes"] = tuple(folders)
        skipped: list[str] = []
        samples, empty = [], []
        for name, number in self.folder_to_idx.items():
            files = walk_files(os.path.join(self.img_prefix, name), skipped)
            found = sorted(
                os.path.relpath(path, self.img_prefix)
                for path in files
                if self.is_valid_file(path)
            )
            samples += [(path, number) for path in found]
            empty += [] if found else [name]
        self._describe(len(samples), folders, empty)
        if skipped:
            MMLogger.get_current_instance().warning(describe_skipped(skipped))
        return samples

    def _describe(self, images: int, folders: list[str], empty: list[str]) -> None:
        """Says in the log what was found.

        Raises:
            FileNotFoundError: If no image was found.
        """
        where, logger = printable(self.img_prefix), MMLogger.get_current_instance()
        if not images:
            raise FileNotFoundError(
                f"the class folders in {where} ({_some(folders)}) hold no image; "
                f"accepted are {', '.join(sorted(self.extensions))}"
            )
        hidden = sorted(filter(_hidden, find_folders(self.img_prefix)[0]))
        logger.info(
            f"{images} images of {len(folders)} classes ({_some(folders)}) in {where}"
            + (f"; left out: hidden folders {_some(hidden)}" if hidden else "")
        )
        if empty:
            logger.warning(
                f"{len(empty)} class folders in {where} hold no image: {_some(empty)}"
            )


def _hidden(folder: str) -> bool:
    return folder.startswith(".")


def _is_imagenet(folders: list[str]) -> bool:
    return len(folders) == 1000 and (folders[0], folders[-1]) == (_FIRST, _LAST)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(printable, names[:3])) + more
