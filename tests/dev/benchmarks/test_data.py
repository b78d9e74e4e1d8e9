import cv2
import pytest

from dev.benchmarks import render, run_data
from dev.benchmarks.data import write_synthetic

SMALL = {"images": 4, "batch_size": 2, "rounds": 2}


def test_data_races_pipelines_on_the_same_files(tiny_config, tmp_path):
    write_synthetic(tmp_path / "images", 3)
    report = run_data(str(tiny_config), str(tmp_path / "images"), **SMALL)
    assert list(report["implementations"]) == ["ours", "mmpretrain-mae"]
    for entry in report["implementations"].values():
        ms = entry["ms_per_image"]
        assert 0 < ms["min"] <= ms["median"] <= ms["max"]
        assert entry["images_per_s_per_core"] == pytest.approx(1e3 / ms["median"])
    ratio = report["times_as_fast_as"]["mmpretrain-mae"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert (report["files"], report["workers"]) == (3, 0)
    assert "mmpretrain-mae" in render(report)


def test_workers_are_timed_by_the_clock_on_the_wall(tiny_config, tmp_path):
    write_synthetic(tmp_path / "images", 2)
    report = run_data(str(tiny_config), str(tmp_path / "images"), workers=1, **SMALL)
    assert report["clock"] == "wall time"
    assert report["implementations"]["ours"]["images_per_s"] > 0


def test_without_data_synthetic_images_are_used(tiny_config):
    report = run_data(str(tiny_config), **SMALL)
    assert report["data"].startswith("synthetic")
    # As large as ImageNet's, whose mean is 110 KB.
    assert 80 < report["mean_file_kib"] < 150


def test_synthetic_images_have_the_usual_size(tmp_path):
    write_synthetic(tmp_path / "images", 1)
    image = cv2.imread(str(tmp_path / "images" / "00000.jpg"))
    assert image.shape == (375, 500, 3)
    assert image.std() > 30


def test_mistakes_are_named(tiny_config, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        run_data(str(tiny_config), str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="at least 1"):
        run_data(str(tiny_config), images=0)
    with pytest.raises(FileNotFoundError, match="--vs other: neither"):
        run_data(str(tiny_config), baselines=["other"], images=1)
