"""Writes features of any number of images without keeping them in memory."""

from __future__ import annotations

import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..checkpoints.files.atomic import (
    readable,
    remove_leftovers,
    write_atomically,
)

# Bytes copied at a time.
_CHUNK = 1 << 26


class FeatureParts:
    """Memory-mapped arrays, of which each process writes the rows of its images.

    They are in a hidden folder next to the final file, so that processes need a shared
    disk, and none has to keep, or send, more than a batch.

    Args:
        path: The ``.npz`` file to be written at the end.
        shapes: Shape of one image's row in each array.
        rows: Number of images.
        dtype: Of the arrays.
        tag: Makes the folder's name unique to this run: :func:`.writer_tag` of the
            process that creates it.
    """

    def __init__(
        self,
        path: str | Path,
        shapes: Mapping[str, tuple[int, ...]],
        rows: int,
        dtype: str,
        tag: str,
    ) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(f".{self.path.name}.{tag}.parts")
        self.shapes = {name: (rows, *shape) for name, shape in shapes.items()}
        self.dtype = np.dtype(dtype)
        self.arrays: dict[str, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(map(math.prod, self.shapes.values())) * self.dtype.itemsize

    def describe(self) -> str:
        """The arrays and their size, for the log."""
        arrays = ", ".join(
            f"{name} {' x '.join(map(str, shape))}"
            for name, shape in self.shapes.items()
        )
        return f"{arrays} ({self.dtype}), {readable(self.nbytes)}"

    def check_space(self) -> None:
        """Checks that the disk has space for the arrays and their copy in the file.

        Raises:
            OSError: If it has not.
        """
        free = shutil.disk_usage(self.path.parent).free
        # Each array is removed as soon as it has been copied into the file.
        largest = max(map(math.prod, self.shapes.values())) * self.dtype.itemsize
        if self.nbytes + largest > free:
            raise OSError(
                f"{self.path} would hold {self.describe()}, and needs "
                f"{readable(self.nbytes + largest)} while it is written; "
                f"{readable(free)} are free there: write to another disk, without the "
                "feature 'patch', or as float16"
            )

    def create(self) -> None:
        """Creates the arrays, and removes those of killed runs; for one process.

        Raises:
            OSError: If the disk has no space for them.
        """
        remove_leftovers(self.path.parent, self.path.name, ".parts")
        self.folder.mkdir()
        for name, shape in self.shapes.items():
            path = self._file(name)
            npy.open_memmap(path, "w+", self.dtype, shape)
            with open(path, "r+b") as file:
                # Else a disk that fills up ends the process in a bus error.
                size = file.seek(0, 2)
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    raise OSError(
                        f"{path} cannot be written: {error.strerror}"
                    ) from error

    def open(self) -> None:
        """Opens the arrays for writing."""
        self.arrays = {
            name: npy.open_memmap(self._file(name), "r+") for name in self.shapes
        }

    def write(self, rows: list[int], values: Mapping[str, np.ndarray]) -> None:
        """Writes the features of some images."""
        for name, array in self.arrays.items():
            array[rows] = values[name]

    def close(self) -> None:
        """Flushes the arrays, so that other processes see them."""
        for array in self.arrays.values():
            array.flush()  # type: ignore[attr-defined]  # it is a memmap
        self.arrays = {}

    def stop(self) -> None:
        """Signals the other processes that this one has failed."""
        if self.folder.is_dir():
            (self.folder / "stop").touch()

    @property
    def stopped(self) -> bool:
        """Whether a process has failed."""
        return (self.folder / "stop").exists()

    def finish(self, keep: np.ndarray, others: Mapping[str, Any]) -> None:
        """Writes the final file; called by one process.

        Args:
            keep: Indices of the rows to write.
            others: Further arrays.
        """
        write_atomically(self.path, lambda file: self._pack(file, keep, others))

    def remove(self) -> None:
        """Removes the arrays; called by one process."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pack(self, path: Path, keep: np.ndarray, others: Mapping[str, Any]) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, value in others.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    npy.write_array(file, np.asarray(value), allow_pickle=False)
            for name in self.shapes:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    _copy(npy.open_memmap(self._file(name), "r"), keep, file)
                self._file(name).unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def _copy(array: np.ndarray, keep: np.ndarray, file: Any) -> None:
    """Writes some rows of an array in numpy's format, chunk by chunk."""
    npy.write_array_header_1_0(
        file,
        {
            "descr": npy.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": (len(keep), *array.shape[1:]),
        },
    )
    for rows in _chunks(keep, max(1, _CHUNK // max(1, array[:1].nbytes))):
        file.write(array[rows].tobytes())


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
