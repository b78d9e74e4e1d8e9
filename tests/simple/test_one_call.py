"""From a folder of images to an encoder, a classifier, features and pictures."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from own_images import write_classes, write_images

import mim_plugins
from mim_plugins.engine import InputError
from mim_plugins.engine.launch import train

pytestmark = pytest.mark.usefixtures("unformatted")


def small(data, out, **changes):
    how = dict(model="mae_vitt", img_size=32, epochs=2, workers=0)
    return mim_plugins.pretrain(str(data), out=str(out), **{**how, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a pre-training, which tests copy if they change it."""
    folder = tmp_path_factory.mktemp("trained")
    small(write_images(folder / "images", 6), folder / "run")
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("classes"))


def test_pretrain__says_its_choices_and_writes_the_config_it_ran(tmp_path, capsys):
    data = write_images(tmp_path / "images", 5)
    checkpoint = small(data, tmp_path / "run", epochs=1)
    assert checkpoint == tmp_path / "run" / "epoch_1.pth" and checkpoint.is_file()
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    starts = ("data: 5 images, colour", "model: mae_vitt", "batch: 5,", "epochs: 1,")
    assert [any(line.startswith(x) for line in said) for x in starts] == [True] * 4
    # The config is one to copy: it trains elsewhere, without the call.
    path = tmp_path / "run" / "config" / "pretrain.py"
    own = tmp_path / "own.py"
    shutil.copy(path, own)
    assert len(path.read_text().splitlines()) < 80
    runner = train(own, work_dir=str(tmp_path / "own"))
    assert runner.model.backbone.image_size == (32, 32)
    assert runner.cfg.train_dataloader.batch_size == 5


@pytest.mark.parametrize(
    ("how", "options", "size", "channels"),
    [
        (dict(shape=(28, 28)), dict(img_size=None), (28, 28), 1),
        (dict(shape=(64, 160, 3)), dict(img_size=None), (64, 160), 3),
        (dict(shape=(40, 36, 4), dtype=np.uint16, ending=".tif"), {}, (32, 32), 4),
        (dict(shape=(36, 36, 6), dtype=np.uint16, ending=".npy"), {}, (32, 32), 6),
    ],
    ids=["grey 28 px", "panoramas", "4 channels of 16 bits", "6 channels of .npy"],
)
def test_any_images__end_with_a_model_and_features(
    tmp_path, how, options, size, channels
):
    data = write_images(tmp_path / "images", 4, **how)
    small(data, tmp_path / "run", epochs=1, **options)
    (config,) = (tmp_path / "run").glob("*.py")
    assert Config.fromfile(config).model.backbone.get("in_channels", 3) == channels
    out = tmp_path / "features.npz"
    shapes = mim_plugins.embed(
        data, tmp_path / "run", out=out, features=["mean"], workers=0, batch_size=4
    )
    assert shapes == {"mean": (4, 192)} and np.isfinite(np.load(out)["mean"]).all()
    pictures = mim_plugins.reconstruct(data, tmp_path / "run", out=tmp_path / "drawn")
    assert len(pictures) == 4


def test_resume__goes_on_as_begun_and_longer(tmp_path, trained):
    shutil.copytree(trained / "run", tmp_path / "run")
    data = trained / "images"
    with pytest.raises(InputError, match="earlier run .*resume=True"):
        small(data, tmp_path / "run")
    with pytest.raises(InputError, match=r"img_size=\[48, 48\] \(was \[32, 32\]\)"):
        small(data, tmp_path / "run", img_size=48, resume=True)
    last = small(data, tmp_path / "run", epochs=3, resume=True)
    assert last.name == "epoch_3.pth"


def test_finetune__learns_the_classes_of_folders(tmp_path, trained, classes, capsys):
    out = tmp_path / "tuned"
    result = mim_plugins.finetune(
        classes, trained / "run", epochs=1, out=out, workers=0
    )
    assert result.checkpoint == out / "epoch_1.pth" and 0 <= result.accuracy <= 100
    cfg = Config.fromfile(out / "config" / "finetune.py")
    assert cfg.classes == ["ant", "bee", "wasp"] and cfg.model.head.num_classes == 3
    assert cfg.model.data_preprocessor.mean != [123.675, 116.28, 103.53]
    listed = {x.name: x.read_text().splitlines() for x in out.glob("config/*.txt")}
    assert {name: len(lines) for name, lines in listed.items()} == {
        "train.txt": 12,
        "val.txt": 3,
    }
    assert "3 classes (ant, bee, wasp): 12 images to learn" in capsys.readouterr().out
    state = torch.load(result.checkpoint, weights_only=False)["state_dict"]
    assert state["head.fc.weight"].shape[0] == 3
    # What it has learnt can be judged like any encoder.
    assert 0 <= mim_plugins.probe(classes, out, workers=0).knn <= 100


def test_finetune__at_another_size_resizes_positions(
    tmp_path, trained, classes, capsys
):
    out = tmp_path / "tuned"
    mim_plugins.finetune(
        classes, trained / "run", img_size=48, epochs=1, out=out, workers=0
    )
    assert "position embeddings resized from 32" in capsys.readouterr().out
    with pytest.raises(InputError, match="img_size=50 .*patches of 4x4.*img_size=48"):
        mim_plugins.finetune(classes, trained / "run", img_size=50, out=tmp_path / "b")


def test_probe__tells_classes_apart_that_look_different(tmp_path, trained):
    for part in ("train", "val"):
        for value, name in ((20, "dark"), (230, "bright")):
            folder = tmp_path / part / name
            write_images(folder, 4)
            for path in folder.glob("*.png"):
                image = cv2.imread(str(path)) // 16 + value - 15 * (value > 100)
                cv2.imwrite(str(path), image)
    result = mim_plugins.probe(tmp_path, trained / "run", workers=0)
    assert result == (100.0, 100.0)


def test_other_images_than_the_encoders__are_refused(tmp_path, trained):
    deep = write_classes(tmp_path / "deep", shape=(40, 40), dtype=np.uint16)
    for call in (
        lambda: mim_plugins.finetune(deep, trained / "run", out=tmp_path / "a"),
        lambda: mim_plugins.probe(deep, trained / "run"),
        lambda: mim_plugins.embed(deep, trained / "run", out=tmp_path / "b.npz"),
    ):
        with pytest.raises(InputError, match="more than 8 bits, but the encoder is"):
            call()
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(model="mae_vit_t"), "did you mean mae_vitt"),
        (dict(data="empty"), "holds no image"),
        (dict(data="missing"), "does not exist"),
        (dict(data="mixed"), "differ in their channels"),
        (dict(img_size=30, patch_size=7), "take img_size=28"),
        (dict(img_size=97), "take img_size=96"),
        (dict(epochs=0), "epochs is a positive number"),
        (dict(out="file"), "cannot be written"),
        (dict(channels=2), "1 loads all images as grey"),
    ],
)
def test_bad_input__is_one_sentence_before_anything_is_written(
    tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 2)
    write_images(tmp_path / "mixed" / "colour", 2)
    write_images(tmp_path / "mixed" / "grey", 2, shape=(40, 40))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=sentence) as raised:
        small(**{"data": "images", "out": "run", **arguments})
    assert "\n" not in str(raised.value)
    assert not list(Path("run").rglob("*.py"))


def test_folder_without_write_access__is_refused(tmp_path, monkeypatch):
    write_images(tmp_path / "images", 2)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mim_plugins.simple.run_folder.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="Permission denied.*with write access"):
        small(tmp_path / "images", tmp_path / "run")


def test_full_disk__is_refused(tmp_path, monkeypatch):
    write_images(tmp_path / "images", 2)
    usage = shutil._ntuple_diskusage(10**9, 10**9, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="4 checkpoints need 0.3 GB .*0.0 GB are free"):
        small(tmp_path / "images", tmp_path / "run")


def test_encoder_that_is_none__is_refused(tmp_path, classes):
    with pytest.raises(InputError, match="holds no checkpoint"):
        mim_plugins.probe(classes, tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        mim_plugins.probe(classes, tmp_path / "missing")
    (tmp_path / "epoch_1.pth").touch()
    with pytest.raises(InputError, match="without the config of its run"):
        mim_plugins.probe(classes, tmp_path)
