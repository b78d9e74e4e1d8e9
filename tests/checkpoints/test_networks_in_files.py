"""Files that wrap their weights, hold several networks, or too little of one."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from mim_plugins.checkpoints import convert_file, read, to_official
from mim_plugins.checkpoints.loading import ConvertCheckpointHook, Target, state_for

VIT = dict(type="VisionTransformer", arch=TINY_ARCH, img_size=32, patch_size=8)


@pytest.fixture
def log(monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, "log", lambda _level, message, *_, **__: lines.append(str(message))
    )
    return lines


def timm_encoder():
    model = MODELS.build(VIT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return to_official({f"backbone.{k}": x for k, x in model.state_dict().items()})[0]


def below(prefix, state):
    return {prefix + key: x for key, x in state.items()}


HEAD = {"head.mlp.0.weight": torch.ones(2, 2)}
WRAPPED = {
    "net": lambda s: {"net": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3},
    "model in module": lambda s: {"module": {"model": s}},
    "state_dict_ema": lambda s: {"state_dict_ema": s, "epoch": 3},
    "backbone.": lambda s: below("backbone.", s),
    "backbone. and a head": lambda s: {"state_dict": below("backbone.", s) | HEAD},
    "module.backbone.": lambda s: {"model": below("module.backbone.", s)},
    "teacher with a head": lambda s: {"teacher": below("module.backbone.", s) | HEAD},
    "teacher.backbone.": lambda s: below("teacher.backbone.", s),
    "encoder.": lambda s: {"state_dict": below("encoder.", s) | HEAD},
    "a name nobody knows": lambda s: {"params": s, "optimizer": {"state": {}}},
}


def loaded(path, **options):
    init_cfg = dict(type="Pretrained", checkpoint=str(path), **options)
    model = MODELS.build(VIT | dict(init_cfg=init_cfg))
    model.init_weights()
    return model


@pytest.mark.parametrize("form", WRAPPED)
def test_wrapped_weights__are_found(tmp_path, form):
    state = timm_encoder()
    torch.save(WRAPPED[form](state), tmp_path / "x.pth")
    assert torch.equal(loaded(tmp_path / "x.pth").cls_token, state["cls_token"])
    convert_file(tmp_path / "x.pth", tmp_path / "ours.pth")
    assert torch.equal(loaded(tmp_path / "ours.pth").cls_token, state["cls_token"])


@pytest.mark.parametrize("flat", [False, True])
def test_teacher_and_student__one_is_named_and_key_takes_the_other(tmp_path, log, flat):
    teacher, student = timm_encoder(), timm_encoder()
    content = {"student": student, "teacher": teacher}
    if flat:
        content = below("student.", student) | below("teacher.", teacher)
    torch.save(content, tmp_path / "x.pth")
    assert torch.equal(loaded(tmp_path / "x.pth").cls_token, teacher["cls_token"])
    (table,) = [line for line in log if "converted on load" in line]
    assert "'teacher'" in table and "key='student'" in table
    other = loaded(tmp_path / "x.pth", key="student")
    assert torch.equal(other.cls_token, student["cls_token"])
    convert_file(tmp_path / "x.pth", tmp_path / "ours.pth", key="student")
    ours = read(tmp_path / "ours.pth").tensors["backbone.cls_token"]
    assert torch.equal(ours, student["cls_token"])
    with pytest.raises(ValueError, match=r"x\.pth: .* no network under the key 'net'"):
        loaded(tmp_path / "x.pth", key="net")


def test_too_little__is_refused_unless_it_is_meant(tmp_path, log):
    state = MODELS.build(VIT).state_dict()
    few = {key: x for key, x in state.items() if "layers.3" not in key}
    torch.save(few, tmp_path / "few.pth")
    with pytest.raises(ValueError, match=r"few\.pth .* layers\.3.* are not in it"):
        loaded(tmp_path / "few.pth")
    assert torch.equal(
        loaded(tmp_path / "few.pth", partial=True).cls_token, state["cls_token"]
    )
    assert any("layers.* (12): randomly initialised" in line for line in log)
    official = {k: x for k, x in timm_encoder().items() if "blocks.3" not in k}
    torch.save(official, tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r"layers\.3.* are not in it"):
        loaded(tmp_path / "official.pth")
    loaded(tmp_path / "official.pth", partial=True)
    # Of no known layout: two names that happen to be the model's.
    names = ("cls_token", "pos_embed")
    torch.save({k: state[k] for k in names} | {"x.y": torch.ones(9)}, tmp_path / "2.pt")
    with pytest.raises(ValueError, match="holds .% of the elements .*partial=True"):
        loaded(tmp_path / "2.pt")
    log.clear()
    loaded(tmp_path / "2.pt", partial=True)
    assert any(
        "layers.* (48)" in line and "randomly initialised" in line for line in log
    )


def test_nothing__is_refused_as_what_a_run_starts_from():
    runner = SimpleNamespace(model=MODELS.build(VIT), cfg=dict(load_from="none.pth"))
    for content in ({}, {"state_dict": {}}, {"model": {}, "epoch": 3}):
        with pytest.raises(ValueError, match=r"none\.pth holds no tensors"):
            ConvertCheckpointHook().after_load_checkpoint(runner, content)


def test_own_file_without_prefix__loads_into_an_encoder(tmp_path):
    """Every key starts with `backbone.` or is of another part."""
    model = MODELS.build(tiny_model())
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    own = loaded(tmp_path / "x.pth").state_dict()
    wanted = model.backbone.state_dict()
    assert all(torch.equal(own[key], wanted[key]) for key in own if key in wanted)


@pytest.mark.parametrize("window", [4, 6, 7])
def test_swin_windows__are_resized_for_mmpretrains_class(tmp_path, window):
    arch = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))
    swin = dict(type="SwinTransformer", arch=arch, img_size=192, window_size=6)
    trained = MODELS.build(swin)
    state = state_for(
        Target.of(MODELS.build(swin | dict(window_size=window, pad_small_map=True))),
        read_state(tmp_path, trained.state_dict()),
    )
    key = "stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
    assert len(state[key]) == (2 * window - 1) ** 2


def read_state(folder, state):
    torch.save({"state_dict": state}, folder / "x.pth")
    return read(folder / "x.pth")
