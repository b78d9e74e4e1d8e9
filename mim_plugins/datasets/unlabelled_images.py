"""A plain folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset

from .image_files import describe_others, printable, readable_endings


@DATASETS.register_module()
class UnlabelledImages(CustomDataset):
    """All images below a folder, at any depth, without labels.

    Samples are sorted by path, whatever order the file system lists them in. Hidden
    files and folders are left out; links to folders are followed, each folder once.

    Args:
        data_root: The folder.
        data_prefix: Folder below ``data_root`` to take images from; ``""`` takes all
            of ``data_root``. By default it is ``train`` where ``data_root`` has such
            a folder, as ImageNet does, and everything otherwise.
        extensions: File name endings of images, in lower case; by default those that
            the pipeline's loader can read. The log counts what is left out.
        **kwargs: Further arguments of mmpretrain's ``CustomDataset``, such as
            ``pipeline`` or ``indices``.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no image.
        PermissionError: If a folder below it may not be read.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: str | None = None,
        extensions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        data_root = os.path.expanduser(data_root)
        # Why this folder was chosen; said when it is read.
        self._choice = ""
        if data_prefix is None:
            if os.path.isdir(os.path.join(data_root, "train")):
                data_prefix = "train"
                self._choice = (
                    " (ImageNet layout: only its train folder is used; "
                    "data_prefix='' takes everything)"
                )
            else:
                data_prefix = ""
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            extensions=extensions or readable_endings(kwargs.get("pipeline") or ()),
            with_label=False,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Finds the images.

        Returns:
            One dict with ``img_path`` per image.
        """
        folder = self.img_prefix
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"the image folder {folder!r} does not exist "
                f"(data_root={self.data_root!r}). Set it with "
                "--cfg-options data_root=/path/to/images"
            )
        paths: list[str] = []
        others: list[str] = []
        for path in _files(folder):
            (paths if self.is_valid_file(path) else others).append(path)
        if not paths:
            found = "no file"
            if others:
                found = f"{len(others)} other files, such as {printable(others[0])}"
                found += f" ({describe_others(others, self.extensions)})"
            raise FileNotFoundError(
                f"the folder {folder!r} holds no image, but {found}. Accepted are "
                f"{', '.join(sorted(self.extensions))}, at any depth. Set another "
                "folder with --cfg-options data_root=/path/to/images"
            )
        paths.sort()
        left_out = describe_others(others, self.extensions)
        MMLogger.get_current_instance().info(
            f"{len(paths)} images below {printable(folder)}{self._choice}"
            + (f"; {left_out}" if left_out else "")
        )
        return [{"img_path": path} for path in paths]


def _files(root: str) -> Iterator[str]:
    """Walks a folder without hidden entries, each linked folder once.

    mmengine's listing computes a relative path per file and enters hidden folders;
    this one takes seconds for a million files.

    Raises:
        PermissionError: If a folder may not be read.
    """
    stack, linked = [root], {os.path.realpath(root)}
    while stack:
        with _listing(stack.pop()) as entries:
            # Sorted, so that which of two links to one folder counts does not depend
            # on the file system.
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if entry.is_symlink():
                        # A link may lead back up: without this, forever.
                        target = os.path.realpath(entry.path)
                        if target in linked:
                            continue
                        linked.add(target)
                    stack.append(entry.path)
                elif entry.is_file():
                    yield entry.path


def _listing(folder: str) -> Any:
    """The entries of a folder.

    Raises:
        PermissionError: If it may not be read.
    """
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise PermissionError(
            f"the image folder {printable(folder)} may not be read by this user, so "
            "its images are unknown: grant read permission (chmod u+rx), or move it "
            "out of the data folder"
        ) from error
