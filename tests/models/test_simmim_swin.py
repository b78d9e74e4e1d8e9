"""SimMIM on Swin: mmpretrain's encoder and head, read block by block, and distilled."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.models import SwinTransformer
from mmpretrain.models.necks import SimMIMLinearDecoder
from mmpretrain.models.selfsup import SimMIMSwinTransformer
from mmpretrain.models.utils import WindowMSA
from mmpretrain.registry import MODELS
from samples import ROOT
from torch import nn
from torch.nn import functional as F

from mim_plugins.checkpoints.layouts.hiera import channels_last
from mim_plugins.models import PatchMask, SimMIMSwin
from mim_plugins.models.backbones.swin import window_shift

ARCH = dict(embed_dims=8, depths=(2, 1, 2, 2), num_heads=(1, 1, 2, 2))
# Maps of 16, 8, 4 and 2 tokens, 2x2 cells; the last two are one window each.
ENCODER = dict(type="SimMIMSwin", arch=ARCH, img_size=64, window_size=4)
TEACHER = dict(ENCODER, arch=dict(ARCH, embed_dims=16, depths=(1, 1, 1, 2)))
LAST = dict(type="AttentionDistillation", student_layers=(7,), teacher_layers=(4,))


def simmim(backbone=None, neck=None, target=None):
    """Config of a tiny SimMIM on 64x64 images."""
    return dict(
        type="DeepMIM",
        mask_sampler=dict(type="RandomPatchMask", mask_ratio=0.6),
        backbone=ENCODER | dict(drop_path_rate=0.0) | (backbone or {}),
        neck=dict(type="SimMIMDecoder", embed_dims=12, num_heads=3) | (neck or {}),
        target_generator=dict(type="PixelTarget", norm_pix=False) | (target or {}),
        head=dict(type="ReconstructionHead", criterion="L1"),
    )


def d2(tmp_path, distillation=LAST):
    """Config of a decoupled student with a trained teacher."""
    teacher = MODELS.build(TEACHER)
    teacher.init_weights()
    state = {f"backbone.{key}": v for key, v in teacher.state_dict().items()}
    torch.save(state, tmp_path / "teacher.pth")
    cfg = simmim(backbone=dict(final_stage=1), target=dict(cell_size=16))
    return cfg | dict(
        type="DistilledMIM",
        teacher=dict(TEACHER),
        teacher_checkpoint=str(tmp_path / "teacher.pth"),
        extra_block=True,
        distillation=[dict(distillation)],
    )


def encoder(**kwargs):
    model = MODELS.build(ENCODER | dict(drop_path_rate=0.0) | kwargs)
    # Biases, tables and a mask token that cannot be missed.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval()
    return model


def draw(batch=2, grid=(2, 2)):
    return PatchMask.from_noise(torch.rand(batch, grid[0] * grid[1]), 0.5, grid)


@pytest.mark.parametrize("ape", [False, True])
def test_encoder__is_mmpretrains_with_and_without_a_mask(ape):
    ours = encoder(use_abs_pos_embed=ape)
    kwargs = dict(
        arch=ARCH,
        img_size=64,
        use_abs_pos_embed=ape,
        stage_cfgs=[dict(window_size=window) for window in (4, 4, 4, 2)],
    )
    images, mask = torch.randn(2, 3, 64, 64), draw()
    theirs = SimMIMSwinTransformer(**kwargs)
    theirs.eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    wanted = theirs(images, mask.at_scale(8).view(2, 16, 16))[0]
    (latent,) = ours(images, mask)
    torch.testing.assert_close(latent.transpose(1, 2).view_as(wanted), wanted)
    assert ours.num_levels == 1 and ours.level_dims == [latent.shape[-1]]
    plain = SwinTransformer(**kwargs)
    plain.eval()
    missing, unexpected = plain.load_state_dict(ours.state_dict(), strict=False)
    assert not missing and unexpected == ["mask_token"]
    assert torch.equal(ours(images)[-1], plain(images)[-1])
    # As if nothing was removed.
    torch.testing.assert_close(
        ours(images, torch.zeros(2, 4))[0].transpose(1, 2).view_as(wanted),
        plain(images)[-1],
    )


def test_encoder__removed_pixels_do_not_matter_on_images_of_any_shape_that_fits():
    model = encoder()
    images = torch.randn(2, 3, 64, 128)
    mask = draw(grid=(2, 4))
    removed = F.interpolate(mask.mask.view(2, 1, 2, 4), scale_factor=32)
    (latent,), (changed,) = (
        model(x, mask)
        for x in (images, images + 100 * removed * torch.randn_like(images))
    )
    assert latent.shape == (2, 8, 64) and torch.equal(latent, changed)


def test_latent__of_an_earlier_stage_is_that_stages_merged_map():
    model = encoder(final_stage=1)
    images, mask = torch.randn(2, 3, 64, 64), draw()
    (latent,) = model(images, mask)
    stream = list(model.stream(images, mask))
    assert [x.shape[1] for x in stream] == [16, 16, 8, 4, 4, 2, 2, 2]
    assert torch.equal(latent, stream[3].flatten(1, 2))
    assert latent.shape == (2, 16, 32)
    assert (model.level_dims, model.level_scales) == ([32], [2])
    assert model.final_block == 2
    # No norm is left that nothing trains.
    assert not [name for name in model.state_dict() if name.startswith("norm")]
    assert len(model.norms) == 7 and len(encoder().norms) == 8


@pytest.mark.parametrize("qk_scale", [None, 0.2])
def test_attention_logits__are_what_each_block_takes_the_softmax_of(qk_scale):
    attn_cfgs = dict(qk_scale=qk_scale)
    model = encoder(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=attn_cfgs)))
    attn_cfgs = dict(attn_cfgs, window_msa=WindowMSA)
    plain = encoder(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=attn_cfgs)))
    plain.load_state_dict(model.state_dict())
    seen = []
    for block in plain.blocks:
        block.attn.w_msa.softmax.register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0])
        )
    images, mask = torch.randn(2, 3, 64, 64), draw()
    stream = list(model.stream(images, mask))
    torch.testing.assert_close(list(plain.stream(images, mask)), stream)
    shifts = []
    for index, (block, tokens) in enumerate(zip(model.blocks, stream, strict=False)):
        logits = model.attention_logits(block, tokens)
        heads, queries, keys, shift = model.attention_shape(index)
        shifts.append(shift)
        assert logits.shape == (2 * queries // keys, heads, keys, keys)
        size = tokens.shape[1:3]
        mask_of = block.attn.get_attn_mask(size, block.attn.window_size, shift)
        if mask_of is not None:
            logits = logits + mask_of[:, None].repeat(2, 1, 1, 1)
        torch.testing.assert_close(logits, seen[index])
        assert model.hidden_shape(index) == (queries, tokens.shape[-1])
    # A map that one window covers has no shift.
    assert shifts == [0, 2, 0, 0, 0, 0, 0]
    assert model.hidden_shape(7) == (4, 64)


def test_loss__is_the_official_one_on_whole_images():
    model = MODELS.build(simmim())
    model.init_weights()
    images, mask = torch.randn(2, 3, 64, 64), draw()
    loss = model.loss(images, dict(mask=mask.mask))["loss"]
    shown = model.reconstruct(images, mask)["levels"][0]
    pixels = F.interpolate(mask.mask.view(2, 1, 2, 2), scale_factor=32)
    wanted = ((shown - images).abs() * pixels).sum() / (pixels.sum() + 1e-5) / 3
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("final_stage", [1, 3])
def test_decoder__predicts_removed_cells_as_all_cells(final_stage, tmp_path):
    model = MODELS.build(d2(tmp_path) if final_stage == 1 else simmim())
    images, mask = torch.randn(2, 3, 64, 64), draw()
    latents = model.backbone(images, mask)
    (some,) = model.neck(latents, mask)
    (every,) = model.neck(latents, mask, masked_only=False)
    assert some.shape == (2, 2, 3 * 32**2) and every.shape == (2, 4, 3 * 32**2)
    torch.testing.assert_close(some, mask.masked(every))


def test_decoder__without_blocks_is_mmpretrains():
    model = MODELS.build(simmim(neck=dict(depth=0)))
    theirs = SimMIMLinearDecoder(in_channels=64, encoder_stride=32)
    # Rows are channel, row, column there.
    for ours, other in zip(
        model.neck.decoder_pred.parameters(), theirs.parameters(), strict=True
    ):
        ours.data.copy_(channels_last(other.data, 3))
    images, mask = torch.randn(2, 3, 64, 64), draw()
    (latent,) = model.backbone(images, mask)
    wanted = theirs(latent.transpose(1, 2).unflatten(2, (2, 2)))
    torch.testing.assert_close(model.reconstruct(images, mask)["levels"][0], wanted)


def test_decoupled__decoder_trains_the_lower_blocks_distillation_all(tmp_path):
    model = MODELS.build(d2(tmp_path))
    model.init_weights()
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "teacher" in name]
    images, mask = torch.randn(2, 3, 64, 64), draw()
    losses = model.loss(images, dict(mask=mask.mask))
    assert sorted(losses) == ["loss_attention", "loss_reconstruction"]

    losses["loss_reconstruction"].backward(retain_graph=True)
    without = {n for n, p in model.named_parameters() if p.grad is None}
    later = ("backbone.stages.2", "backbone.stages.3", "extra_block", "distillation")
    assert without == {name for name in names if name.startswith(later)}

    model.zero_grad()
    losses["loss_attention"].backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {name for name in names if name.startswith("neck")}
    # Only what the logits need exists.
    assert {n.split(".", 1)[1] for n in names if n.startswith("extra_block")} == {
        "norm1.weight",
        "norm1.bias",
        "attn.w_msa.qkv.weight",
        "attn.w_msa.qkv.bias",
        "attn.w_msa.relative_position_bias_table",
    }

    # The definition: both read the same masked images, each with its own mask token.
    teacher = model.teacher.network.encoder
    ours, theirs = (
        encoder.attention_logits(block, list(encoder.stream(images, mask))[index])
        for encoder, block, index in (
            (model.backbone, model.extra_block, 7),
            (teacher, teacher.blocks[4], 4),
        )
    )
    adapter = model.distillation.attention.adapters[0]
    assert adapter.weight.shape == (2, 2, 1, 1)
    torch.testing.assert_close(
        losses["loss_attention"], F.mse_loss(adapter(ours), theirs)
    )


def test_autocast__close_to_float32(tmp_path):
    model = MODELS.build(d2(tmp_path))
    model.init_weights()
    images, mask = torch.randn(2, 3, 64, 64), draw()
    exact = model.loss(images, dict(mask=mask.mask))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(images, dict(mask=mask.mask))
    sum(rough.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for name, loss in rough.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=3e-2, atol=1e-3)


@pytest.mark.parametrize("decoupled", [False, True])
def test_export__loads_into_mmpretrains_classifier(decoupled, tmp_path):
    model = MODELS.build(d2(tmp_path) if decoupled else simmim())
    path = str(tmp_path / "epoch_1.pth")
    torch.save(dict(state_dict=model.state_dict()), path)
    arch = dict(type="SwinTransformer", arch=ARCH, img_size=64)
    arch["stage_cfgs"] = [dict(window_size=window) for window in (4, 4, 4, 2)]
    classifier = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=arch,
            neck=dict(type="GlobalAveragePooling"),
            head=dict(type="LinearClsHead", num_classes=3, in_channels=64),
        )
    )
    state = model.state_dict()
    missing = {n for n in classifier.state_dict() if n not in state}
    head = {"head.fc.weight", "head.fc.bias"}
    final_norm = {"backbone.norm3.weight", "backbone.norm3.bias"}
    # It is randomly initialised also in the official fine-tuning.
    assert missing == head | (final_norm if decoupled else set())
    load_checkpoint(classifier, path)
    for name, value in classifier.backbone.state_dict(prefix="backbone.").items():
        if name not in missing:
            assert torch.equal(value, state[name]), name
    encoder_keys = {n for n in state if n.startswith("backbone.")}
    assert encoder_keys - {"backbone.mask_token"} <= set(classifier.state_dict())


def test_init_weights__as_mmpretrain_and_loaded_ones_stay(tmp_path):
    model = SimMIMSwin(arch=dict(ARCH, embed_dims=32), img_size=64, window_size=4)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias_table", "mask_token", "qkv.weight", "0.0.weight")):
            assert 0.014 < parameter.std() < 0.026, name
        elif name.endswith((".qkv.bias", ".norm1.bias")):
            assert not parameter.any(), name
    state = {f"backbone.{key}": v + 1 for key, v in model.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    init_cfg = dict(
        type="Pretrained",
        checkpoint=str(tmp_path / "weights.pth"),
        prefix="backbone.",
    )
    for given in (init_cfg, [init_cfg]):
        loaded = SimMIMSwin(
            arch=dict(ARCH, embed_dims=32), img_size=64, window_size=4, init_cfg=given
        )
        loaded.init_weights()
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, state[f"backbone.{name}"]), name


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("window", [2, 4])
def test_extra_block__has_the_windows_and_the_start_that_it_says(depth, window):
    # Maps of 4 tokens a side in the last stage: several windows, or one.
    arch = dict(embed_dims=32, depths=(1, 1, 1, depth), num_heads=(1, 1, 2, 2))
    model = SimMIMSwin(arch=arch, img_size=128, window_size=window)
    block = model.attention_only_block()
    heads, tokens, keys, shift = model.attention_shape(len(model.blocks))
    assert (heads, tokens, keys) == (block.attn.w_msa.num_heads, 16, window**2)
    assert shift == window_shift(block, (4, 4)) == int(depth == 1 and window == 2)
    nn.init.constant_(block.attn.w_msa.qkv.bias, 1.0)
    model.init_layers(block)
    assert 0.018 < block.attn.w_msa.qkv.weight.std() < 0.022
    assert 0 < block.attn.w_msa.relative_position_bias_table.abs().max() < 0.1
    assert not block.attn.w_msa.qkv.bias.any()


def test_decoupled__the_extra_block_pairs_with_blocks_of_its_windows(tmp_path):
    big, arch = dict(img_size=128, window_size=2), dict(ARCH, depths=(1, 1, 1, 2))
    encoder, neck = dict(big, arch=arch, final_stage=1), dict(window_size=2)
    cfg = simmim(encoder, neck, target=dict(cell_size=16))
    cfg |= dict(type="DistilledMIM", extra_block=True)
    cfg["teacher"] = MODELS.build(TEACHER | big)
    # Behind two blocks of the last stage, the third is not shifted, as the first.
    cfg["distillation"] = [dict(LAST, student_layers=(5,), teacher_layers=(3,))]
    model = MODELS.build(cfg)
    model.init_weights()
    assert model.extra_block.attn.w_msa.qkv.weight.std() < 0.026
    cfg["distillation"] = [dict(LAST, student_layers=(5,), teacher_layers=(4,))]
    with pytest.raises(ValueError, match="student's layer 5 has .* layer 4"):
        MODELS.build(cfg)


def test_layer_depth__mask_token_and_positions_belong_to_the_embedding():
    model = encoder(use_abs_pos_embed=True)
    depths = {n: model.get_layer_depth(n)[0] for n, _ in model.named_parameters()}
    assert depths["mask_token"] == depths["absolute_pos_embed"] == 0
    assert depths["patch_embed.norm.weight"] == 0
    assert depths["norm3.weight"] == 8


def test_config__removes_30_of_49_cells_as_the_official_generator():
    cfg = Config.fromfile(ROOT / "configs/distilled/simmim_swint_400e.py")
    mask = MODELS.build(cfg.model.mask_sampler)(3, (7, 7))
    assert mask.mask.sum(1).tolist() == [30, 30, 30]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (simmim(backbone=dict(final_stage=4)), "final_stage=4 is out of range"),
        (simmim(backbone=dict(final_stage=True)), "final_stage=True is out of"),
        (simmim(backbone=dict(final_stage=1)), "a token, the side .* divided by 2"),
        (simmim(target=dict(cell_size=16)), r"target 2x2 cells"),
        (simmim(neck=dict(num_heads=5)), "embed_dims=12 .* num_heads=5"),
        (
            simmim(
                backbone=dict(final_stage=1),
                neck=dict(window_size=3),
                target=dict(cell_size=16),
            ),
            "map of 4x4 tokens, which windows of 3",
        ),
        (
            simmim() | dict(neck=dict(type="MultiScaleDecoder", embed_dims=8)),
            "SimMIMSwin gives complete maps, which MultiScaleDecoder does not decode",
        ),
        (
            simmim(backbone=dict(type="MIMSwinTransformer", taps=())),
            "MIMSwinTransformer gives visible tokens alone, which SimMIMDecoder",
        ),
    ],
)
def test_build__what_does_not_fit_is_refused(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_build__layers_of_other_windows_and_other_teachers_are_refused(tmp_path):
    # The same map, but the student's second block is shifted.
    other = dict(LAST, student_layers=(7, 1), teacher_layers=(4, 0))
    with pytest.raises(ValueError, match="student's layer 1 has .* layer 0"):
        MODELS.build(d2(tmp_path, other))
    # Another map.
    other = dict(LAST, student_layers=(7, 0), teacher_layers=(4, 1))
    with pytest.raises(ValueError, match="student's layer 0 has .* layer 1"):
        MODELS.build(d2(tmp_path, other))
    cfg = d2(tmp_path)
    cfg["teacher"] = dict(TEACHER, arch=dict(TEACHER["arch"], embed_dims=24))
    with pytest.raises(ValueError, match="does not hold the teacher's weights"):
        MODELS.build(cfg)
    cfg = d2(tmp_path) | dict(extra_block=False)
    cfg["distillation"] = [dict(LAST, student_layers=(6,))]
    with pytest.raises(
        ValueError, match="nothing would train all of the blocks from 6"
    ):
        MODELS.build(cfg)
