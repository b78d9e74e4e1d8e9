"""Hybrid targets: the mix, the frozen teacher, and what does not fit."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from samples import clip_state_dict, tiny_model

from mim_plugins.checkpoints.layouts.deepmim import pretrain_rules
from mim_plugins.models import PatchMask


@pytest.fixture
def teacher(build, tmp_path):
    """A tiny MAE and the file of its weights."""
    model = build(taps=())
    path = tmp_path / "teacher.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return model, path


def student(path, alpha=(0, 0.5, 1), teacher_changes=None, **changes) -> dict:
    target = dict(
        type="HybridTarget",
        alpha=alpha,
        teacher=tiny_model(taps=(), **(teacher_changes or {})),
        checkpoint=str(path),
    )
    return tiny_model(**changes) | dict(target_generator=target)


def test_forward__mixes_pixels_and_the_teacher_on_the_same_mask(teacher):
    mae, path = teacher
    model = MODELS.build(student(path))
    images = torch.randn(2, 3, 32, 32)
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.75, (4, 4))
    with torch.no_grad():
        predicted = mae.neck(mae.backbone(images, mask), mask)[0]
    true = mae.target_generator(images, mask)[0].values
    targets = [t.values for t in model.target_generator(images, mask)]
    torch.testing.assert_close(targets[0], predicted)
    torch.testing.assert_close(targets[1], (predicted + true) / 2)
    assert torch.equal(targets[2], true)
    assert not any(t.requires_grad for t in targets)
    shown = model.reconstruct(images, mask)["levels"]
    assert [level.shape for level in shown] == [images.shape] * 3
    assert model.normalises_patches


def test_forward__takes_images_of_another_type(teacher):
    """As fully sharded training hands them over, which casts the images."""
    target = MODELS.build(student(teacher[1])).target_generator
    images = torch.randn(2, 3, 32, 32).bfloat16()
    mask = PatchMask.from_noise(torch.rand(2, 16), 0.75, (4, 4))
    same, wanted = target.predict(images, mask), target.predict(images.float(), mask)
    assert torch.equal(same, wanted)


def test_teacher__is_no_part_of_the_model(teacher, build):
    _, path = teacher
    model = MODELS.build(student(path))
    model.init_weights()
    model.train()
    plain = build()
    assert model.state_dict().keys() == plain.state_dict().keys()
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in plain.named_parameters()]
    network = model.target_generator.teacher.network
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    # Loaded, and left alone by init_weights.
    assert torch.equal(
        network.backbone.cls_token, teacher[0].state_dict()["backbone.cls_token"]
    )
    sum(model.loss(torch.randn(2, 3, 32, 32)).values()).backward()
    assert all(p.grad is None for p in network.parameters())


def test_teacher__follows_the_device_and_is_shared_by_copies_that_stay(teacher):
    def network(model):
        return model.target_generator.teacher.network

    model = MODELS.build(student(teacher[1]))
    stays, goes = copy.deepcopy(model), copy.deepcopy(model)
    # A move to where the network is already costs nothing either.
    assert network(stays.to("cpu")) is network(goes) is network(model)
    goes.to("meta")
    assert network(goes).backbone.cls_token.is_meta
    assert network(stays) is network(model)
    model.to(torch.float64)
    assert network(model).backbone.cls_token.dtype == torch.float64
    assert network(stays).backbone.cls_token.dtype == torch.float32
    # Alone, it moves in place.
    alone = network(model)
    assert network(model.to("meta")) is alone and alone.backbone.cls_token.is_meta


def test_checkpoint__official_layout_is_converted(teacher, tmp_path):
    mae, _ = teacher
    official = pretrain_rules(None).convert(mae.state_dict(), to="official")
    save_file(official, tmp_path / "mae.safetensors")
    model = MODELS.build(student(tmp_path / "mae.safetensors"))
    network = model.target_generator.teacher.network
    for key, value in mae.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(alpha=(0, 1)), "targets for 2 levels, the model has 3: give one value"),
        (dict(alpha=(0, 0.5, 1.5)), "lies between 0 .* and 1 .*; got 1.5"),
        (
            dict(teacher_changes=dict(neck=dict(depth=3))),
            "does not hold the teacher's weights.*missing: neck.decoders.0.decoder_bl",
        ),
        (
            dict(teacher_changes=dict(neck=dict(embed_dims=8))),
            "of another shape.*instead of",
        ),
        (
            dict(backbone=dict(patch_size=16)),
            r"patches of \(8, 8\) pixels, the student of \(16, 16\)",
        ),
        (
            dict(data_preprocessor=dict(std=[127.5] * 3)),
            "teacher's data_preprocessor has std=",
        ),
        (
            dict(data_preprocessor=dict(bgr_to_rgb=True)),
            r"reverses the channels of its images \(the student: bgr_to_rgb=True\)",
        ),
        (dict(alpha="0.5"), "alpha is one share of the true patch.*; got '0.5'"),
        (dict(alpha=None), "alpha is one share of the true patch.*; got None"),
        (dict(alpha=(0, "1", 1)), "or a list with one per level; got "),
        (dict(path=None), "no teacher checkpoint None: set target_generator.checkpo"),
    ],
)
def test_build__what_does_not_fit_is_refused(teacher, options, message):
    cfg = student(teacher[1], **{k: v for k, v in options.items() if k != "path"})
    if "path" in options:
        cfg["target_generator"]["checkpoint"] = options["path"]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        MODELS.build(cfg)


PAIRS = tiny_model(taps=(1,), backbone=dict(tap_embedding=True)) | dict(
    type="MIRL",
    neck=dict(type="MIRLDecoder", embed_dims=16, num_heads=2),
    head=dict(type="ResidualPairHead"),
)
LARGE_CELLS = tiny_model(taps=()) | dict(
    type="LocalMIM",
    scales=[0.5],
    neck=dict(type="MultiScaleDecoder", embed_dims=16, num_heads=2),
)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PAIRS, "a MIRL cannot be the teacher, whose deepest prediction has to be a c"),
        (LARGE_CELLS, "the teacher has one cell for 2 patches per axis"),
    ],
)
def test_build__teachers_of_less_than_complete_patches_are_refused(
    model, message, tmp_path
):
    path = tmp_path / "teacher.pth"
    torch.save(MODELS.build(model).state_dict(), path)
    cfg = student(path)
    cfg["target_generator"]["teacher"] = model
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_build__a_file_that_is_no_masked_autoencoders_is_named(tmp_path):
    path = tmp_path / "clip.pth"
    torch.save(clip_state_dict(), path)
    with pytest.raises(ValueError, match="clip.pth does not hold .* missing: backbone"):
        MODELS.build(student(path))
