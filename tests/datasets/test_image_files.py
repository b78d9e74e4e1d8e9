"""Files that must not be opened, or would take gigabytes, are named instead."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from mim_plugins.datasets import SeededDataset
from mim_plugins.datasets.image_files import check_image_file


def png(path, width, height):
    """A PNG of some kilobytes that claims any size."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
    )
    return str(path)


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(2**30)
    return str(path)


def pipe(path):
    os.mkfifo(path)
    return str(path)


BAD = {
    "900000000 pixels.*max_pixels=178,956,970": lambda d: png(
        d / "a.png", 30000, 30000
    ),
    "1,073,741,824 bytes, more than max_bytes=268,435,456": lambda d: sparse(
        d / "a.jpg"
    ),
    "a named pipe": lambda d: pipe(d / "a.jpg"),
    "a folder": lambda d: str(d),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_described_before_they_are_opened(tmp_path, message):
    with pytest.raises(ValueError, match=message):
        check_image_file(BAD[message](tmp_path))


def test_limits_can_be_set(tmp_path):
    path = png(tmp_path / "a.png", 300, 200)
    check_image_file(path, max_pixels=60_000)
    with pytest.raises(ValueError, match="60,000 pixels, more than max_pixels=59,999"):
        check_image_file(path, max_pixels=59_999)
    with pytest.raises(ValueError, match="more than max_bytes=10"):
        check_image_file(path, max_bytes=10)
    large = png(tmp_path / "b.png", 30000, 30000)
    check_image_file(large, max_pixels=10**9)


def test_what_pillow_does_not_know_is_left_to_the_decoder(tmp_path):
    path = tmp_path / "depth.pfm"
    cv2.imwrite(str(path), np.ones((4, 4), np.float32))
    check_image_file(str(path))
    check_image_file("s3://bucket/image.png")


def test_data_set_replaces_and_names_them(tmp_path):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.ones((16, 16, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png\nb.png\nc.png\npipe.png\nlarge.png\n")
    pipe(tmp_path / "pipe.png")
    png(tmp_path / "large.png", 30000, 30000)
    dataset = SeededDataset(
        dict(
            type="CustomDataset",
            _scope_="mmpretrain",
            data_prefix=str(tmp_path),
            ann_file=str(tmp_path / "list.txt"),
            with_label=False,
            pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")],
        )
    )
    images = list(dataset)
    assert [x["data_samples"].get("replaced", 0) for x in images] == [0, 0, 0, 1, 1]
    unreadable = dataset.unreadable_paths()
    assert [os.path.basename(path) for path in unreadable] == ["pipe.png", "large.png"]
