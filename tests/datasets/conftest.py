"""Image folders: real photographs where they are, drawn ones everywhere."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def photos(request: pytest.FixtureRequest) -> list[Path]:
    """Photographs of the sample next to the repository."""
    default = request.config.rootpath.parent / "shared" / "data"
    folder = Path(os.environ.get("MIM_DATA", default)) / "imagenet_sample"
    if not folder.exists():
        pytest.skip("imagenet_sample is absent: set MIM_DATA to its parent folder")
    return sorted(folder.glob("val/*/*.JPEG"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve drawn images, in folders like ImageNet's."""
    rng = np.random.default_rng(0)
    for index in range(12):
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        path = tmp_path / "images" / "train" / f"class_{index % 3}" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(coarse, (56, 48)))
    return tmp_path / "images"
