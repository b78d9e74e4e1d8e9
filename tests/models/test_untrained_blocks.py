"""Blocks that no loss depends on are frozen and warned of; training goes on."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from samples import hiera_model, tiny_model

TEACHER = dict(
    type="MIMVisionTransformer",
    arch=dict(embed_dims=32, num_layers=4, num_heads=4, feedforward_channels=64),
    img_size=32,
    patch_size=8,
)
SWIN = dict(
    type="SimMIMSwin",
    arch=dict(embed_dims=8, depths=(2, 1, 2, 2), num_heads=(1, 1, 2, 2)),
    img_size=64,
    window_size=4,
    drop_path_rate=0.0,
)


def simmim(final_stage: int) -> dict:
    """Config of a SimMIM whose decoder reads a stage, zero-based, of four."""
    return dict(
        type="MaskedImageModel",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.6),
        backbone=SWIN | dict(final_stage=final_stage),
        neck=dict(type="SimMIMDecoder", embed_dims=12, num_heads=3),
        target_generator=dict(
            type="PixelTarget", cell_size=16 if final_stage == 1 else 32
        ),
        head=dict(type="ReconstructionHead", criterion="L1"),
    )


def distilled(folder, final_block: int, **layers: int) -> dict:
    """Config of a student whose distillation reads ``feature=layer``."""
    weights = MODELS.build(TEACHER).state_dict()
    path = folder / "teacher.pth"
    torch.save({f"backbone.{key}": value for key, value in weights.items()}, path)
    return tiny_model((), backbone=dict(final_block=final_block)) | dict(
        type="DistilledMIM",
        teacher=TEACHER,
        teacher_checkpoint=str(path),
        distillation=[
            dict(type=f"{feature.title()}Distillation", student_layers=(layer,))
            for feature, layer in layers.items()
        ],
    )


CASES = {
    "vit": (tiny_model((1,), backbone=dict(final_block=2)), "block 3 of"),
    "vit, two blocks": (
        tiny_model((), backbone=dict(final_block=1)),
        "blocks 2 to 3 of",
    ),
    "hiera": (hiera_model(final_stage=2), "blocks 5 to 6 of"),
    "simmim, stage 3 of 4": (simmim(2), "blocks 5 to 6 of"),
    "simmim, stage 2 of 4": (simmim(1), "blocks 3 to 6 of"),
}
DISTILLED = {
    "attention": (dict(attention=3), "all of block 3 of"),
    "attention below the decoder's block": (dict(attention=1), "blocks 2 to 3 of"),
    "hidden": (dict(hidden=2), "all of blocks 2 to 3 of"),
    "both": (dict(attention=3, hidden=2), "all of block 3 of"),
}


@pytest.fixture
def log(caplog):
    MMLogger.get_instance("untrained").addHandler(caplog.handler)
    return caplog


def assert_trains_the_rest(model, log, blocks: str) -> None:
    """All that is trained has a gradient, and something is frozen."""
    assert f"nothing trains {blocks} the encoder (of 0 to" in log.text
    assert "which keeps the weights it starts with there" in log.text
    model.init_weights()
    side = model.backbone.mask_patch_size[0] * model.backbone.grid[0]
    losses = model.loss(torch.randn(2, 3, side, side), dict(seed=torch.arange(2)))
    sum(losses.values()).backward()
    encoder = dict(model.backbone.named_parameters())
    without = {name for name, p in encoder.items() if p.grad is None}
    frozen = {name for name, p in encoder.items() if not p.requires_grad}
    assert without == frozen and frozen - {"pos_embed"}


@pytest.mark.parametrize("case", CASES)
def test_build__freezes_blocks_after_the_latent_and_names_them(case, log):
    cfg, blocks = CASES[case]
    assert_trains_the_rest(MODELS.build(cfg), log, blocks)


@pytest.mark.parametrize("case", DISTILLED)
def test_distillation__freezes_what_it_does_not_reach(case, log, tmp_path):
    layers, blocks = DISTILLED[case]
    model = MODELS.build(distilled(tmp_path, final_block=1, **layers))
    assert_trains_the_rest(model, log, blocks)


def test_build__of_a_model_that_trains_all_says_nothing(log, tmp_path):
    models = [tiny_model(), distilled(tmp_path, final_block=3, attention=3)]
    for cfg in models:
        model = MODELS.build(cfg)
        trained = {n: p.requires_grad for n, p in model.backbone.named_parameters()}
        assert [name for name in trained if not trained[name]] == ["pos_embed"]
    assert not any(record.levelname == "WARNING" for record in log.records)
