"""What `make demo` does, in its smallest form."""

import sys

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mim_plugins import demo
from mim_plugins.engine import InputError


def test_digits__test_part_is_held_out(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is in the extra [demo]")
    demo.write_digits(tmp_path)
    parts = {
        p: {f.stem for f in (tmp_path / p).rglob("*.png")} for p in ("train", "test")
    }
    assert len(parts["train"]) == 1437 and len(parts["test"]) == 360
    assert not parts["train"] & parts["test"]
    image = cv2.imread(str(next((tmp_path / "test" / "7").glob("*.png"))), -1)
    assert image.shape == (16, 16) and image.max() > 200

    init_default_scope("mmpretrain")
    chosen = demo._few_labels(tmp_path, seed=0)
    assert len(set(chosen)) == 100 and chosen != demo._few_labels(tmp_path, seed=1)
    # Untrained features already separate digits better than chance.
    assert 20 < demo.knn_accuracy(tmp_path, None, seed=0) < 90


def test_images__pre_trains_on_any_folder(tmp_path, monkeypatch, capfd):
    draw = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "photos" / f"{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = draw.integers(0, 255, (80, 70, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
    monkeypatch.setattr(demo, "IMAGES_SEEN", 1)
    with demo.quiet(tmp_path / "out" / "output.txt"):
        results = demo.run_images(tmp_path / "photos", tmp_path / "out")
    shown = capfd.readouterr()
    # A line for the stage, one for every epoch; the rest is in the file.
    assert shown.out.startswith(
        "Pre-training DeepMIM for 11 epochs\n  epoch    1  loss"
    )
    assert len(shown.out.splitlines()) == 12 and not shown.err
    log = (tmp_path / "out" / "output.txt").read_text()
    assert "CheckInputHook" in log and len(log.splitlines()) > 50
    names = [name for name, _, _ in results]
    assert sorted(names) == ["loss", "loss_0", "loss_1", "loss_2", "loss_3"]
    assert all(last < first for _, first, last in results)
    assert (tmp_path / "out" / "loss_curves.png").is_file()
    assert list((tmp_path / "out").glob("images/reconstructions/*.png"))
    assert (tmp_path / "out" / "images" / "epoch_11.pth").is_file()
    # It can be repeated.
    assert demo.run_images(tmp_path / "photos", tmp_path / "out") == results


def test_images__missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        demo.run_images(tmp_path / "nowhere", tmp_path / "out")


def test_quiet__loggers_that_keep_the_stream_go_on(tmp_path, capsys):
    with demo.quiet(tmp_path / "log.txt"):
        print("12:00 - INFO - Epoch(train)  [10][11/11]  loss: 0.5  loss_0: 0.1")
        print("a warning", file=sys.stderr)
        stream = sys.stdout
        demo.announce("A stage", every=3)
        print(
            "Epoch(train)  [10][11/11]  loss: 0.5", "Epoch(train)  [12][1/1] loss: 0.4"
        )
    assert capsys.readouterr().out == (
        "  epoch   10  loss 0.5\nA stage\n  epoch   12  loss 0.4\n"
    )
    assert "a warning" in (tmp_path / "log.txt").read_text()
    print("later", file=stream)
    assert capsys.readouterr().out == "later\n"
