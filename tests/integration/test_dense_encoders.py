"""Pre-trained encoders load completely into detection and segmentation backbones."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from samples import ROOT

pytest.importorskip("mmcv._ext")

NARROW = dict(embed_dims=24, num_heads=2, feedforward_channels=48)
HEADS = dict(num_heads=[1, 2, 4, 8])
VIT = {
    "detection": {"rel_pos_h", "rel_pos_w"},
    "segmentation": {
        "gamma_1",
        "gamma_2",
        "relative_position_bias_table",
        "relative_position_index",
    },
}
# The norms of maps that pre-training does not read.
NORMS = {"norm0", "norm1", "norm2"}

# Pre-training; the stem of what comes then, without a head; the narrow architecture;
# new parts, by the ends of their names.
CASES = [
    ("mae/vitb_1600e", "mae/{}/vitb", dict(NARROW, num_layers=12), VIT),
    ("deepmim/mae_vitl_1600e", "deepmim/{}/mae_vitl", dict(NARROW, num_layers=24), VIT),
    (
        "localmim/swinl_hog_800e",
        "localmim/{}/swinl_hog_800e",
        dict(embed_dims=8, depths=[2, 2, 18, 2], **HEADS),
        NORMS,
    ),
    ("mirl/vitb24_300e", "mirl/{}/vitb24_300e", dict(NARROW, num_layers=24), VIT),
    (
        "distilled/d2-mae_vits_400e",
        "distilled/{}/d2-mae_vits",
        dict(NARROW, num_layers=12),
        VIT,
    ),
    (
        "distilled/mae_hierat_400e",
        "distilled/{}/mae_hierat",
        dict(embed_dims=8, depths=(1, 2, 7, 2), num_heads=1),
        set(),
    ),
    (
        "distilled/simmim_swint_400e",
        "distilled/{}/simmim_swint",
        dict(embed_dims=8, depths=[2, 2, 6, 2], **HEADS),
        NORMS,
    ),
    (
        "distilled/d2-simmim_swint_400e",
        "distilled/{}/d2-simmim_swint",
        dict(embed_dims=8, depths=[2, 2, 6, 2], **HEADS),
        # Decoupled pre-training has no norm after the last stage.
        NORMS | {"norm3"},
    ),
]


@pytest.mark.parametrize("task", sorted(VIT))
@pytest.mark.parametrize(
    ("before", "stem", "arch", "new"), CASES, ids=[case[0] for case in CASES]
)
def test_encoder__lacks_nothing_but_what_pre_training_does_not_have(
    before, stem, arch, new, task, tmp_path
):
    backbone = Config.fromfile(ROOT / f"configs/{before}.py").model.backbone
    backbone.arch = arch
    encoder = MODELS.build(backbone)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    state = encoder.state_dict()
    path = tmp_path / "pretrained.pth"
    torch.save({"state_dict": {f"backbone.{k}": x for k, x in state.items()}}, path)

    heads = ("mask-rcnn_coco", "upernet_ade20k", "semantic-fpn_ade20k")
    paths = [ROOT / f"configs/{stem.format(task)}_{head}.py" for head in heads]
    [config] = [path for path in paths if path.exists()]
    dense = Config.fromfile(config).model.backbone
    for part in ("num_layers", "depths"):  # the lengths are the configs' own
        assert list_of(dense.arch, part) in (None, list_of(arch, part))
    dense.arch = arch
    dense.init_cfg.checkpoint = str(path)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(dense)
        model.init_weights()
    own = model.state_dict()
    fresh = own.keys() - state.keys()
    new = new[task] if isinstance(new, dict) else new
    assert {part for part in new for key in fresh if part in key.split(".")} == new
    assert all(new & set(key.split(".")) for key in fresh)
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            assert key == "pos_embed"  # resized to larger images
        else:
            assert torch.equal(own[key], state[key]), key


def list_of(arch, part):
    value = arch.get(part) if isinstance(arch, dict) else None
    return list(value) if isinstance(value, list | tuple) else value
