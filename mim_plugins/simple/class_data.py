"""Labelled images: a folder per class, split into train and val or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets.image_files import printable, readable_endings, walk_files

# Share of each class that is held out where there is no val folder.
_HELD_OUT = 0.2


class LabelledFiles(NamedTuple):
    """Images of one part, with their classes.

    Args:
        root: The folder that the paths are relative to.
        files: Paths.
        labels: The class of each.
    """

    root: str
    files: list[str]
    labels: np.ndarray

    def write(self, path: Path) -> None:
        """Writes lines ``path class``, as mmpretrain's ``CustomDataset`` reads them."""
        pairs = zip(self.files, self.labels, strict=True)
        text = "".join(f"{file} {label}\n" for file, label in pairs)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


class ClassData(NamedTuple):
    """Labelled images in two parts.

    Args:
        classes: Their names, in order.
        train: Images to learn from.
        val: Images to judge by.
        held_out: Whether ``val`` was split off, since there is no such folder.
    """

    classes: list[str]
    train: LabelledFiles
    val: LabelledFiles
    held_out: bool

    def __str__(self) -> str:
        """How many images of which classes there are."""
        names = ", ".join(map(printable, self.classes[:5]))
        names += ", ..." if len(self.classes) > 5 else ""
        how = " (a fifth of each class, held out)" if self.held_out else ""
        return (
            f"{len(self.classes)} classes ({names}): {len(self.train.files)} images to "
            f"learn from, {len(self.val.files)} to judge by{how}"
        )


def find_classes(data: str | os.PathLike, seed: int = 0) -> ClassData:
    """Finds the images of each class.

    Args:
        data: ``train/CLASS`` and ``val/CLASS`` below it, or ``CLASS`` alone: then a
            fifth of the images of each class is held out.
        seed: Of what is held out.

    Raises:
        FileNotFoundError: If the folder does not exist or has no class folders.
        ValueError: If a class has no image, or there are fewer than two classes.
    """
    root = Path(data).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"the folder data={str(data)!r} does not exist")
    if (root / "train").is_dir():
        part = next((x for x in ("val", "test") if (root / x).is_dir()), None)
        if part is None:
            raise FileNotFoundError(
                f"{root} has a train folder, but no val folder with the same classes"
            )
        classes, train = _files(root / "train")
        others, val = _files(root / part)
        if others != classes:
            different = sorted(set(classes) ^ set(others))
            raise ValueError(
                f"train and {part} below {root} have different classes: "
                f"{', '.join(map(printable, different[:5]))} in one of them only"
            )
        return ClassData(classes, train, val, held_out=False)
    classes, found = _files(root)
    draw = np.random.default_rng(seed)
    held: list[int] = []
    for number, name in enumerate(classes):
        indices = np.flatnonzero(found.labels == number)
        if len(indices) < 2:
            raise ValueError(
                f"the class {printable(name)} has one image only: two are needed, one "
                "to learn from and one to judge by"
            )
        count = max(1, round(_HELD_OUT * len(indices)))
        held.extend(draw.choice(indices, count, replace=False))
    is_val = np.zeros(len(found.files), bool)
    is_val[held] = True
    train, val = (
        LabelledFiles(
            found.root,
            [found.files[index] for index in np.flatnonzero(chosen)],
            found.labels[chosen],
        )
        for chosen in (~is_val, is_val)
    )
    return ClassData(classes, train, val, held_out=True)


def _files(root: Path) -> tuple[list[str], LabelledFiles]:
    """The classes of a folder, and their images.

    Raises:
        FileNotFoundError: If there are no class folders.
        ValueError: If a class has no image, or there are fewer than two classes.
    """
    classes = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not classes:
        raise FileNotFoundError(
            f"{root} has no class folders: images of a class belong into {root}/CLASS/"
        )
    if len(classes) < 2:
        raise ValueError(
            f"{root} has one class folder only, {printable(classes[0])}: at least two "
            "are needed"
        )
    endings = readable_endings([dict(type="LoadManyChannels")])
    files: list[str] = []
    labels: list[int] = []
    empty = []
    for number, name in enumerate(classes):
        found = sorted(
            os.path.relpath(path, root)
            for path in walk_files(str(root / name), [])
            if path.lower().endswith(endings)
        )
        files += found
        labels += [number] * len(found)
        empty += [] if found else [name]
    if empty:
        raise ValueError(
            f"no image in the class folder{'s' * (len(empty) > 1)} "
            f"{', '.join(map(printable, empty))} of {root}: add images, or remove the "
            "folder"
        )
    return classes, LabelledFiles(str(root), files, np.array(labels))
