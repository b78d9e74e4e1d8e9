import os

import pytest

from mim_plugins.datasets import UnlabelledImages


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
