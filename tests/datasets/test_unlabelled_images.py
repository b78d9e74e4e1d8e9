import os
from io import BytesIO
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from mim_plugins.datasets import UnlabelledImages
from mim_plugins.datasets.image_files import EXTENSIONS, printable, readable_endings


def names(dataset, root):
    return [
        os.path.relpath(dataset.get_data_info(i)["img_path"], root)
        for i in range(len(dataset))
    ]


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_finds_images_at_any_depth_sorted_and_nothing_else(tmp_path):
    touch(
        tmp_path,
        "b/c/d/2.JPEG",
        "b/1.png",
        "a.webp",
        "z.TIF",
        "a/x.tiff",
        ".hidden.jpg",
        ".thumbnails/3.jpg",
        "notes.txt",
        "b/4.jpg.txt",
    )
    dataset = UnlabelledImages(str(tmp_path))
    found = names(dataset, tmp_path)
    assert found == ["a.webp", "a/x.tiff", "b/1.png", "b/c/d/2.JPEG", "z.TIF"]
    assert "gt_label" not in dataset.get_data_info(0)


def test_takes_imagenets_train_folder_unless_told_otherwise(tmp_path):
    touch(tmp_path, "train/a/1.png", "val/a/2.png", "3.png")
    root = str(tmp_path)
    assert names(UnlabelledImages(root), root) == ["train/a/1.png"]
    everything = ["3.png", "train/a/1.png", "val/a/2.png"]
    assert names(UnlabelledImages(root, data_prefix=""), root) == everything
    assert names(UnlabelledImages(root, data_prefix="val"), root) == ["val/a/2.png"]


def test_finds_what_imagenet_finds(photos):
    train = photos[0].parents[2]
    found = names(UnlabelledImages(str(train)), train)
    assert len(found) == len(list((train / "train").glob("*/*.JPEG"))) > 0


def test_follows_links_once_and_out_of_circles(tmp_path):
    touch(tmp_path / "elsewhere", "1.png")
    touch(tmp_path / "root", "a/2.png")
    root = tmp_path / "root"
    (root / "link1").symlink_to(tmp_path / "elsewhere")
    (root / "link2").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert names(UnlabelledImages(str(root)), root) == ["a/2.png", "link1/1.png"]


def test_takes_the_base_classes_arguments(tmp_path):
    touch(tmp_path, "1.png", "2.png", "3.gif")
    assert len(UnlabelledImages(str(tmp_path), indices=[0])) == 1
    assert len(UnlabelledImages(str(tmp_path), extensions=[".gif"])) == 1


def test_missing_folder_is_named(tmp_path):
    missing = tmp_path / "photos"
    with pytest.raises(FileNotFoundError, match="photos.*--cfg-options data_root="):
        UnlabelledImages(str(missing))


def test_folder_without_images_tells_what_is_accepted(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file.*\.jpeg, .*\.webp"):
        UnlabelledImages(str(tmp_path))
    touch(tmp_path, "a/film.mp4")
    with pytest.raises(FileNotFoundError, match=r"1 other files, such as .*film.mp4"):
        UnlabelledImages(str(tmp_path))


@pytest.fixture
def log(monkeypatch):
    """What is logged as information."""
    lines = []
    logger = SimpleNamespace(
        info=lines.append, warning=lines.append, log=lambda *_: None
    )
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda: logger)
    return lines


def test_what_is_left_out_is_counted_by_ending(tmp_path, log, monkeypatch):
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: False)
    touch(tmp_path, "1.jpg", "2.gif", "3.GIF", "4.heic", "notes.txt", "README")
    assert len(UnlabelledImages(str(tmp_path))) == 1
    for text in ("left out: 2 .gif, 1 ", "1 .heic", "1 .txt", "1 without an ending"):
        assert text in log[0]
    assert (
        "Pillow can read .gif: set LoadImageFromFile(imdecode_backend='pillow')"
        in (log[0])
    )
    assert "can read .heic here: convert" in log[0]
    loading = [dict(type="LoadImageFromFile", imdecode_backend="pillow")]
    found = names(UnlabelledImages(str(tmp_path), pipeline=loading), tmp_path)
    assert found == ["1.jpg", "2.gif", "3.GIF"]


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_files_of_every_accepted_ending_can_be_read(tmp_path, backend):
    loading = [dict(type="LoadImageFromFile", imdecode_backend=backend)]
    wanted, (height, width) = [], (16, 20)
    picture = Image.fromarray(np.full((height, width, 3), 200, np.uint8))
    for ending in readable_endings(loading):
        data = BytesIO()
        Image.init()
        picture.save(data, Image.registered_extensions()[ending])
        (tmp_path / f"image{ending}").write_bytes(data.getvalue())
        wanted.append(f"image{ending}")
    dataset = UnlabelledImages(str(tmp_path), pipeline=loading)
    assert names(dataset, tmp_path) == sorted(wanted)
    for index in range(len(dataset)):
        assert dataset[index]["img"].shape == (height, width, 3)
    assert {".jfif", ".jpe", ".webp"} < set(EXTENSIONS)


@pytest.fixture
def locked(monkeypatch):
    """Folders named so may not be read, even by root."""
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(os.path.normpath(folder)) == "locked":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)


def test_what_cannot_be_read_is_skipped_and_counted(tmp_path, log, locked):
    touch(tmp_path, "1.png", "locked/2.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "null.png").symlink_to(os.devnull)
    assert names(UnlabelledImages(str(tmp_path)), tmp_path) == ["1.png"]
    assert "5 entries cannot be read and are skipped" in log[-1]
    for said in (
        "locked (Permission denied)",
        "pipe.png (a named pipe)",
        "itself (Too many levels",
        "gone.png (No such file",
        "null.png (a device)",
    ):
        assert said in log[-1]


def test_folder_that_may_not_be_read_at_all_is_named(tmp_path, locked):
    touch(tmp_path, "locked/2.png")
    with pytest.raises(FileNotFoundError, match=r"locked/ \(Permission denied\)"):
        UnlabelledImages(str(tmp_path / "locked"))


def test_names_that_are_not_utf8_are_found_and_escaped_in_messages(tmp_path, log):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb"):
        pass
    (found,) = names(UnlabelledImages(str(tmp_path)), tmp_path)
    assert os.fsencode(found) == b"\xff.png"
    assert printable(found) == r"\udcff.png"
