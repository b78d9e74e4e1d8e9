"""Labelled folders: with and without a part to judge by."""

import pytest
from own_images import write_classes, write_images

from mim_plugins.simple.class_data import find_classes


def test_classes_without_parts__hold_a_fifth_of_each_out(tmp_path):
    write_classes(tmp_path, count=10)
    found = find_classes(tmp_path)
    assert found.held_out and found.classes == ["ant", "bee", "wasp"]
    assert sorted(found.val.labels) == [0, 0, 1, 1, 2, 2]
    assert len(found.train.files) == 33 - 6
    assert not set(found.train.files) & set(found.val.files)
    assert find_classes(tmp_path).val.files == found.val.files
    assert find_classes(tmp_path, seed=1).val.files != found.val.files


@pytest.mark.parametrize("part", ["val", "test"])
def test_parts__are_taken_as_they_are(tmp_path, part):
    write_classes(tmp_path / "train", count=3)
    write_classes(tmp_path / part, count=1)
    found = find_classes(tmp_path)
    assert not found.held_out
    assert (len(found.train.files), len(found.val.files)) == (12, 6)


def test_empty_class__is_named(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "fly").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(ValueError, match="no image in the class folder fly of"):
        find_classes(tmp_path)


def test_folders_that_are_no_classes__are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_classes(tmp_path / "missing")
    write_images(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match="no class folders"):
        find_classes(tmp_path)
    write_images(tmp_path / "ant", 2)
    with pytest.raises(ValueError, match="one class folder only, ant"):
        find_classes(tmp_path)
    write_images(tmp_path / "bee", 1)
    with pytest.raises(ValueError, match="bee has one image only"):
        find_classes(tmp_path)


def test_different_classes_in_parts__are_named(tmp_path):
    write_classes(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match="no val folder"):
        find_classes(tmp_path)
    write_classes(tmp_path / "val", names=("ant", "bee"))
    with pytest.raises(ValueError, match="different classes: wasp in one"):
        find_classes(tmp_path)
