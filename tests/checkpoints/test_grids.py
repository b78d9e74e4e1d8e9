"""Position embeddings of oblong images keep their grid on every way."""

import math

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, hiera_model, tiny_model

from mim_plugins.checkpoints import convert_file, read
from mim_plugins.checkpoints.loading import Target, state_for

VIT = dict(type="MIMVisionTransformer", arch=TINY_ARCH, patch_size=8)
PLAIN = VIT | dict(type="VisionTransformer")
OBLONG = (72, 128)  # 9 x 16 patches, as many as 12 x 12


def ramp(rows, cols, width=24):
    """A position embedding that says where each patch is: its row and its column."""
    row, col = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(cols) + 0.5) / cols,
        indexing="ij",
    )  # fmt: skip
    table = torch.zeros(1, 1 + rows * cols, width)
    table[0, 1:, 0], table[0, 1:, 1] = row.flatten(), col.flatten()
    return table


def trained(img_size=OBLONG, **changes):
    model = MODELS.build(VIT | dict(img_size=img_size) | changes)
    with torch.no_grad():
        model.pos_embed.copy_(ramp(*model.patch_resolution))
    return model


def check(table, rows, cols, extra=1):
    """Inside, where no edge is repeated, the positions say where their patches are."""
    found = table[0, extra:, :2].view(rows, cols, 2)[2:-2, 2:-2]
    wanted = ramp(rows, cols)[0, 1:, :2].view(rows, cols, 2)[2:-2, 2:-2]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "oblong.pth"
    torch.save({"state_dict": trained().state_dict()}, path)
    return path


def loaded(path, cfg, **options):
    init_cfg = dict(type="Pretrained", checkpoint=str(path), **options)
    model = MODELS.build(cfg | dict(init_cfg=init_cfg))
    model.init_weights()
    return model


@pytest.mark.parametrize("base", [VIT, PLAIN], ids=["ours", "mmpretrain's"])
@pytest.mark.parametrize("size", [(144, 256), (96, 96), (128, 256)])
def test_recorded_grid__is_what_the_positions_are_resized_from(file, base, size):
    assert read(file).grid() == (9, 16)
    model = loaded(file, base | dict(img_size=size))
    check(model.pos_embed, size[0] // 8, size[1] // 8)


def test_recorded_grid__reaches_detectors_and_other_encoders(file):
    detector = dict(type="ViTDet", arch=TINY_ARCH, patch_size=8)
    model = loaded(file, detector | dict(pretrain_img_size=(144, 256)))
    check(model.pos_embed, 18, 32, extra=0)
    same = loaded(file, detector | dict(pretrain_img_size=OBLONG))
    check(same.pos_embed, 9, 16, extra=0)


def test_recorded_grid__stays_through_conversions(file, tmp_path):
    for name in ("ours.pth", "ours.safetensors"):
        convert_file(file, tmp_path / name, img_size=(144, 256))
        assert read(tmp_path / name).grid() == (18, 32)
        check(read(tmp_path / name).tensors["backbone.pos_embed"], 18, 32)
    convert_file(file, tmp_path / "same.pth", img_size=OBLONG)
    table = read(tmp_path / "same.pth").tensors["backbone.pos_embed"]
    assert torch.equal(table, ramp(9, 16))
    convert_file(file, tmp_path / "square.pth", img_size=(96, 96))
    check(read(tmp_path / "square.pth").tensors["backbone.pos_embed"], 12, 12)
    report = convert_file(file, tmp_path / "timm.pth", to="timm")[-1]
    assert any("img_size=(72, 128)" in note for note in report.notes)
    with pytest.raises(ValueError, match="records images of 72x128"):
        convert_file(file, tmp_path / "x.pth", img_size=(96, 96), old_size=(96, 96))


def test_hiera__of_oblong_images(tmp_path):
    model = MODELS.build(hiera_model(img_size=(64, 256)))
    grid = model.backbone.position_grid
    assert math.isqrt(math.prod(grid)) ** 2 == math.prod(grid) and grid[0] != grid[1]
    width = model.backbone.pos_embed.shape[-1]
    with torch.no_grad():
        model.backbone.pos_embed.copy_(ramp(*grid, width)[:, 1:])
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    other = MODELS.build(hiera_model(img_size=(128, 256)))
    state = state_for(Target.of(other), read(tmp_path / "x.pth"))
    check(state["backbone.pos_embed"], *other.backbone.position_grid, extra=0)


@pytest.fixture
def log(monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: lines.append(str(message))
    )
    return lines


def test_file_without_a_record__config_or_a_note_about_the_assumption(tmp_path, log):
    plain = MODELS.build(PLAIN | dict(img_size=OBLONG))
    with torch.no_grad():
        plain.pos_embed.copy_(ramp(9, 16))
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "x.pth")
    assert read(tmp_path / "x.pth").grid() is None
    larger = PLAIN | dict(img_size=(144, 256))
    model = loaded(tmp_path / "x.pth", larger, pretrain_img_size=OBLONG)
    check(model.pos_embed, 18, 32)
    loaded(tmp_path / "x.pth", larger)
    assert any("square image's 12x12 patches; if not" in line for line in log)
    with pytest.raises(ValueError, match="not those of the 12x16 patches"):
        loaded(tmp_path / "x.pth", larger, pretrain_img_size=(96, 128))
    with pytest.raises(ValueError, match="70x128 pixels do not divide into patches"):
        loaded(tmp_path / "x.pth", larger, pretrain_img_size=(70, 128))


def test_eight_by_sixteen__becomes_sixteen_by_thirty_two(tmp_path):
    """No square grid, so that mmpretrain's own resizing fails an assertion."""
    for base in (VIT, PLAIN):
        model = MODELS.build(base | dict(img_size=(64, 128)))
        with torch.no_grad():
            model.pos_embed.copy_(ramp(8, 16))
        torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
        wider = loaded(tmp_path / "x.pth", PLAIN | dict(img_size=(128, 256)))
        check(wider.pos_embed, 16, 32)


def test_models_of_ours__resize_what_they_are_given(tmp_path):
    """As get_model and load_checkpoint hand it on."""
    whole = MODELS.build(tiny_model(backbone=dict(img_size=OBLONG)))
    with torch.no_grad():
        whole.backbone.pos_embed.copy_(ramp(9, 16))
    larger = MODELS.build(tiny_model(backbone=dict(img_size=(144, 256))))
    state = {k: x for k, x in whole.state_dict().items() if "backbone" in k}
    given = type(whole.state_dict())(state)
    given._metadata = whole.state_dict()._metadata
    larger.load_state_dict(given, strict=False)
    check(larger.backbone.pos_embed, 18, 32)
