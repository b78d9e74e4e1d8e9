"""MIRL: what feeds what, what it predicts with, what it refuses."""

from copy import deepcopy

import clip_files
import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, tiny_model

from dev.benchmarks.timing import saved_bytes
from mim_plugins.models import PatchMask, ResidualPairHead
from mim_plugins.models.necks.mirl import weight_norm_of
from mim_plugins.models.targets import LevelTarget


def mirl_cfg(**overrides):
    """A tiny MIRL of four segments of one block, on 32x32 images, patch 8."""
    cfg = tiny_model(taps=(0, 1, 2), backbone=dict(tap_embedding=True))
    cfg |= dict(
        type="MIRL",
        neck=dict(type="MIRLDecoder", embed_dims=16, depth=2, num_heads=2),
        head=dict(type="ResidualPairHead"),
    )
    for part, changes in overrides.items():
        other = not isinstance(changes, dict) or "type" in changes
        cfg[part] = changes if other else {**cfg[part], **changes}
    return cfg


@pytest.fixture
def mirl():
    """Builds and initialises a tiny MIRL."""

    def build(**overrides):
        model = MODELS.build(mirl_cfg(**overrides))
        model.init_weights()
        return model

    return build


def some_mask(model, images):
    return model.mask_sampler(len(images), (4, 4), images.device, torch.arange(2))


def test_loss__is_the_mean_over_the_pairs_of_sums(mirl):
    model, images = mirl(), torch.randn(2, 3, 32, 32)
    mask = some_mask(model, images)
    a, b, c, d = model.neck(model.backbone(images, mask), mask)
    target = model.target_generator(images, mask)[0].values
    wanted = [
        (a + d - target).square().mean() / 2,
        (b + c - target).square().mean() / 2,
    ]
    losses = model.loss(images, dict(seed=torch.arange(2)))
    assert list(losses) == ["loss_0", "loss_1"]
    torch.testing.assert_close(list(losses.values()), wanted)


def test_loss__two_segments_are_one_pair(mirl):
    model = mirl(backbone=dict(taps=(1,)))
    assert list(model.loss(torch.randn(2, 3, 32, 32))) == ["loss"]


def test_loss__float32_under_autocast_and_close(mirl):
    model, images = mirl(), torch.randn(2, 3, 32, 32)
    seeds = dict(seed=torch.arange(2))
    exact = model.loss(images, seeds)["loss_1"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(images, seeds)["loss_1"]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=2e-2, atol=0)


def test_encoder__the_embedding_comes_first_and_only_the_last_latent_is_normed(mirl):
    model, images = mirl(), torch.randn(2, 3, 32, 32)
    mask = some_mask(model, images)
    low, *segments, last = model.backbone(images, mask)
    tokens = model.backbone.embed_visible(images, mask)
    assert torch.equal(low, tokens)
    for layer, segment in zip(model.backbone.layers, segments, strict=False):
        tokens = layer(tokens)
        assert torch.equal(segment, tokens)
    tokens = model.backbone.layers[-1](tokens)
    assert torch.equal(last, model.backbone.ln1(tokens))


def test_head__weights_scale_pairs_and_sums_are_float32():
    predictions = [torch.full((1, 1, 1), x, dtype=torch.bfloat16) for x in (1, 2, 4, 8)]
    predictions[-1] *= 32  # and 1 + 256 is no bfloat16 number
    head = ResidualPairHead(weights=[2.0, 0.0])
    losses = head.loss(predictions, [LevelTarget(torch.tensor([[[256.0]]]))])
    assert losses == {"loss_0": torch.tensor(1.0), "loss_1": torch.tensor(0.0)}


def test_decoder__sees_its_own_and_all_shallower_segments_only(mirl):
    model, images = mirl(), torch.randn(2, 3, 32, 32)
    mask = some_mask(model, images)
    latents = [x.detach().requires_grad_() for x in model.backbone(images, mask)]
    for g, prediction in enumerate(model.neck(latents, mask)):
        grads = torch.autograd.grad(
            prediction.sum(), latents, retain_graph=True, allow_unused=True
        )
        seen = [grad is not None and bool(grad.any()) for grad in grads]
        # The embedding, the shallower segments, its own; no segment beyond.
        assert seen == [True] * (g + 2) + [False] * (3 - g)


def test_neck__the_memories_are_prefixes_of_one_tensor(mirl):
    model, images = mirl(), torch.randn(2, 3, 32, 32)
    memories = []
    for decoder in model.neck.decoders:
        decoder.register_forward_pre_hook(lambda _, args: memories.append(args[1]))
    model.loss(images)
    assert len({memory.data_ptr() for memory in memories}) == 1
    assert all(memory.is_contiguous() for memory in memories)
    # (G * (1 + L_vis), N, C), one segment of 1 + 4 tokens more for each decoder.
    assert [memory.shape for memory in memories] == [
        (5 * g, 2, 16) for g in range(1, 5)
    ]


@pytest.mark.parametrize("depth", [1, 2])
def test_neck__removed_patches_are_the_same_with_all_others(mirl, depth):
    model, images = mirl(neck=dict(depth=depth)), torch.randn(2, 3, 32, 32)
    mask = some_mask(model, images)
    latents = model.backbone(images, mask)
    masked_only = model.neck(latents, mask)
    for masked, full in zip(masked_only, model.neck(latents, mask, False), strict=True):
        torch.testing.assert_close(mask.masked(full), masked)


def test_neck__other_grids_and_shuffles_of_the_visible_patches(mirl):
    model = mirl(backbone=dict(img_size=(32, 48)))
    images = torch.randn(2, 3, 32, 48)
    given = (torch.arange(24) % 4 != 0).float().expand(2, 24)
    raster = PatchMask.from_mask(given, (4, 6))
    order = torch.cat([torch.randperm(6), torch.arange(6, 24)])
    shuffled = PatchMask._from_shuffle(raster.ids_shuffle[:, order], 6, (4, 6))
    for a, b in zip(
        model.neck(model.backbone(images, raster), raster),
        model.neck(model.backbone(images, shuffled), shuffled),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_predictor__contributes_a_unit_vector_per_channel(mirl):
    model = mirl()
    predictor = model.neck.decoders[0].decoder_pred
    norms = predictor.weight.norm(dim=0)  # over the outputs
    torch.testing.assert_close(norms, torch.ones(16))
    magnitude, direction = weight_norm_of(predictor)
    assert not magnitude.requires_grad and direction.requires_grad
    before = predictor.weight.detach().clone()
    with torch.no_grad():
        direction *= torch.rand(16) + 1
        magnitude[0, 3] = 2
    torch.testing.assert_close(predictor.weight[:, :3], before[:, :3])
    torch.testing.assert_close(predictor.weight[:, 3], 2 * before[:, 3])


def test_predictor__plain_without_weight_norm(mirl):
    predictor = mirl(neck=dict(weight_norm=False)).neck.decoders[0].decoder_pred
    assert dict(predictor.named_parameters()).keys() == {"weight", "bias"}


def test_init_weights__as_the_official_code(mirl):
    model = mirl()
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6, name
            assert (module.weight == 1).all(), name
    tables = [decoder.decoder_pos_embed for decoder in model.neck.decoders]
    assert all(torch.equal(table, tables[0]) for table in tables)
    assert not tables[0][:, 0].any() and tables[0][:, 1:].any()
    magnitude, direction = weight_norm_of(model.neck.decoders[2].decoder_pred)
    assert (magnitude == 1).all()
    bound = (6 / (16 + 192)) ** 0.5  # Xavier's
    assert 0.95 * bound < direction.abs().max() <= bound


def test_init_weights__keeps_what_a_checkpoint_loaded(mirl, tmp_path):
    source = mirl()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    path = str(tmp_path / "pretrained.pth")
    torch.save({"state_dict": source.state_dict()}, path)
    pretrained = dict(type="Pretrained", checkpoint=path)
    full = MODELS.build(mirl_cfg() | dict(init_cfg=pretrained))
    encoder = MODELS.build(
        mirl_cfg(backbone=dict(init_cfg=pretrained | dict(prefix="backbone.")))
    )
    for target, prefix in ((full, ""), (encoder, "backbone.")):
        target.init_weights()
        for key, value in source.state_dict().items():
            if key.startswith(prefix):
                assert torch.equal(target.state_dict()[key], value), key


def test_loss__every_trainable_parameter_gets_a_gradient(mirl):
    model = mirl()
    sum(model.loss(torch.randn(2, 3, 32, 32)).values()).backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, p in model.named_parameters() if p.grad is None}
    assert frozen == {"backbone.pos_embed"} | {
        f"neck.decoders.{g}.{name}"
        for g in range(4)
        for name in (
            "decoder_pos_embed",
            "decoder_pred.parametrizations.weight.original0",
        )
    }


def test_with_cp__54_blocks_with_drop_path_same_gradients_fewer_bytes(mirl):
    arch = dict(embed_dims=24, num_layers=54, num_heads=2, feedforward_channels=96)
    taps = (8, 17, 26, 35, 44)
    backbone = dict(arch=arch, taps=taps, drop_path_rate=0.1)
    plain = mirl(backbone=backbone).train()
    lean = mirl(backbone=backbone | dict(with_cp=True), neck=dict(with_cp=True)).train()
    lean.load_state_dict(plain.state_dict())
    assert plain.backbone.layers[53].attn.out_drop.drop_prob == pytest.approx(0.1)
    images, seeds = torch.randn(2, 3, 32, 32), dict(seed=torch.arange(2))
    gradients, saved = [], []
    for model in (plain, lean):

        def forward(model=model):
            torch.manual_seed(1)
            return sum(model.loss(images, seeds).values())

        forward().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        saved.append(saved_bytes(forward, model.parameters()))
    torch.testing.assert_close(*gradients)
    assert saved[0] > 4 * saved[1]


def test_with_cp__a_copy_runs_its_own_weights(mirl):
    model = mirl(backbone=dict(with_cp=True), neck=dict(with_cp=True))
    images, seeds = torch.randn(2, 3, 32, 32), dict(seed=torch.arange(2))
    before = model.loss(images, seeds)["loss_0"]
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(copy.loss(images, seeds)["loss_0"], before)
    assert list(copy.state_dict()) == list(mirl().state_dict())


def test_reconstruct__main_part_residual_and_sum_of_every_pair(mirl):
    model = mirl(target_generator=dict(norm_pix=False))
    images = torch.randn(2, 3, 32, 32)
    mask = some_mask(model, images)
    result = model.reconstruct(images, mask)
    assert model.level_names == [
        *("main 1", "residual 4", "sum 1+4"),
        *("main 2", "residual 3", "sum 2+3"),
    ]
    a, _, _, d = model.neck(model.backbone(images, mask), mask, masked_only=False)
    main, residual, total = result["levels"][:3]
    torch.testing.assert_close(main + residual, total)
    first, rest = (x[0, 0].view(8, 8, 3).permute(2, 0, 1) for x in (a + d, d))
    torch.testing.assert_close(total[0, :, :8, :8], first)
    torch.testing.assert_close(residual[0, :, :8, :8], rest)
    # With norm_pix: the same without the true patches' statistics.
    model.target_generator.norm_pix = True
    plain = model.reconstruct(images, mask, patch_statistics=False)["levels"]
    for own, raw in zip(plain, result["levels"], strict=True):
        torch.testing.assert_close(own, raw, atol=1e-4, rtol=1e-4)


def test_targets__pairs_may_sum_to_something_else_than_pixels(mirl):
    hog = dict(type="HOGTarget", nbins=9, cell_size=4)
    pixels = dict(type="PixelTarget", norm_pix=True)
    images = torch.randn(2, 3, 32, 32)
    full = mirl(target_generator=hog)
    assert full.neck.out_dims == [4 * 27] * 2
    assert full.reconstruct(images)["levels"] == [None] * 6
    mixed = mirl(target_generator=[pixels, hog])
    assert [d.decoder_pred.out_features for d in mixed.neck.decoders] == [
        *(192, 108),
        *(108, 192),
    ]
    for model in (full, mixed):
        sum(model.loss(images).values()).backward()
    shown = mixed.reconstruct(images)["levels"]
    assert [level is None for level in shown] == [False] * 3 + [True] * 3


def test_targets__pairs_may_sum_to_clip_features(mirl, tmp_path):
    checkpoint = str(tmp_path / "clip.pth")
    torch.save(clip_files.tower(), checkpoint)
    model = mirl(
        target_generator=dict(type="CLIPTarget", checkpoint=checkpoint),
        head=dict(criterion="cosine"),
    )
    assert model.neck.out_dims == [clip_files.OUT] * 2
    losses = model.loss(torch.randn(2, 3, 32, 32))
    assert all(0 < loss < 2 for loss in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(backbone=dict(taps=(0, 1))), "must be even and at least 2, got 3"),
        (dict(backbone=dict(taps=())), "must be even and at least 2, got 1"),
        (dict(backbone=dict(taps=(1, 0, 2))), "must increase"),
        (dict(backbone=dict(taps=(0, 1, 1))), "supervised twice"),
        (dict(backbone=dict(taps=(0, 2, 3))), r"\[0, 2, 3, 3\] do not increase"),
        (dict(backbone=dict(tap_embedding=False)), "tap_embedding=True"),
        (dict(neck=dict(embed_dims=[16, 16, 32, 16])), "must share one width"),
        (dict(neck=dict(embed_dims=[16, 16])), "the 4 decoders must share one width"),
        (dict(neck=dict(in_dims=[24] * 4)), "must be even and at least 2, got 3"),
        (dict(neck=dict(in_dims=[24] * 3)), "2 entries for 1 pair"),
        (dict(neck=dict(out_dims=[192] * 4)), "4 entries for 2 pair"),
        (dict(neck=dict(depth=0)), "at least one block"),
        (dict(head=dict(weights=[1.0])), "1 loss weights for 2 levels"),
        (dict(target_generator=[dict(type="PixelTarget")] * 3), "3 levels, the model"),
        (
            dict(head=dict(type="ReconstructionHead")),
            "compared with one target: MIRL 2, MIRLDecoder 2, ReconstructionHead 1",
        ),
        (
            dict(head=dict(type="ReconstructionHead", weights=[1.0, 1.0])),
            "ReconstructionHead 1",
        ),
        (
            dict(neck=dict(type="MIMDecoder", embed_dims=16, num_heads=2)),
            "MIRL 2, MIMDecoder 1, ResidualPairHead 2",
        ),
        (dict(type="DeepMIM"), "DeepMIM 1, MIRLDecoder 2, ResidualPairHead 2"),
        (
            dict(type="DeepMIM", head=dict(type="ReconstructionHead")),
            "DeepMIM 1, MIRLDecoder 2, ReconstructionHead 1",
        ),
        (
            dict(type="DeepMIM", backbone=dict(tap_embedding=False)),
            "MIRLDecoder attends .* set backbone.tap_embedding=True",
        ),
        (dict(backbone=dict(final_block=2)), r"\[0, 1, 2, 2\] do not increase"),
    ],
)
def test_build__parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(Exception, match=message) as info:
        MODELS.build(mirl_cfg(**changes))
    assert isinstance(info.value, ValueError)


def test_build__equal_widths_as_the_official_list(mirl):
    assert mirl(neck=dict(embed_dims=[16] * 4)).neck.low_embed.out_features == 16


@pytest.mark.parametrize("final_norm", [True, False])
def test_checkpoint__encoder_keys_are_mmpretrain_s(mirl, final_norm):
    classifier = MODELS.build(
        dict(
            type="VisionTransformer",
            arch=dict(TINY_ARCH),
            img_size=32,
            patch_size=8,
            final_norm=final_norm,
            out_type="cls_token" if final_norm else "avg_featmap",
        )
    )
    given = {k[9:] for k in mirl().state_dict() if k.startswith("backbone.")}
    initialised = set() if final_norm else {"ln2.weight", "ln2.bias"}
    assert set(classifier.state_dict()) - given == initialised
