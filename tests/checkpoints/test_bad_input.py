"""What people give by mistake is refused by name, on every way to load it."""

import itertools
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.checkpoints import convert_file, read, to_official
from mim_plugins.checkpoints.files import save_state
from mim_plugins.checkpoints.layouts.mirl import convert_to_official
from mim_plugins.checkpoints.loading import SCHEME, Target, state_for

VIT = dict(
    type="VisionTransformer",
    arch=dict(TINY_ARCH),
    img_size=32,
    patch_size=8,
    out_type="avg_featmap",
    final_norm=False,
)


def classifier(**backbone):
    return dict(
        type="ImageClassifier",
        backbone=VIT | backbone,
        head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
    )


def by_init_cfg(path, cfg):
    backbone = cfg["backbone"] | dict(
        init_cfg=dict(type="Pretrained", checkpoint=str(path))
    )
    MODELS.build(cfg | dict(backbone=backbone)).init_weights()


def by_load_from(path, cfg):
    """As a run of tools/train.py."""
    runner = Runner(
        model=MODELS.build(cfg),
        work_dir=str(Path(path).parent / "work"),
        load_from=SCHEME + str(path),
        cfg=dict(load_from=str(path)),
        custom_hooks=[dict(type="ConvertCheckpointHook")],
        default_scope="mmpretrain",
        experiment_name=f"run{next(RUNS)}",
        log_level="ERROR",
    )
    runner.load_or_resume()
    return runner.model


def by_get_model(path, cfg):
    """As mmpretrain reads it; the model converts and checks what it is given."""
    config = Config(dict(model=cfg | dict(type="MIMImageClassifier")))
    return mmpretrain.get_model(config, pretrained=str(path))


def by_the_tool(path, _):
    convert_file(path, Path(path).parent / "converted.pth")


RUNS = itertools.count()
WAYS = {way.__name__: way for way in (by_init_cfg, by_load_from)}
ALL_WAYS = WAYS | {"by_the_tool": by_the_tool}
every_way = pytest.mark.parametrize("way", ALL_WAYS.values(), ids=ALL_WAYS)
every_loading = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def refused(way, path, cfg, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as info:
        way(path, cfg)
    assert str(path) in str(info.value)


def official(path, cfg=None, **model):
    state = MODELS.build(cfg or tiny_model(**model)).state_dict()
    save_state(to_official(state)[0], path, wrapper="model")
    return path


NO_CHECKPOINTS = {
    "empty": (b"", "it is empty: it was not written, or not downloaded, to its end"),
    "page": (b"\n<!DOCTYPE html>\n<html><body>404", "it is a web page"),
    "error": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "it is a web page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n",
        "it is a Git LFS pointer.*run `git lfs pull`",
    ),
    "text": (b"# Models\nsee the wiki", "it is text, .* begins with '# Models see the"),
    "zeros": (bytes(4096), "it is nothing but zeros"),
    "packed": (b"\x1f\x8b\x08\x00" + bytes(99), "it is packed with gzip: unpack it"),
    "array": (b"\x93NUMPY\x01\x00" + bytes(99), "it is an array of numpy's"),
}


@every_way
def test_no_checkpoint__is_said_to_be_what_it_is(tmp_path, way):
    for name, (content, message) in NO_CHECKPOINTS.items():
        for suffix in (".pth", ".safetensors", ".pdparams"):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            refused(way, path, classifier(), message)
    refused(way, tmp_path / "none.pth", classifier(), "there is no checkpoint file")


@every_way
def test_folder__is_named_with_what_is_in_it(tmp_path, way):
    folder = tmp_path / "run"
    folder.mkdir()
    refused(way, folder, classifier(), "is a folder, not a checkpoint: it is empty")
    (folder / "log.txt").write_text("log")
    refused(way, folder, classifier(), "there is no checkpoint in it")
    for number in range(5):
        (folder / f"epoch_{number}.pth").write_text("")
    found = r"one of the files in it, such as epoch_0\.pth, .*epoch_2\.pth \(of 5\)"
    refused(way, folder, classifier(), found)


@every_way
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pdparams"])
def test_file_under_a_wrong_name__is_told_the_right_one(tmp_path, way, suffix):
    state = MODELS.build(VIT).state_dict()
    right = {".pth": ".safetensors", ".safetensors": ".pth", ".pdparams": ".pth"}
    save_state(state, tmp_path / f"right{right[suffix]}")
    path = (tmp_path / f"right{right[suffix]}").rename(tmp_path / f"wrong{suffix}")
    refused(way, path, classifier(), f"name it {right[suffix]}")


@every_way
def test_other_networks__are_refused_by_their_keys(tmp_path, way):
    path = tmp_path / "resnet.pth"
    torch.save({"layer1.0.conv1.weight": torch.ones(2, 2, 1, 1)}, path)
    if way is by_the_tool:
        refused(way, path, None, "no known layout.*layer1.0.conv1.weight.*Give the")
    else:
        message = "nothing for the VisionTransformer.*layer1.0.conv1.weight"
        refused(way, path, classifier(), message)


@every_loading
def test_own_file_of_another_network__has_nothing_for_the_encoder(tmp_path, way):
    """A head's keys alone would fit."""
    state = MODELS.build(classifier()).state_dict()
    state = {k: x for k, x in state.items() if k.startswith("head.")}
    path = tmp_path / "resnet.pth"
    torch.save({"state_dict": {**state, "backbone.conv1.weight": torch.ones(2)}}, path)
    refused(way, path, classifier(), "has nothing for the VisionTransformer")


def test_other_networks__take_what_they_take(tmp_path):
    """A model that is none of ours is left to mmengine."""
    torch.save({"layer1.weight": torch.ones(1)}, tmp_path / "x.pth")
    other = Target.of(torch.nn.Linear(1, 1))
    assert state_for(other, read(tmp_path / "x.pth")).keys() == {"layer1.weight"}


ARCHITECTURES = {
    "deeper": dict(arch=TINY_ARCH | dict(num_layers=5)),
    "wider": dict(arch=TINY_ARCH | dict(embed_dims=36)),
    "other patches": dict(patch_size=4),
    "other channels": dict(in_channels=4),
}


@every_loading
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("ours", [False, True])
def test_another_architecture__official_or_ours(tmp_path, way, changes, ours):
    path = official(tmp_path / "official.pth")
    if ours:
        convert_file(path, tmp_path / "ours.pth", encoder_only=True)
        path = tmp_path / "ours.pth"
    cfg = classifier(**changes)
    cfg["head"]["in_channels"] = changes.get("arch", TINY_ARCH)["embed_dims"]
    if ours and way is by_init_cfg:
        cfg["backbone"] = cfg["backbone"] | dict(
            init_cfg=dict(type="Pretrained", checkpoint=str(path), prefix="backbone.")
        )
        with pytest.raises(ValueError, match="ours.pth.*Set arch, patch_size"):
            MODELS.build(cfg).init_weights()
        return
    refused(way, path, cfg, "than the VisionTransformer.*|Set arch, patch_size")


@every_loading
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_three_heads_for_twelve(tmp_path, way, suffix):
    """Also of a converted file, and of a converted encoder alone."""
    arch = dict(embed_dims=192, num_layers=1, feedforward_channels=8)
    model = dict(backbone=dict(arch=arch | dict(num_heads=12)), neck=dict(depth=1))
    path = official(tmp_path / "mae.pth", taps=(), **model)
    convert_file(path, tmp_path / f"ours{suffix}")
    for name in ("mae.pth", f"ours{suffix}"):
        cfg = classifier(arch=arch | dict(num_heads=3))
        cfg["head"]["in_channels"] = 192
        message = "trained with 12 attention heads, the model has 3"
        if name == "mae.pth" or way is not by_init_cfg:
            refused(way, tmp_path / name, cfg, message)


def test_three_heads_for_twelve__in_the_tool(tmp_path):
    arch = dict(embed_dims=192, num_layers=1, feedforward_channels=8, num_heads=12)
    path = official(
        tmp_path / "mae.pth", taps=(), backbone=dict(arch=arch), neck=dict(depth=1)
    )
    message = f"--num-heads 3: {path} was trained with 12 attention heads"
    with pytest.raises(ValueError, match=message):
        convert_file(path, tmp_path / "hf", to="hf", num_heads=3)


@every_way
def test_paddle_file_transposed_by_shape__is_refused(tmp_path, way):
    """Oblong matrices show how they lie; square ones do not, and stay as they were."""
    state = MODELS.build(classifier()).state_dict()
    paddle = convert_to_official(state, paddle_layout=True)
    by_shape = {
        key: x.t() if x.ndim == 2 and x.shape[0] != x.shape[1] else x
        for key, x in paddle.items()
    }
    save_state(by_shape, tmp_path / "mirl.pdparams")
    refused(
        way,
        tmp_path / "mirl.pdparams",
        classifier(),
        r"\(out, in\), as in no file of PaddlePaddle.*square.*attn.proj.*the original",
    )
    half = {k: x.t() if "fc1.weight" in k else x for k, x in paddle.items()}
    save_state(half, tmp_path / "half.pdparams")
    refused(
        way,
        tmp_path / "half.pdparams",
        classifier(),
        "converted in part.*give the original .pdparams",
    )
    save_state(paddle, tmp_path / "right.pdparams")
    way(tmp_path / "right.pdparams", classifier())


@every_loading
def test_encoder_alone_in_our_layout__loads_into_models(tmp_path, way):
    backbone = MODELS.build(VIT)
    save_state(backbone.state_dict(), tmp_path / "vit.pth")
    way(tmp_path / "vit.pth", classifier())
    model = by_load_from(tmp_path / "vit.pth", classifier())
    assert torch.equal(model.backbone.cls_token, backbone.cls_token)


@every_loading
def test_names_that_are_none(tmp_path, way):
    torch.save({"state_dict": {1: torch.ones(1)}}, tmp_path / "x.pth")
    refused(way, tmp_path / "x.pth", classifier(), "1 in its state dict is not a name")
    torch.save({"state_dict": 5}, tmp_path / "y.pth")
    refused(way, tmp_path / "y.pth", classifier(), "state_dict is a int, not a dict")


def test_get_model__converts_or_refuses_what_it_is_given(tmp_path):
    path = official(tmp_path / "x.pth")
    wanted = read(path).tensors["cls_token"]
    assert torch.equal(by_get_model(path, classifier()).backbone.cls_token, wanted)
    deeper = classifier(arch=TINY_ARCH | dict(num_layers=5))
    with pytest.raises(ValueError, match=r"another architecture .*layers\.4"):
        by_get_model(path, deeper)
