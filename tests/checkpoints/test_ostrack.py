"""Trackers from pre-training, from classifiers, from OSTrack's files, and back."""

import json
import sys
from types import ModuleType

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, golden_folder, laid_out_only, tiny_model
from torch.nn import functional as F

from mim_plugins.checkpoints import convert_file, read, to_official
from mim_plugins.checkpoints.conversion import convert
from mim_plugins.checkpoints.files import save_state


def random_model(cfg):
    model = MODELS.build(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def tracker(checkpoint=None, heads=2, **backbone):
    cfg = dict(
        type="OneStreamTracker",
        backbone=dict(
            type="OneStreamVisionTransformer",
            arch=TINY_ARCH | dict(num_heads=heads),
            img_size=32,
            patch_size=8,
            template_size=24,
            search_size=64,
            elimination_blocks=(1, 2),
            keep_ratios=(0.7, 0.7),
        )
        | backbone,
        head=dict(type="CentreHead", channels=16),
    )
    if checkpoint:
        cfg["backbone"]["init_cfg"] = dict(
            type="Pretrained", checkpoint=str(checkpoint), prefix="backbone."
        )
    return cfg


def tables_of(state):
    """Both position embeddings, from that of 4 x 4 patches and a class token."""
    maps = state["backbone.pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    return [
        F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
        .flatten(2)
        .transpose(1, 2)
        for side in (3, 8)
    ]


def assert_holds(model, state):
    own = model.state_dict()
    for key, value in state.items():
        if key.startswith("backbone.") and key in own:
            assert torch.equal(own[key], value), key
    template, search = tables_of(state)
    assert torch.allclose(own["backbone.template_pos_embed"], template, atol=1e-6)
    assert torch.allclose(own["backbone.search_pos_embed"], search, atol=1e-6)


@pytest.mark.parametrize("way", ["init_cfg", "load_state_dict"])
@pytest.mark.parametrize("kind", ["ours", "official", "classifier"])
def test_tracker__takes_encoders_of_pretraining_and_classifiers(kind, way, tmp_path):
    source = random_model(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="VisionTransformer",
                arch=dict(TINY_ARCH),
                img_size=32,
                patch_size=8,
                out_type="avg_featmap",
                final_norm=False,
            ),
            head=dict(type="LinearClsHead", num_classes=5, in_channels=24),
        )
        if kind == "classifier"
        else tiny_model()
    )
    state = source.state_dict()
    path = tmp_path / "file.pth"
    written = to_official(state)[0] if kind == "official" else state
    save_state(written, path)
    if way == "init_cfg":
        model = MODELS.build(tracker(path))
        model.init_weights()
    else:
        model = MODELS.build(tracker())
        content = torch.load(path, weights_only=True)
        model.load_state_dict(content.get("state_dict", content), strict=False)
    assert_holds(model, state)


def test_positions__come_straight_from_those_of_another_image_size(tmp_path):
    """And are not resized twice."""
    path = tmp_path / "file.pth"
    state = random_model(tiny_model()).state_dict()
    save_state(state, path)
    model = MODELS.build(tracker(path, img_size=48))
    model.init_weights()
    template, _ = tables_of(state)
    own = model.state_dict()["backbone.template_pos_embed"]
    assert torch.allclose(own, template, atol=1e-6)


def test_heads__of_another_number_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    save_state(random_model(tiny_model()).state_dict(), path)
    with pytest.raises(ValueError, match="2 attention heads, the model has 4"):
        MODELS.build(tracker(path, heads=4)).init_weights()


def test_layout__of_ostrack_is_read_and_written(tmp_path):
    model = random_model(tracker())
    official, _ = to_official(model.state_dict())
    assert "backbone.pos_embed_z" in official
    assert "box_head.conv3_offset.1.running_var" in official
    back = convert(official)
    assert back.layout.name == "ostrack"
    assert back.state.keys() == model.state_dict().keys()
    assert all(torch.equal(back.state[k], x) for k, x in model.state_dict().items())


def test_file__of_ostrack_loads_as_it_is(tmp_path):
    """With what its trainer leaves in it, and parallel training's prefix."""
    model = random_model(tracker())
    official, _ = to_official(model.state_dict())
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    net = {f"module.{key}": value for key, value in official.items()}
    torch.save({"epoch": 300, "net": net, "net_type": "OSTrack"}, path)
    other = MODELS.build(tracker())
    other.load_state_dict(read(path).tensors)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    ours, again = tmp_path / "ours.pth", tmp_path / "again.pth"
    convert_file(path, ours)
    convert_file(ours, again, to="official")
    written = torch.load(again, weights_only=True)
    tensors = written.get("model", written)
    assert tensors.keys() == official.keys()
    assert all(torch.equal(tensors[k], x) for k, x in official.items())


def test_file__may_hold_the_statistics_of_ostracks_trainer(tmp_path, monkeypatch):
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    names = ("lib", "lib.train", "lib.train.admin", "lib.train.admin.stats")
    with monkeypatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, ModuleType(name))
        kind = type("AverageMeter", (), {"__module__": names[-1]})
        sys.modules[names[-1]].AverageMeter = kind
        meter = kind()
        meter.avg = 0.5
        official, _ = to_official(random_model(tracker()).state_dict())
        torch.save({"net": official, "stats": {"train": {"IoU": meter}}}, path)
    found = read(path)
    assert found.candidates[0].name == "ostrack"
    assert found.tensors.keys() == official.keys()


def test_keys__are_those_of_the_official_tracker():
    keys = json.loads(
        (golden_folder("maelite/keys") / "ostrack_vit_tiny_256_ce.json").read_text()
    )["tensors"]
    with laid_out_only():
        model = MODELS.build(
            dict(
                type="OneStreamTracker",
                backbone=dict(
                    type="OneStreamVisionTransformer",
                    arch=dict(
                        embed_dims=192,
                        num_layers=12,
                        num_heads=12,
                        feedforward_channels=768,
                    ),
                ),
                head=dict(type="CentreHead", channels=256),
            )
        )
    official, _ = to_official(model.state_dict())
    assert {k: list(x.shape) for k, x in official.items()} == keys


def test_encoder__of_a_tracker_starts_a_classifier(tmp_path):
    path = tmp_path / "tracker.pth"
    model = random_model(tracker())
    save_state(model.state_dict(), path)
    encoder = MODELS.build(
        dict(
            type="VisionTransformer",
            arch=dict(TINY_ARCH),
            img_size=32,
            patch_size=8,
            init_cfg=dict(type="Pretrained", checkpoint=str(path), prefix="backbone."),
        )
    )
    encoder.init_weights()
    key = "layers.0.attn.qkv.weight"
    assert torch.equal(encoder.state_dict()[key], model.state_dict()[f"backbone.{key}"])
