"""What a folder of images has: channels, bits, mean and deviation."""

import sys

import cv2
import numpy as np
import pytest
from own_images import write_images

from mim_plugins.datasets.transforms.many_channels import read_channels
from mim_plugins.simple.pretraining import find_images
from mim_plugins.simple.survey import survey


def look(folder, channels=None):
    return survey(find_images(str(folder)), channels)


@pytest.mark.parametrize(
    ("how", "kind", "loads"),
    [
        (dict(shape=(28, 28)), "grey, 8 bits", "LoadImageFromFile"),
        (dict(shape=(40, 50, 3)), "colour, 8 bits", "LoadImageFromFile"),
        (dict(shape=(20, 20, 4)), "4 channels, 8 bits", "LoadManyChannels"),
        (
            dict(shape=(20, 20, 4), dtype=np.uint16, ending=".tif"),
            "4 channels, more than 8 bits",
            "LoadManyChannels",
        ),
        (
            dict(shape=(20, 20, 32), dtype=np.uint16, ending=".npy"),
            "32 channels, more than 8 bits",
            "LoadManyChannels",
        ),
    ],
)
def test_images__are_known_by_channels_and_bits(tmp_path, how, kind, loads):
    found = look(write_images(tmp_path, 3, **how))
    assert found.kind == kind and found.loading["type"] == loads
    assert found.size == how["shape"][:2] and found.one_size
    assert len(found.mean) == len(found.std) == found.channels


def test_mean_and_deviation__are_of_rgb(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = (10, 20, 30)  # BGR
    cv2.imwrite(str(tmp_path / "a.png"), image)
    found = look(tmp_path)
    assert found.mean == [15, 10, 5] and found.std == [15, 10, 5] and found.bgr


def test_mixed_channels__are_refused_unless_converted(tmp_path):
    write_images(tmp_path / "colour", 2)
    write_images(tmp_path / "grey", 1, shape=(40, 50))
    with pytest.raises(ValueError, match=r"2 with 3 .* 1 with 1 .*channels=3"):
        look(tmp_path)
    assert look(tmp_path, channels=3).channels == 3
    assert look(tmp_path, channels=1).loading["color_type"] == "grayscale"


def test_folder_without_readable_images__is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no image: there is no file"):
        look(tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="none of 1 images can be read.*a.png"):
        look(tmp_path)


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 12), (12, 20, 24)])
def test_array__has_its_channels_last(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    image = read_channels(str(tmp_path / "a.npy"))
    expected = array[:, :, None] if array.ndim == 2 else array
    if shape[0] == 12:
        expected = array.transpose(1, 2, 0)
    assert np.array_equal(image, expected)


def test_pages_of_a_tiff__are_channels(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    pages = list(np.random.default_rng(0).integers(0, 9999, (6, 9, 8), dtype=np.uint16))
    path = str(tmp_path / "a.tif")
    cv2.imwritemulti(path, pages)
    assert np.array_equal(read_channels(path), np.dstack(pages))


def test_bands_of_a_tiff__are_channels(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    bands = np.random.default_rng(0).integers(0, 9999, (9, 8, 6), dtype=np.uint16)
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_channels(path), bands)


def test_tiff_that_opencv_cannot_read__says_what_to_install(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, np.zeros((9, 8, 6), np.uint8), photometric="minisblack")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setattr(cv2, "imcount", lambda *args: 0)
    monkeypatch.setattr(cv2, "imdecode", lambda *args: None)
    with pytest.raises(ValueError, match="pip install tifffile, or save .* .npy"):
        read_channels(path)


def test_colour_of_a_tiff__is_rgb(tmp_path):
    image = np.random.default_rng(0).integers(0, 9999, (9, 8, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), image)
    found = read_channels(str(tmp_path / "a.tif"))
    assert np.array_equal(found, image[:, :, [2, 1, 0, 3]])
