"""Features of folders of images: what is computed, by how many, and what is refused."""

import multiprocessing
import os
import shutil
import signal
import socket

import cv2
import numpy as np
import pytest
import torch
from samples import tiny_model
from small_run import COUNT, FILES, normalised, pictures

from mim_plugins.checkpoints.files.atomic import writer_tag
from mim_plugins.evaluation.embed import embed
from mim_plugins.evaluation.feature_file import FeatureParts
from mim_plugins.evaluation.images import ImageList, list_images


def test_file__holds_features_names_and_classes(tmp_path, photos, tiny):
    network, config, checkpoint = tiny
    shapes = embed(
        str(photos),
        tmp_path / "x.npz",
        model=config,
        checkpoint=checkpoint,
        features=["patch", "cls", "mean"],
        batch_size=3,
        workers=1,
    )
    found = dict(np.load(tmp_path / "x.npz"))
    assert found["files"].tolist() == FILES
    assert found["classes"].tolist() == ["cat", "dog"]
    assert found["labels"].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found["grid"].tolist() == [4, 4]
    with torch.no_grad():
        expected = network.image_features(normalised(network, pictures(photos)))
    for name, values in expected.present.items():
        assert found[name].shape == shapes[name] == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["photos", "run", "x.npz"]


def test_defaults__are_mean_and_class_token_and_the_config_of_the_run(
    tmp_path, photos, tiny
):
    *_, checkpoint = tiny
    embed(str(photos), tmp_path / "x.npz", checkpoint=checkpoint, workers=0)
    embed(
        *(str(photos), tmp_path / "y.npz"),
        checkpoint=checkpoint,
        workers=0,
        dtype="float16",
        precision="bf16",
    )
    found, half = np.load(tmp_path / "x.npz"), np.load(tmp_path / "y.npz")
    assert set(found) == {"cls", "mean", "files", "labels", "classes"}
    assert half["mean"].dtype == np.float16
    assert not np.array_equal(half["mean"], found["mean"].astype(np.float16))
    np.testing.assert_allclose(half["mean"], found["mean"], atol=0.05)


def process(rank, world, port, results, arguments):
    """One of several processes, as torchrun starts them."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        results.put((rank, embed(**arguments, launcher="pytorch")))
    except Exception as error:
        results.put((rank, f"{type(error).__name__}: {error}"))
    results.close()
    results.join_thread()
    os._exit(0)  # without what the test process has registered for its end


def together(world, **arguments):
    """What each of several processes returned or raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    processes = [
        fork.Process(target=process, args=(rank, world, port, results, arguments))
        for rank in range(world)
    ]
    for each in processes:
        each.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for each in processes:
        each.join(timeout=60)
    return [found[rank] for rank in range(world)]


@pytest.mark.parametrize("world", [2, 3])
def test_processes__write_what_one_writes(tmp_path, photos, tiny, world):
    options = dict(data=str(photos), checkpoint=tiny[2], batch_size=2, workers=0)
    options["features"] = ["cls", "mean", "patch"]
    embed(**options, out=tmp_path / "one.npz")
    shapes = together(world, **options, out=tmp_path / "many.npz")
    assert shapes == [shapes[0]] * world
    one, many = np.load(tmp_path / "one.npz"), np.load(tmp_path / "many.npz")
    assert set(one) == set(many)
    assert all(np.array_equal(one[name], many[name]) for name in one)
    assert len(np.unique(many["mean"], axis=0)) == COUNT


def test_processes__end_together_when_one_fails(tmp_path, photos, tiny):
    (photos / FILES[-1]).write_bytes(b"no image")
    options = dict(data=str(photos), checkpoint=tiny[2], batch_size=2, workers=0)
    messages = together(2, **options, out=tmp_path / "x.npz")
    assert all("puppies/7.png cannot be read" in text for text in messages)
    assert sorted(os.listdir(tmp_path)) == ["photos", "run"]
    together(2, **options, out=tmp_path / "x.npz", skip_unreadable=True)
    found = np.load(tmp_path / "x.npz")
    assert found["files"].tolist() == FILES[:-1]
    assert found["unreadable"].tolist() == FILES[-1:]


@pytest.mark.parametrize("bad", [0, 4])
def test_unreadable_images__end_it_or_are_left_out(tmp_path, photos, tiny, bad):
    options = dict(data=str(photos), checkpoint=tiny[2], batch_size=3, workers=1)
    options["features"] = ["mean"]
    embed(**options, out=tmp_path / "whole.npz")
    (photos / FILES[bad]).write_bytes((photos / FILES[bad]).read_bytes()[:30])
    with pytest.raises(ValueError, match=f"{FILES[bad]} cannot be read.*--skip-unread"):
        embed(**options, out=tmp_path / "x.npz")
    assert sorted(os.listdir(tmp_path)) == ["photos", "run", "whole.npz"]
    embed(**options, out=tmp_path / "x.npz", skip_unreadable=True)
    found, whole = np.load(tmp_path / "x.npz"), np.load(tmp_path / "whole.npz")
    kept = [row for row in range(COUNT) if row != bad]
    assert found["files"].tolist() == [FILES[row] for row in kept]
    assert found["labels"].tolist() == whole["labels"][kept].tolist()
    np.testing.assert_allclose(found["mean"], whole["mean"][kept], atol=1e-5)
    assert found["unreadable"].tolist() == [FILES[bad]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=None, checkpoint=None), "name the model.*give its weights"),
        (dict(checkpoint=None), "no weights are known for"),
        (
            dict(model="distilled_mae-vitt_400e", checkpoint=None),
            "no weights are known for distilled_mae-vitt_400e",
        ),
        (dict(checkpoint="none.pth"), "there is no checkpoint file none.pth"),
        (dict(model="vit-nowhere"), "no model is named 'vit-nowhere'"),
        (dict(model="none.py"), "The config file none.py does not exist"),
        (dict(out="x.npy"), "a .npz file, not to x.npy"),
        (dict(out="none/x.npz"), "there is no folder none to write to"),
        (dict(data="none"), "there is no folder none with images"),
        (dict(ann_file="none.txt"), "there is no annotation file none.txt"),
        (dict(features=["patches"]), r"some of cls, mean, patch, not \['patches'\]"),
        (dict(features=[]), r"some of cls, mean, patch, not \[\]"),
        (dict(batch_size=0), "batch_size=0"),
        (dict(workers=-1), "workers=-1"),
        (dict(precision="int8"), "one of fp32, bf16, fp16, not 'int8'"),
        (dict(precision="fp16", device="cpu"), "fp16 needs a GPU"),
        (dict(dtype="float64"), "one of float32, float16, not 'float64'"),
        (dict(device="gpu"), "device 'gpu' cannot be used"),
        (dict(launcher="pytorch"), "WORLD_SIZE is not set"),
    ],
)
def test_mistakes__are_named_and_nothing_is_written(
    tmp_path, photos, tiny, monkeypatch, changes, message
):
    monkeypatch.chdir(tmp_path)
    options = dict(data=str(photos), out="x.npz", model=tiny[1], checkpoint=tiny[2])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        embed(**options | changes)
    assert sorted(os.listdir(tmp_path)) == ["photos", "run"]


def test_images_of_two_sizes__are_named(tmp_path, photos, tiny):
    model = tiny_model()
    steps = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
    (tmp_path / "tiny.py").write_text(f"model = {model!r}\ntest_pipeline = {steps!r}\n")
    cv2.imwrite(str(photos / FILES[2]), np.zeros((40, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"cat/1.png.*\(3, 32, 32\).*\(3, 40, 32\)"):
        embed(
            str(photos),
            tmp_path / "x.npz",
            model=str(tmp_path / "tiny.py"),
            checkpoint=tiny[2],
        )


def test_what_the_disk_cannot_hold__is_refused_before(
    tmp_path, photos, tiny, monkeypatch
):
    left = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: left)
    options = dict(data=str(photos), out=tmp_path / "x.npz", checkpoint=tiny[2])
    with pytest.raises(OSError, match="patch 7 x 16 x 24 .*10.8 kB.*10 kB are free"):
        embed(**options, features=["patch"])
    embed(**options, features=["mean"])


def test_parts__hold_more_rows_than_are_copied_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("mim_plugins.evaluation.feature_file._CHUNK", 64)
    parts = FeatureParts(tmp_path / "x.npz", {"mean": (5,)}, 9, "float32", "1")
    parts.create()
    parts.open()
    values = np.arange(45, dtype=np.float32).reshape(9, 5)
    parts.write([8, 1, 0], {"mean": values[[8, 1, 0]]})
    parts.write([2, 3, 4, 5, 6, 7], {"mean": values[2:8]})
    parts.close()
    parts.finish(np.array([0, 2, 3, 7, 8]), {"labels": [1, 2]})
    parts.remove()
    found = np.load(tmp_path / "x.npz")
    assert np.array_equal(found["mean"], values[[0, 2, 3, 7, 8]])
    assert os.listdir(tmp_path) == ["x.npz"]


def test_parts__of_a_killed_run_are_removed_by_the_next(tmp_path):
    process = os.fork()
    if process == 0:
        try:
            path, tag = tmp_path / "x.npz", writer_tag()
            FeatureParts(path, {"mean": (5,)}, 9, "float32", tag).create()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(process, 0)
    (left,) = tmp_path.iterdir()
    parts = FeatureParts(tmp_path / "x.npz", {"mean": (5,)}, 9, "float32", writer_tag())
    parts.create()
    assert not left.exists() and parts.folder.is_dir()


def test_list_images__knows_classes_where_every_image_has_one(tmp_path, photos):
    assert list_images(str(photos)).labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    shutil.copy(photos / FILES[0], photos / "loose.png")
    images = list_images(str(photos))
    assert images.labels is None and images.files == [*FILES, "loose.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images below .*end in .jpg"):
        list_images(str(tmp_path / "empty"))


def test_list_images__from_an_annotation_file(tmp_path, photos):
    def listed(text):
        (tmp_path / "ann.txt").write_text(text)
        return list_images(str(photos), str(tmp_path / "ann.txt"))

    images = listed("dog/puppies/7.png 12\n\na b/1.png 3\n")
    assert images.files == ["dog/puppies/7.png", "a b/1.png"]
    assert images.labels.tolist() == [12, 3] and images.classes is None
    assert listed("dog/puppies/7.png\ncat/a b.png\n") == ImageList(
        str(photos), ["dog/puppies/7.png", "cat/a b.png"]
    )
    with pytest.raises(ValueError, match="line 2 .*no class: 'cat/1.png'"):
        listed("dog/puppies/7.png 0\ncat/1.png\n")
    with pytest.raises(FileNotFoundError, match="names no images"):
        listed("\n")


def test_what_is_in_the_way__is_told_before_an_image_is_read(
    tmp_path, photos, tiny, monkeypatch
):
    monkeypatch.setattr("mim_plugins.evaluation.embed.list_images", None)
    options = dict(data=str(photos), checkpoint=tiny[2])
    with pytest.raises(FileNotFoundError, match="no folder .*none to write to"):
        embed(**options, out=tmp_path / "none" / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="x.npz is there already.*--force"):
        embed(**options, out=tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == b"mine"


def test_force__replaces_the_file(tmp_path, photos, tiny, monkeypatch):
    # As on macOS, which does not say what cores a process may use.
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    (tmp_path / "x.npz").write_bytes(b"mine")
    embed(str(photos), tmp_path / "x.npz", checkpoint=tiny[2], force=True)
    assert len(np.load(tmp_path / "x.npz")["mean"]) == COUNT


def test_listed_file_that_is_absent__is_named(tmp_path, photos, tiny):
    (tmp_path / "ann.txt").write_text("cat/1.png 0\ncat/none.png 0\n")
    options = dict(data=str(photos), checkpoint=tiny[2], workers=0)
    options["ann_file"] = str(tmp_path / "ann.txt")
    with pytest.raises(ValueError, match="cat/none.png .*there is no such file"):
        embed(**options, out=tmp_path / "x.npz")
