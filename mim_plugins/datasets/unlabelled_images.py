"""A plain folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset

from .image_files import (
    describe_others,
    describe_skipped,
    printable,
    readable_endings,
    walk_files,
)


@DATASETS.register_module()
class UnlabelledImages(CustomDataset):
    """All images below a folder, at any depth, without labels.

    Samples are sorted by path, whatever order the file system lists them in. Hidden
    files and folders are left out; links to folders are followed, each folder once.
    What cannot be read, such as a folder without permission, a broken link or a named
    pipe, is skipped, and counted in the log.

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
        skipped: list[str] = []
        for path in walk_files(folder, skipped):
            (paths if self.is_valid_file(path) else others).append(path)
        if not paths:
            found = ": there is no file in it"
            if others:
                found = (
                    f", but {len(others)} other files, such as {printable(others[0])}"
                )
                found += f" ({describe_others(others, self.extensions)})"
            if skipped:
                found += f"; {describe_skipped(skipped)}"
            raise FileNotFoundError(
                f"the folder {folder!r} holds no image{found}. Accepted are "
                f"{', '.join(sorted(self.extensions))}, at any depth. Set another "
                "folder with --cfg-options data_root=/path/to/images"
            )
        paths.sort()
        left_out = describe_others(others, self.extensions)
        MMLogger.get_current_instance().info(
            f"{len(paths)} images below {printable(folder)}{self._choice}"
            + (f"; {left_out}" if left_out else "")
        )
        if skipped:
            MMLogger.get_current_instance().warning(describe_skipped(skipped))
        return [{"img_path": path} for path in paths]
