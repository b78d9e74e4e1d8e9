"""Downloads checkpoints as mmengine does, and reads them without running code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner.checkpoint import CheckpointLoader

from .geometry import load_from_local
from .zoo import sha256_of


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"), force=True)
def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: str | Path | None = None,
    progress: bool = os.isatty(0),
) -> Any:
    """Loads what an address has, from torch's cache if it was downloaded before.

    It stands in for mmengine's loader, which runs what is in a downloaded file. The
    first rank downloads, and the others find the file where they share its disk.

    Args:
        filename: The address.
        map_location: As ``torch.load``'s.
        model_dir: Folder of the cache; torch's by default.
        progress: Whether a bar shows how far the download is.

    Raises:
        ValueError: If the file is no checkpoint, refers to code, or is another one than
            the model index says.
    """
    rank, world_size = get_dist_info()
    if world_size > 1 and rank > 0:
        barrier()
    path = fetch(filename, model_dir, progress)
    if world_size > 1 and rank == 0:
        barrier()
    return load_from_local(str(path), map_location)


def fetch(url: str, folder: str | Path | None = None, progress: bool = False) -> Path:
    """Downloads a file, unless it is there, and checks it if the index has its digest.

    Args:
        url: The address.
        folder: Where to; torch's folder of checkpoints by default.
        progress: As of :func:`load_from_http`.

    Returns:
        Its path.

    Raises:
        ValueError: If its SHA-256 is another one than the model index says.
    """
    target = Path(folder or Path(torch.hub.get_dir(), "checkpoints"))
    target.mkdir(parents=True, exist_ok=True)
    path = target / Path(urlparse(url).path).name
    if not path.exists():
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    wanted = sha256_of(url)
    if wanted is not None and (found := _digest(path)) != wanted.lower():
        raise ValueError(
            f"{path}, downloaded from {url}, is not the file that the model index "
            f"names: its SHA-256 is {found}, not {wanted}. Delete it and download it "
            "anew; if it stays so, the file was replaced: do not use it unchecked"
        )
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
