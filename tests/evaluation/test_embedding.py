"""Features of folders of images: what is computed, by how many, and what is refused."""

import multiprocessing
import os
import shutil
import socket

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from samples import TINY_ARCH, golden_folder, tiny_model

from mim_plugins.evaluation.embedding import embed
from mim_plugins.evaluation.encoder import Encoder, load_encoder
from mim_plugins.evaluation.feature_file import FeatureParts
from mim_plugins.evaluation.image_files import ImageList, list_images

COUNT = 7
DATA = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.fixture
def photos(tmp_path):
    """Seven images in two sub-folders; the path that comes first is the last one's."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        folder = tmp_path / "photos" / ("cat" if index > 3 else "dog/puppies")
        folder.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{COUNT - index}.png"), picture)
    return tmp_path / "photos"


FILES = [f"cat/{n}.png" for n in (1, 2, 3)] + [
    f"dog/puppies/{n}.png" for n in (4, 5, 6, 7)
]


def saved(model, folder, name="tiny"):
    """A config and a checkpoint of a model with no two tensors alike."""
    network = MODELS.build(model)
    network.init_weights()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.eval()
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(f"model = {model!r}\n")
    torch.save({"state_dict": network.state_dict()}, folder / f"{name}.pth")
    return network, str(folder / f"{name}.py"), str(folder / f"{name}.pth")


@pytest.fixture
def tiny(tmp_path):
    return saved(tiny_model(), tmp_path / "run")


def pictures(folder, files=FILES):
    """The images as tensors, BGR as OpenCV reads them, (N, 3, 32, 32)."""
    images = [cv2.imread(str(folder / file)) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def normalised(network, images):
    data = dict(inputs=images, data_samples=None)
    return network.data_preprocessor(data, False)["inputs"]


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
    told = together(2, **options, out=tmp_path / "x.npz")
    assert all("puppies/7.png cannot be read" in text for text in told)
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


def classifier(neck=None, **backbone):
    head = dict(type="LinearClsHead", num_classes=3, in_channels=24)
    return dict(
        type="ImageClassifier",
        data_preprocessor=dict(DATA, to_rgb=True),
        backbone=backbone,
        neck=neck,
        head=head,
    )


VIT = dict(arch=TINY_ARCH, img_size=32, patch_size=8)
SWIN = dict(
    arch=dict(embed_dims=3, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)),
    img_size=32,
    window_size=2,
)
HIERA = dict(arch=dict(embed_dims=3, depths=(1, 1, 1, 1), num_heads=1), img_size=32)
ENCODERS = {
    "vit": (classifier(type="VisionTransformer", out_type="avg_featmap", **VIT), 16),
    "vit cls": (classifier(type="MIMVisionTransformer", **VIT), 16),
    "rel pos": (classifier(type="RelPosVisionTransformer", **VIT), 16),
    "deit": (classifier(type="DistilledVisionTransformer", **VIT), 16),
    "swin": (
        classifier(
            dict(type="GlobalAveragePooling"),
            type="SwinTransformer",
            pad_small_map=True,
            **SWIN,
        ),
        1,
    ),
    "localmim swin": (
        classifier(
            dict(type="PooledNorm", in_channels=24),
            type="MIMSwinTransformer",
            norm_cfg=None,
            **SWIN,
        ),
        1,
    ),
    "hiera": (classifier(type="Hiera", **HIERA), 1),
}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_classifiers__mean_is_what_their_head_gets(tmp_path, name):
    model, tokens = ENCODERS[name]
    network, config, checkpoint = saved(model, tmp_path / "run")
    encoder = load_encoder(config, checkpoint).eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    inputs = normalised(encoder, images)
    with torch.no_grad():
        features = encoder.image_features(inputs)
        head_gets = network.extract_feat(normalised(network, images))[-1]
    assert features.patch.shape == (2, tokens, 24)
    assert features.grid[0] * features.grid[1] == tokens
    if name == "vit cls":
        torch.testing.assert_close(features.cls, head_gets)
        torch.testing.assert_close(features.mean, features.patch.mean(dim=1))
    elif name == "deit":
        torch.testing.assert_close(features.cls, head_gets[0])
    else:
        torch.testing.assert_close(features.mean, head_gets)
        assert (features.cls is None) == (tokens == 1)
    # The encoder is as it was.
    own, theirs = (getattr(x.backbone, "out_type", None) for x in (encoder, network))
    assert own == theirs


def test_pretraining__needs_neither_decoder_nor_teacher(tmp_path, photos):
    network, _, checkpoint = saved(tiny_model(), tmp_path / "run")
    absent = dict(type="CLIPTarget", checkpoint="nowhere.pt")
    (tmp_path / "clip.py").write_text(
        f"model = {tiny_model(target_generator=absent)!r}"
    )
    embed(
        str(photos),
        tmp_path / "x.npz",
        model=str(tmp_path / "clip.py"),
        checkpoint=checkpoint,
    )
    with torch.no_grad():
        mean = network.patch_mean(normalised(network, pictures(photos)))
    np.testing.assert_allclose(np.load(tmp_path / "x.npz")["mean"], mean, atol=1e-5)


def test_official_checkpoint__is_converted(tmp_path):
    weights = load_file(golden_folder("deepmim/mae_pixel") / "weights.safetensors")
    torch.save({"model": weights}, tmp_path / "official.pth")
    width = weights["cls_token"].shape[-1]
    patch = weights["patch_embed.proj.weight"].shape[-1]
    side = round((weights["pos_embed"].shape[1] - 1) ** 0.5) * patch
    blocks = {key.split(".")[1] for key in weights if key.startswith("blocks.")}
    hidden = len(weights["blocks.0.mlp.fc1.bias"])
    arch = dict(
        embed_dims=width,
        num_layers=len(blocks),
        num_heads=2,
        feedforward_channels=hidden,
    )
    model = tiny_model(
        backbone=dict(arch=arch, img_size=side, patch_size=patch, taps=())
    )
    (tmp_path / "official.py").write_text(f"model = {model!r}\n")
    encoder = load_encoder(None, str(tmp_path / "official.pth"))
    own = encoder.backbone.layers[0].attn.qkv.weight
    assert torch.equal(own, weights["blocks.0.attn.qkv.weight"])


def test_wrong_weights__are_refused(tmp_path, tiny):
    network, config, _ = tiny
    state = network.state_dict()
    torch.save(
        {k: x for k, x in state.items() if "layers.3.attn" not in k},
        tmp_path / "part.pth",
    )
    with pytest.raises(ValueError, match="4 .*layers.3.attn.proj.bias"):
        load_encoder(config, str(tmp_path / "part.pth"))
    # The norm behind the mean, which pre-training has not.
    _, config, _ = saved(ENCODERS["vit"][0], tmp_path / "finetuned")
    with pytest.raises(ValueError, match="ln2.*Give the config it was trained with"):
        load_encoder(config, tiny[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=None, checkpoint=None), "name the model.*give its weights"),
        (dict(checkpoint=None), "nobody names the weights of"),
        (
            dict(model="distilled_mae-vitt_400e", checkpoint=None),
            "nobody names the weights of distilled_mae-vitt_400e",
        ),
        (dict(checkpoint="none.pth"), "there is no checkpoint file none.pth"),
        (dict(model="vit-nowhere"), 'Failed to find model "vit-nowhere"'),
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


def test_class_token_of_a_swin__is_refused(tmp_path, photos):
    saved(ENCODERS["swin"][0], tmp_path / "run")
    options = dict(data=str(photos), checkpoint=str(tmp_path / "run/tiny.pth"))
    with pytest.raises(ValueError, match="no class token.*take 'mean' or 'patch'"):
        embed(**options, out=tmp_path / "x.npz", features=["mean", "cls"])
    embed(**options, out=tmp_path / "x.npz")
    assert "cls" not in np.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(test_pipeline=[dict(type="PackInputs")]), "loads no files.*as CIFAR"),
        (dict(model=dict(type="MaskFormer", backbone={})), "of type 'MaskFormer'"),
        (dict(model=dict(type="DeepMIM")), "pre-training and classification"),
    ],
)
def test_configs_without_features_of_files__are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Encoder(Config({"model": tiny_model(), **changes}))


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
    parts = FeatureParts(tmp_path / "x.npz", {"mean": (5,)}, 9, "float32", 1)
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
