"""What distillation refuses when it is built, and says about it."""

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from samples import hiera_model, tiny_model

from mim_plugins.checkpoints import convert_file
from mim_plugins.checkpoints.layouts.deepmim import pretrain_rules

ARCH = dict(embed_dims=32, num_layers=4, num_heads=4, feedforward_channels=64)
TEACHER = dict(type="MIMVisionTransformer", arch=ARCH, img_size=32, patch_size=8)


def student(layers=(3,), term=None, student_parts=None, **options) -> dict:
    terms = [dict(type="AttentionDistillation", student_layers=layers) | (term or {})]
    return (
        tiny_model(**{"taps": (), **(student_parts or {})})
        | dict(type="DistilledMIM", teacher=dict(TEACHER), distillation=terms)
        | options
    )


def weights_of(folder, **changes) -> str:
    """A checkpoint of a teacher that may be another than the one asked for."""
    encoder = MODELS.build(TEACHER | changes)
    path = folder / "teacher.pth"
    torch.save({f"backbone.{k}": v for k, v in encoder.state_dict().items()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(term=dict(teacher_layers=(2, 3))), r"\(3,\) and .*\(2, 3\) differ in n"),
        (dict(layers=()), "has no layers to compare"),
        (dict(layers=3), "student_layers is a list of zero-based .* got 3"),
        (dict(term=dict(weight="1")), "weight is a number of at least 0, got '1'"),
        (dict(term=dict(weight=-1)), "weight is a number of at least 0, got -1"),
        (dict(layers=(3.0,)), r"indices, integers; got \(3.0,\)"),
        (dict(layers=(True,)), r"indices, integers; got \(True,\)"),
        (dict(layers=(3, 3)), r"lists a pair of layers twice.*=\(3, 3\)"),
        (
            dict(layers=(4,), term=dict(teacher_layers=(3,))),
            r"the student has no layer 4 to read attention from: it has layers 0 to 3 "
            r"\(zero-based\); extra_block=True adds layer 4",
        ),
        (
            dict(term=dict(teacher_layers=(12,))),
            "the teacher has no layer 12 to read attention from: it has layers 0 to 3",
        ),
        (
            dict(term=dict(type="HiddenDistillation"), layers=(5,)),
            "the student has no layer 5 to read hidden from: it has layers 0 to 4",
        ),
        (
            dict(teacher=TEACHER | dict(img_size=48)),
            r"the teacher has a grid \(rows, columns\) of \(6, 6\) patches, the student"
            r" .* \(4, 4\)",
        ),
        (
            dict(teacher=TEACHER | dict(img_size=64, patch_size=16)),
            r"the teacher has patches of \(16, 16\) pixels, the student .*\(8, 8\)",
        ),
        (dict(teacher=TEACHER | dict(in_channels=1)), "has 1 image channels, .* 3"),
        (
            dict(teacher=TEACHER | dict(with_cls_token=False, out_type="raw")),
            "the teacher has 0 class tokens, the student 1",
        ),
        (
            dict(teacher=TEACHER | dict(type="VisionTransformer")),
            "the teacher, a VisionTransformer, cannot be read block by block",
        ),
        (
            dict(term=dict(adapter=False)),
            "layer 3 has 2 heads or channels, the teacher's layer 3 4: .*adapter=True",
        ),
        (dict(distillation=[]), "distillation is empty"),
        (
            dict(
                distillation=[dict(type="AttentionDistillation", student_layers=(3,))]
                * 2
            ),
            "two AttentionDistillation: list all layers in one",
        ),
        (dict(extra_block=True), "adds layer 4, which is compared with nothing"),
        (
            dict(student_parts=dict(backbone=dict(final_block=1))),
            "nothing would train all of the blocks from 3 on: the decoder reads block "
            "1 .*set extra_block=True and distil layer 4",
        ),
        (
            dict(student_parts=dict(backbone=dict(final_block=4))),
            "final_block=4 is out of range: the encoder has 4 blocks, 0 to 3",
        ),
        (
            dict(student_parts=dict(taps=(2,), backbone=dict(final_block=1))),
            "tap 2 comes after final_block=1",
        ),
        (dict(), "an untrained teacher teaches nothing: set teacher_checkpoint"),
    ],
)
def test_build__what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(student(**changes))


def test_teacher__that_is_the_student_is_refused():
    encoder = MODELS.build(tiny_model(taps=())["backbone"])
    cfg = student(teacher=encoder) | dict(backbone=encoder)
    with pytest.raises(ValueError, match="has parameters of the student"):
        MODELS.build(cfg)
    assert all(p.requires_grad for p in encoder.layers.parameters())


def test_layers__one_may_teach_two():
    teacher = MODELS.build(TEACHER)
    term = dict(teacher_layers=(3, 3))
    model = MODELS.build(student(layers=(2, 3), term=term, teacher=teacher))
    assert len(model.distillation.attention.adapters) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(arch=ARCH | dict(embed_dims=48)),
            r"of another shape: cls_token \(1, 1, 48\) instead of \(1, 1, 32\)",
        ),
        (dict(arch=ARCH | dict(num_layers=6)), "unexpected: layers.4.attn.proj.bias"),
        (dict(arch=ARCH | dict(num_layers=3)), "missing: layers.3.attn.proj.bias"),
        (dict(img_size=48), r"pos_embed \(1, 37, 32\) instead of \(1, 17, 32\)"),
    ],
)
def test_teacher__a_file_of_the_wrong_size_is_refused_by_name(
    tmp_path, changes, message
):
    path = weights_of(tmp_path, **changes)
    with pytest.raises(ValueError, match=f"teacher.pth does not hold.*{message}"):
        MODELS.build(student(teacher_checkpoint=path))


def official_mae(folder):
    """An official MAE of MAE-Lite's width, with one block, its decoder with two."""
    arch = dict(embed_dims=192, num_layers=1, num_heads=12, feedforward_channels=8)
    neck = dict(embed_dims=8, depth=2, num_heads=1)
    model = MODELS.build(tiny_model(taps=(), backbone=dict(arch=arch), neck=neck))
    model.init_weights()
    path = folder / "mae.safetensors"
    save_file(pretrain_rules(None).convert(model.state_dict(), to="official"), path)
    return model, str(path)


def test_teacher__official_layouts_are_converted_and_only_the_encoder_is_taken(
    tmp_path,
):
    mae, path = official_mae(tmp_path)
    arch = dict(mae.backbone.arch_settings)
    model = MODELS.build(
        student(
            term=dict(teacher_layers=(0,)),
            teacher=TEACHER | dict(arch=arch),
            teacher_checkpoint=path,
        )
    )
    network = model.teacher.network.encoder
    for key, value in mae.backbone.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


@pytest.mark.parametrize("converted", [False, True])
def test_teacher__with_three_heads_official_weights_are_refused(tmp_path, converted):
    mae, path = official_mae(tmp_path)
    if converted:
        convert_file(path, tmp_path / "ours.pth")
        path = str(tmp_path / "ours.pth")
    arch = dict(mae.backbone.arch_settings, num_heads=3)
    with pytest.raises(ValueError, match="trained with 12 attention heads, .* has 3"):
        MODELS.build(
            student(
                term=dict(teacher_layers=(0,)),
                teacher=TEACHER | dict(arch=arch),
                teacher_checkpoint=path,
            )
        )


def test_teacher__an_official_file_of_another_size_is_neither_resized_nor_cut(tmp_path):
    mae, path = official_mae(tmp_path)
    arch = dict(mae.backbone.arch_settings)
    cfg = student(term=dict(teacher_layers=(0,)), teacher_checkpoint=path)
    cfg["backbone"] = cfg["backbone"] | dict(img_size=48)
    cfg["teacher"] = TEACHER | dict(arch=arch, img_size=48)
    with pytest.raises(
        ValueError, match=r"pos_embed \(1, 17, 192\) instead of \(1, 37"
    ):
        MODELS.build(cfg)
    # No key of a complete autoencoder may be left over either.
    autoencoder = dict(tiny_model(taps=(), backbone=dict(arch=arch)))
    autoencoder["neck"] = dict(type="MIMDecoder", embed_dims=8, depth=1, num_heads=1)
    target = dict(type="HybridTarget", alpha=0, teacher=autoencoder, checkpoint=path)
    with pytest.raises(
        ValueError, match="unexpected: neck.decoders.0.decoder_blocks.1"
    ):
        MODELS.build(tiny_model(taps=()) | dict(target_generator=target))


def test_teacher__a_bare_encoder_of_ours_is_a_teacher_too(tmp_path):
    encoder = MODELS.build(TEACHER)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    cfg = student(teacher_checkpoint=tmp_path / "encoder.pth")
    network = MODELS.build(cfg).teacher.network.encoder
    assert torch.equal(network.cls_token, encoder.cls_token)


def test_teacher__of_complete_maps_for_visible_units_is_refused():
    arch = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    teacher = dict(type="SimMIMSwin", arch=arch, img_size=64, window_size=4)
    cfg = hiera_model() | dict(
        type="DistilledMIM",
        teacher=teacher,
        distillation=[dict(type="HiddenDistillation", student_layers=(0,))],
    )
    with pytest.raises(
        ValueError, match="SimMIMSwin, encodes complete maps, the student"
    ):
        MODELS.build(cfg)
