"""Fixtures that tests of encoders share."""

import cv2
import numpy as np
import pytest
from samples import tiny_model
from small_run import COUNT, saved


@pytest.fixture
def photos(tmp_path):
    """Seven images in two sub-folders; the path that comes first is the last one's."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        folder = tmp_path / "photos" / ("cat" if index > 3 else "dog/puppies")
        folder.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{COUNT - index}.png"), picture)
    return tmp_path / "photos"


@pytest.fixture
def tiny(tmp_path):
    return saved(tiny_model(), tmp_path / "run")
