"""MAE on Hiera: the fused decoder, losses, distillation, and what is refused."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_HIERA, hiera_model
from torch.nn import functional as F

from mim_plugins.checkpoints.layouts.hiera import convert_to_official
from mim_plugins.models import Hiera, PatchMask


def test_pretraining__trains_every_parameter_and_shows_its_images():
    model = MODELS.build(hiera_model())
    model.init_weights()
    images = torch.randn(2, 3, 64, 64)
    # 2 of 4 units are kept: int(4 * 0.6).
    loss = model.loss(images, dict(seed=torch.arange(2)))
    assert list(loss) == ["loss"]
    loss["loss"].backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    shown = model.reconstruct(images, torch.tensor([[1, 0, 1, 0]] * 2))
    assert model.level_names == ["prediction"]
    assert [level.shape for level in shown["levels"]] == [images.shape]


def test_pretraining__its_encoder_is_the_classifiers():
    model = MODELS.build(hiera_model())
    classifier = Hiera(arch=TINY_HIERA, img_size=64)
    missing, unexpected = classifier.load_state_dict(
        model.backbone.state_dict(), strict=False
    )
    assert missing == ["ln2.weight", "ln2.bias"] and not unexpected


def test_fusion__is_the_convolution_of_the_maps():
    model = MODELS.build(hiera_model())
    images, mask = (
        torch.randn(2, 3, 64, 64),
        PatchMask.from_noise(torch.rand(2, 4), 0.5, (2, 2)),
    )
    latents = model.backbone(images, mask)
    fused = latents[-1].unflatten(1, (2, 2, 2)).permute(0, 1, 4, 2, 3).flatten(0, 1)
    for conv, latent, side in zip(model.neck.fusion, latents, (8, 4), strict=False):
        units = latent.unflatten(1, (2, side, side)).permute(0, 1, 4, 2, 3)
        fused = fused + conv(units.flatten(0, 1))
    wanted = fused.unflatten(0, (2, 2)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    torch.testing.assert_close(model.neck.fuse(latents), wanted)


def test_decoder__equals_the_form_on_whole_maps():
    model = MODELS.build(hiera_model(img_size=(64, 96)))
    model.init_weights()
    decoder = model.neck.decoders[0]
    torch.nn.init.normal_(decoder.pos_embed)
    images = torch.randn(2, 3, 64, 96)
    mask = PatchMask.from_noise(torch.rand(2, 6), 0.5, (2, 3))
    latents = model.backbone(images, mask)
    visible = decoder.decoder_embed(model.neck.fusion_norm(model.neck.fuse(latents)))
    # Mask tokens everywhere, visible units in their place, 4 x 6 tokens row by row.
    units = decoder.mask_token.expand(2, 6, 4, -1).clone()
    for image in range(2):
        units[image, mask.ids_keep[image]] = visible[image].view(3, 4, -1)
    tokens = units.view(2, 2, 3, 2, 2, -1).transpose(2, 3).flatten(1, 4)
    tokens = tokens + decoder.pos_embed
    for block in decoder.decoder_blocks:
        tokens = block(tokens)
    wanted = decoder.decoder_pred(decoder.ln1(tokens))
    (ours,) = model.neck(latents, mask, masked_only=False)
    ours = ours.view(2, 2, 3, 2, 2, -1).transpose(2, 3).flatten(1, 4)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


def test_autocast__close_to_float32():
    model, images = MODELS.build(hiera_model()), torch.randn(2, 3, 64, 64)
    model.init_weights()
    exact = model.loss(images, dict(seed=torch.arange(2)))["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(images, dict(seed=torch.arange(2)))["loss"]
    rough.backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=1e-2, atol=0)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_predictions__of_removed_units_equal_those_of_all():
    model = MODELS.build(hiera_model())
    model.init_weights()
    images = torch.randn(2, 3, 64, 64)
    mask = PatchMask.from_noise(torch.rand(2, 4), 0.4, (2, 2))
    latents = model.backbone(images, mask)
    (some,), (every,) = (
        model.neck(latents, mask),
        model.neck(latents, mask, masked_only=False),
    )
    assert some.shape == (2, 2, 4 * 768) and every.shape == (2, 4, 4 * 768)
    torch.testing.assert_close(some, mask.masked(every), rtol=1e-5, atol=1e-5)


def test_other_methods__levels_by_config():
    cfg = hiera_model(taps=(0, 1, 2)) | dict(
        type="LocalMIM",
        neck=dict(type="MultiScaleDecoder", embed_dims=8, depth=1, num_heads=2),
        target_generator=dict(type="HOGTarget", nbins=4),
    )
    losses = MODELS.build(cfg).loss(torch.randn(2, 3, 64, 64))
    assert sorted(losses) == [f"loss_{level}" for level in range(4)]
    assert all(loss.isfinite() for loss in losses.values())


def test_distillation__teaches_the_last_attention_from_metas_file(tmp_path):
    # As in Meta's file, with the decoder; the teacher has other depths and more heads.
    arch = TINY_HIERA | dict(depths=(1, 1, 2, 2), num_heads=2)
    teacher = MODELS.build(hiera_model(arch=arch))
    teacher.init_weights()
    state = convert_to_official(teacher.state_dict())
    torch.save(dict(epoch=400, model_state=state), tmp_path / "teacher.pth")
    cfg = hiera_model() | dict(
        type="DistilledMIM",
        teacher=dict(type="MIMHiera", arch=arch, img_size=64),
        teacher_checkpoint=str(tmp_path / "teacher.pth"),
        distillation=[
            dict(type="AttentionDistillation", student_layers=[6], teacher_layers=[5])
        ],
    )
    model = MODELS.build(cfg)
    model.init_weights()
    adapter = model.distillation.attention.adapters[0]
    assert adapter.weight.shape == (16, 8, 1, 1)
    images, seeds = torch.randn(2, 3, 64, 64), torch.arange(2)
    losses = model.loss(images, dict(seed=seeds))
    assert sorted(losses) == ["loss_attention", "loss_reconstruction"]
    sum(losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]

    mask = model.draw_mask(images, dict(seed=seeds))
    logits = [
        encoder.attention_logits(
            encoder.blocks[-1], list(encoder.stream(images, mask))[-2]
        )
        for encoder in (model.backbone, teacher.backbone)
    ]
    wanted = F.mse_loss(adapter(logits[0]), logits[1])
    torch.testing.assert_close(losses["loss_attention"], wanted)

    # The teacher's layer 1 attends inside units.
    cfg["distillation"][0]["teacher_layers"] = [1]
    with pytest.raises(ValueError, match="student's layer 6 has .* tokens"):
        MODELS.build(cfg)


def test_decoupled__the_decoder_reads_an_earlier_stage(tmp_path):
    teacher = MODELS.build(hiera_model())
    teacher.init_weights()
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    cfg = hiera_model(final_stage=2) | dict(
        type="DistilledMIM",
        teacher=hiera_model()["backbone"],
        teacher_checkpoint=str(tmp_path / "teacher.pth"),
        extra_block=True,
        distillation=[
            dict(type="AttentionDistillation", student_layers=[7], teacher_layers=[6])
        ],
    )
    model = MODELS.build(cfg)
    model.init_weights()
    encoder, images = model.backbone, torch.randn(2, 3, 64, 64)
    assert (encoder.final_block, encoder.level_dims) == (4, [8, 16, 32])
    losses = model.loss(images, dict(seed=torch.arange(2)))
    assert sorted(losses) == ["loss_attention", "loss_reconstruction"]
    losses["loss_reconstruction"].backward(retain_graph=True)
    last = encoder.blocks[5].attn.qkv.weight
    assert last.grad is None and encoder.blocks[4].attn.qkv.weight.grad is not None
    losses["loss_attention"].backward()
    assert last.grad is not None

    # All blocks of the encoder are kept.
    plain = MODELS.build(hiera_model())
    plain.backbone.load_state_dict(encoder.state_dict())
    features, wanted = (m.image_features(images) for m in (model, plain))
    torch.testing.assert_close(features.patch, wanted.patch)
    assert features.patch.shape == (2, 16, 64)

    plain = hiera_model(final_stage=2)
    with pytest.raises(ValueError, match="nothing in DeepMIM would train those after"):
        MODELS.build(plain)
    for stage, message in ((4, "out of range: .* 4 stages"), (1, "tap 1 does not lie")):
        with pytest.raises(ValueError, match=message):
            MODELS.build(hiera_model(final_stage=stage, taps=(0, 1)))


def test_bad_parts__are_refused_at_build():
    cfg = hiera_model()
    cfg["backbone"]["out_type"] = "avg_featmap"
    with pytest.raises(ValueError, match="avg_featmap"):
        MODELS.build(cfg)
    cfg = hiera_model()
    cfg["mask_sampler"]["mask_ratio"] = 0.9
    with pytest.raises(ValueError, match="keeps none of 4 patches"):
        MODELS.build(cfg)
    cfg = hiera_model() | dict(
        neck=dict(type="MIMDecoder", embed_dims=8, depth=1, num_heads=2)
    )
    with pytest.raises(ValueError, match="class token"):
        MODELS.build(cfg)
    cfg = hiera_model()
    cfg["neck"]["level_scales"] = (8, 3, 2)
    with pytest.raises(ValueError, match=r"\[8, 3, 2\].* cannot be fused"):
        MODELS.build(cfg)
