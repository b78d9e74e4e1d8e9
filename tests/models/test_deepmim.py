"""The algorithm: what it returns, what it refuses, what its checkpoints hold."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from samples import TINY_ARCH, tiny_model

from mim_plugins.models import PatchMask


def test_loss__one_level_is_mae_many_are_numbered(build):
    images = torch.randn(2, 3, 32, 32)
    assert list(build(taps=()).loss(images)) == ["loss"]
    losses = build(taps=(1, 2)).loss(images)
    assert list(losses) == ["loss_0", "loss_1", "loss_2"]
    total, logged = build().parse_losses(losses)
    torch.testing.assert_close(total, sum(losses.values()))
    assert torch.equal(logged["loss"], total)


def test_loss__equals_the_masked_mean_of_the_paper(build):
    model = build(taps=(), target_generator=dict(norm_pix=False))
    images = torch.randn(2, 3, 32, 32)
    given = (torch.arange(16) % 4 != 0).float().expand(2, 16)
    mask = PatchMask.from_mask(given, (4, 4))
    full = model.neck(model.backbone(images, mask), mask, masked_only=False)[0]
    patches = images.view(2, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(2, 16, -1)
    per_patch = (full - patches).square().mean(-1)
    wanted = (per_patch * given).sum() / given.sum()
    loss = model.loss(images, dict(mask=given))["loss"]
    torch.testing.assert_close(loss, wanted)


def test_loss__every_trainable_parameter_gets_a_gradient(build):
    model = build()
    sum(model.loss(torch.randn(2, 3, 32, 32)).values()).backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == frozen == {"backbone.pos_embed", "neck.decoder_pos_embed"}


def test_loss__seeds_decide_masks_wherever_the_sample_sits(build):
    model = build()
    images, seeds = torch.randn(4, 3, 32, 32), torch.arange(4)
    batch_loss = model.loss(images, dict(seed=seeds))["loss_0"]
    halves = [
        model.loss(images[i : i + 2], dict(seed=seeds[i : i + 2]))["loss_0"]
        for i in (0, 2)
    ]
    torch.testing.assert_close(batch_loss, sum(halves) / 2)


def test_draw_mask__takes_masks_of_mmpretrain_samples(build):
    model = build()
    given = (torch.arange(16) < 12).view(4, 4).int()
    samples = [DataSample().set_mask(given.numpy()) for _ in range(2)]
    mask = model.draw_mask(torch.randn(2, 3, 32, 32), samples)
    assert torch.equal(mask.mask, given.flatten().float().expand(2, 16))


def test_head__weights_scale_levels(build):
    images, seeds = torch.randn(2, 3, 32, 32), dict(seed=torch.arange(2))
    model = build()
    plain = model.loss(images, seeds)
    model.head.weights = [0.0, 2.0, 1.0]
    scaled = model.loss(images, seeds)
    assert scaled["loss_0"] == 0
    torch.testing.assert_close(scaled["loss_1"], 2 * plain["loss_1"])


def test_loss__float32_under_autocast_and_close(build):
    model, images = build(), torch.randn(2, 3, 32, 32)
    seeds = dict(seed=torch.arange(2))
    exact = model.loss(images, seeds)["loss_2"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(images, seeds)["loss_2"]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=2e-2, atol=0)


def test_reconstruct__non_square_images_in_input_space(build):
    model = build(backbone=dict(img_size=(32, 48)), taps=(1,))
    images = torch.randn(2, 3, 32, 48) + 5
    result = model.reconstruct(images)
    assert [x.shape for x in result["levels"]] == [images.shape] * 2
    # norm_pix undone with the true patches: same mean per patch as the image, roughly.
    assert all(4 < x.mean() < 6 for x in result["levels"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 16), "removes none of the 16 patches, .* nothing to predict"),
        (torch.arange(16)[None] % 4, "the mask is of 1 images, the batch has 2"),
        (torch.zeros(2, 9), r"4x4 patch grid needs \(N, 16\)"),
    ],
)
def test_loss__given_masks_that_cannot_be_are_refused(build, given, message):
    with pytest.raises(ValueError, match=message):
        build().loss(torch.randn(2, 3, 32, 32), dict(mask=given))


def test_reconstruct__shows_images_of_which_nothing_is_removed(build):
    images, nothing = torch.randn(2, 3, 32, 32), torch.zeros(2, 16)
    levels = build().reconstruct(images, nothing)["levels"]
    assert [level.shape for level in levels] == [images.shape] * 3
    with pytest.raises(ValueError, match="the mask is of 2 images, the batch has 1"):
        build().reconstruct(images[:1], nothing)


@pytest.mark.parametrize("mask", [False, True])
def test_reconstruct__bool_mask_is_refused(build, mask):
    with pytest.raises(TypeError, match="None for no masking"):
        build().reconstruct(torch.randn(1, 3, 32, 32), mask)


def test_patch_mean__unmasked_normed_patch_tokens(build):
    model = build(backbone=dict(out_type="raw"))
    images = torch.randn(2, 3, 32, 32)
    wanted = model.backbone(images)[-1][:, 1:].mean(1)
    torch.testing.assert_close(model.patch_mean(images), wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(backbone=dict(in_channels=1)), "mean and std for 3 channels"),
        (dict(head=dict(weights=[1.0])), "1 loss weights for 3 levels"),
        (dict(head=dict(criterion=["L1", "L2"])), "2 criteria for 3 levels"),
        (
            dict(neck=dict(out_dims=7)),
            "predicts 7 values per patch, its target has 192",
        ),
        (dict(neck=dict(in_dims=[24, 24])), "3 entries for 2 levels"),
        (dict(mask_sampler=dict(mask_ratio=0.99)), "keeps none of 16"),
        (dict(head=dict(criterion="L3")), "unknown criterion"),
        (dict(backbone=dict(taps=(7,))), "out of range"),
        (dict(backbone=dict(out_type="avg_featmap")), "never trains"),
        (
            dict(backbone=dict(out_type="raw", with_cls_token=False)),
            "needs an encoder with a class token",
        ),
        (
            dict(head=dict(type="ResidualPairHead")),
            "compared with one target: DeepMIM 1, MIMDecoder 1, ResidualPairHead 2",
        ),
        (
            dict(backbone=dict(taps=(1,), final_block=2)),
            "nothing in DeepMIM would train those after it: leave .*final_block",
        ),
        (dict(head=dict(criterion=None)), "unknown criterion None: choose one of"),
        (dict(head=dict(criterion=[["L2"]] * 3)), r"unknown criterion \['L2'\]"),
        (dict(head=dict(weights=2.0)), "weights is a list with one number .* got 2.0"),
        (dict(head=dict(weights=["a", "b", "c"])), "one number per level; got .*'a'"),
        (dict(head=dict(weights="123")), "one number per level; got '123'"),
        (dict(head=dict(weights=[1, 1, float("nan")])), "one number per level"),
        (dict(head=dict(weights=[])), "0 loss weights for 3 levels"),
    ],
)
def test_build__parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(Exception, match=message) as info:
        MODELS.build(tiny_model(**changes))
    assert isinstance(info.value, ValueError)


def test_init_weights__keeps_what_a_checkpoint_loaded(build, tmp_path):
    source = build()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    path = str(tmp_path / "pretrained.pth")
    torch.save({"state_dict": source.state_dict()}, path)
    target = MODELS.build(
        tiny_model() | dict(init_cfg=dict(type="Pretrained", checkpoint=path))
    )
    target.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("out_type", "final_norm", "initialised"),
    [("cls_token", True, set()), ("avg_featmap", False, {"ln2.weight", "ln2.bias"})],
)
def test_checkpoint__loads_into_mmpretrain_classifier(
    build, tmp_path, out_type, final_norm, initialised
):
    source = build()
    path = str(tmp_path / "pretrained.pth")
    torch.save({"state_dict": source.state_dict()}, path)
    classifier = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="VisionTransformer",
                arch=dict(TINY_ARCH),
                img_size=32,
                patch_size=8,
                out_type=out_type,
                final_norm=final_norm,
            ),
            head=dict(type="LinearClsHead", num_classes=3, in_channels=24),
        )
    )
    needed = {k for k in classifier.state_dict() if k.startswith("backbone.")}
    given = set(source.state_dict())
    assert needed - given == {f"backbone.{k}" for k in initialised}
    load_checkpoint(classifier, path)
    for key in needed & given:
        assert torch.equal(classifier.state_dict()[key], source.state_dict()[key])


def test_targets__one_for_all_equals_a_list_that_names_it_everywhere():
    pixels = dict(type="PixelTarget", norm_pix=True)
    once = MODELS.build(tiny_model())
    each = MODELS.build(tiny_model() | dict(target_generator=[pixels] * 3))
    each.load_state_dict(once.state_dict())
    # Named three times, built once.
    assert len(each.target_generator.targets) == 1
    images, seeds = torch.randn(2, 3, 32, 32), dict(seed=torch.arange(2))
    assert once.loss(images, seeds) == each.loss(images, seeds)


def test_targets__a_level_of_its_own_with_a_criterion_of_its_own():
    pixels = [dict(type="PixelTarget", norm_pix=n) for n in (True, False, True)]
    cfg = tiny_model(head=dict(criterion=["cosine", "L1", "L2"]))
    model = MODELS.build(cfg | dict(target_generator=pixels))
    images, seeds = torch.randn(2, 3, 32, 32), dict(seed=torch.arange(2))
    mask = model.draw_mask(images, seeds)
    predictions = model.neck(model.backbone(images, mask), mask)
    normed, raw, _ = [t.values for t in model.target_generator(images, mask)]
    losses = model.loss(images, seeds)
    unit = torch.nn.functional.normalize
    cosine = (unit(predictions[0], dim=-1) * unit(normed, dim=-1)).sum(-1)
    torch.testing.assert_close(losses["loss_0"], (2 - 2 * cosine).mean())
    torch.testing.assert_close(losses["loss_1"], (predictions[1] - raw).abs().mean())
    torch.testing.assert_close(
        losses["loss_2"], (predictions[2] - normed).square().mean()
    )
