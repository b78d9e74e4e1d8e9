"""Labelled images in one folder per class."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmpretrain.datasets import ImageNet

from mim_plugins.datasets import ClassFolders
from mim_plugins.datasets import class_folders as module


def images(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), np.zeros((4, 4, 3), np.uint8))
    return root


@pytest.fixture
def said(monkeypatch) -> list[str]:
    found: list[str] = []
    logger = MMLogger.get_current_instance()
    for level in ("info", "warning"):
        monkeypatch.setattr(logger, level, found.append)
    return found


def dataset(root: Path, **kwargs) -> ClassFolders:
    return ClassFolders(**{"data_root": str(root), "split": "train", **kwargs})


def samples(data) -> list[tuple[str, int]]:
    rows = [data.get_data_info(index) for index in range(len(data))]
    return [(row["img_path"], row["gt_label"]) for row in rows]


def test_classes__are_the_folders_in_sorted_order(tmp_path, said):
    images(tmp_path / "train", "cat/1.png", "ant/b/2.png", "ant/1.webp", "Bee/1.JPG")
    data = dataset(tmp_path)
    assert data.metainfo["classes"] == ("Bee", "ant", "cat")
    found = [(Path(path).name, label) for path, label in samples(data)]
    assert found == [("1.JPG", 0), ("1.webp", 1), ("2.png", 1), ("1.png", 2)]
    where = tmp_path / "train"
    assert said == [f"4 images of 3 classes (Bee, ant, cat) in {where}"]


def test_hidden_folders__are_left_out_with_a_note(tmp_path, said):
    images(
        tmp_path / "train",
        "ant/1.png",
        "ant/.ipynb_checkpoints/1-checkpoint.png",
        ".ipynb_checkpoints/2-checkpoint.png",
    )
    (tmp_path / "train" / ".empty").mkdir()
    data = dataset(tmp_path)
    assert data.metainfo["classes"] == ("ant",) and len(data) == 1
    assert said[-1].endswith("left out: hidden folders .empty, .ipynb_checkpoints")


def test_empty_class__keeps_its_number(tmp_path, said):
    images(tmp_path / "train", "bee/1.png")
    (tmp_path / "train" / "ant").mkdir()
    data = dataset(tmp_path)
    assert data.metainfo["classes"] == ("ant", "bee")
    assert samples(data)[0][1] == 1
    assert "1 class folders" in said[-1] and said[-1].endswith("no image: ant")


def test_imagenet__is_that_of_mmpretrain(tmp_path, monkeypatch):
    """With as many folders as a test can draw: two of its thousand."""
    names = ("n01440764", "n15075141")
    images(tmp_path / "train", f"{names[1]}/1.JPEG", f"{names[0]}/2.JPEG")
    theirs = ImageNet(
        data_root=str(tmp_path), split="train", metainfo=dict(classes=names)
    )
    ours = dataset(tmp_path)
    assert samples(ours) == samples(theirs)
    assert ours.metainfo["classes"] == names
    assert not module._is_imagenet(list(names))
    # All thousand have the names that checkpoints of mmpretrain have recorded.
    monkeypatch.setattr(module, "_is_imagenet", lambda folders: True)
    assert dataset(tmp_path).metainfo["classes"] == ImageNet.METAINFO["classes"]
    assert ClassFolders.METAINFO == ImageNet.METAINFO  # what get_model looks up


def test_imagenet__lists_of_images_are_read(tmp_path):
    images(tmp_path / "train", "n01440764/1.JPEG")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "train.txt").write_text("n01440764/1.JPEG 7")
    data = dataset(tmp_path)
    assert samples(data)[0][1] == 7 and data.class_folders() is None


def test_names__may_be_given(tmp_path):
    images(tmp_path / "train", "0/1.png", "1/1.png")
    names = dict(classes=["ant", "bee"])
    assert dataset(tmp_path, metainfo=names).metainfo["classes"] == ["ant", "bee"]
    with pytest.raises(ValueError, match="names 1 classes, but .*has 2 class folders"):
        dataset(tmp_path, metainfo=dict(classes=["ant"]))


def test_bad_folders__are_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="train does not exist.*train/CLASS/"):
        dataset(tmp_path)
    images(tmp_path / "train", "1.png")
    with pytest.raises(FileNotFoundError, match="train has no class folders"):
        dataset(tmp_path)
    (tmp_path / "train" / "ant").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"\(ant\) hold no image; .*\.png"):
        dataset(tmp_path)


def test_what_cannot_be_read__is_skipped_and_counted(tmp_path: Path, said) -> None:
    images(tmp_path, "train/cat/a.png", "train/dog/a.png")
    loop = tmp_path / "train" / "cat" / "loop"
    loop.symlink_to(loop)
    os.mkfifo(tmp_path / "train" / "dog" / "pipe.png")
    dataset = ClassFolders(str(tmp_path), split="train")
    labels = [dataset.get_data_info(index)["gt_label"] for index in range(len(dataset))]
    assert labels == [0, 1]
    assert any("2 entries cannot be read and are skipped" in line for line in said)
