"""CLIP targets: the tower against another implementation, its training, bad input."""

import clip_files
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.models.utils.clip_generator_helper import VisionTransformer
from mmpretrain.registry import MODELS
from samples import tiny_model
from torch import nn

from mim_plugins.models import CLIPTarget, PatchMask
from mim_plugins.models.targets import ImageSpec

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
MEAN = torch.tensor(IMAGENET["mean"]).view(-1, 1, 1)
STD = torch.tensor(IMAGENET["std"]).view(-1, 1, 1)


def save(state, folder):
    torch.save(state, folder / "clip.pth")
    return str(folder / "clip.pth")


@pytest.fixture
def checkpoint(tmp_path):
    return save(clip_files.tower(), tmp_path)


def clip_model(checkpoint, **target):
    """Config of a tiny DeepMIM on CLIP features."""
    cfg = tiny_model(head=dict(criterion="cosine"))
    cfg["target_generator"] = dict(type="CLIPTarget", checkpoint=checkpoint, **target)
    return cfg


def ready(checkpoint, grid=(4, 4), patch=8, **kwargs):
    """A target for students with ImageNet's normalisation."""
    target = CLIPTarget(checkpoint, **kwargs)
    spec = target.prepare(ImageSpec(grid, (patch, patch), 3, MEAN, STD))
    assert [level.dims for level in spec] == [clip_files.OUT]
    return target


def random_mask(n=2, grid=(4, 4)):
    return PatchMask.from_noise(torch.rand(n, grid[0] * grid[1]), 0.75, grid)


def test_forward__as_another_implementation_of_the_tower(checkpoint):
    state = torch.load(checkpoint)
    reference = VisionTransformer(32, 8, clip_files.WIDTH, 2, 2, clip_files.OUT)
    reference.load_state_dict(state)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    )
    theirs = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(
        -1, 1, 1
    )
    wanted, _ = reference.eval()(theirs)
    mask = random_mask()
    target = ready(checkpoint)((pixels * 255 - MEAN) / STD, mask)[0]
    assert target.weights is None
    torch.testing.assert_close(
        target.values, mask.masked(wanted[:, 1:]), rtol=1e-5, atol=1e-5
    )
    # Raw pixels for the student give the teacher the same images.
    raw = CLIPTarget(checkpoint)
    raw.prepare(ImageSpec((4, 4), (8, 8)))
    torch.testing.assert_close(
        raw(pixels * 255, mask)[0].values, target.values, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("layout", clip_files.LAYOUTS, ids=lambda f: f.__name__)
def test_forward__every_layout_gives_the_same_bits(layout, tmp_path):
    state = clip_files.tower()
    (tmp_path / "theirs").mkdir()
    theirs = ready(layout(state, tmp_path / "theirs"))
    plain = ready(save(state, tmp_path))
    images, mask = torch.randn(2, 3, 32, 32), random_mask()
    assert torch.equal(theirs(images, mask)[0].values, plain(images, mask)[0].values)


def test_tower__every_norm_has_the_official_epsilon(checkpoint):
    norms = {
        name: module.eps
        for name, module in CLIPTarget(checkpoint).teacher.network.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    blocks = {f"vit.layers.{i}.{norm}" for i in (0, 1) for norm in ("ln1", "ln2")}
    assert norms == dict.fromkeys(blocks | {"vit.pre_norm", "vit.ln1"}, 1e-5)


def test_tower__norms_are_float32_under_autocast(checkpoint):
    target, seen = ready(checkpoint), []
    for module in target.teacher.network.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(
                lambda _module, args, output: seen.extend([args[0].dtype, output.dtype])
            )
    images, mask = torch.randn(2, 3, 32, 32), random_mask()
    exact = target(images, mask)[0].values
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = target(images, mask)[0].values
    assert seen == [torch.float32] * 12
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05 * float(exact.std()))


def test_tower__activation_is_quick_unless_said_otherwise(checkpoint):
    x = torch.linspace(-3, 3, 7)
    for act, wanted in (
        (None, x * torch.sigmoid(1.702 * x)),
        ("quick_gelu", x * torch.sigmoid(1.702 * x)),
        ("gelu", nn.functional.gelu(x)),
    ):
        tower = CLIPTarget(checkpoint, act=act).teacher.network
        assert torch.equal(tower.vit.layers[1].ffn.layers[0][1](x), wanted)


def test_forward__positions_are_resized_to_the_students_grid(tmp_path):
    state = clip_files.tower(size=48)
    large = ready(save(state, tmp_path), grid=(4, 6))
    state["positional_embedding"] = resize_pos_embed(
        state["positional_embedding"][None], (6, 6), (4, 4)
    )[0]
    images, mask = torch.randn(2, 3, 32, 32), random_mask()
    assert torch.equal(
        large(images, mask)[0].values,
        ready(save(state, tmp_path))(images, mask)[0].values,
    )
    oblong = large(torch.randn(2, 3, 32, 48), random_mask(grid=(4, 6)))
    assert oblong[0].values.shape == (2, 18, clip_files.OUT)


@pytest.mark.parametrize("input_size", [64, (64, 64)])
def test_forward__teacher_of_another_patch_size_sees_resized_images(
    tmp_path, input_size
):
    checkpoint = save(clip_files.tower(patch=16, size=64), tmp_path)
    target = ready(checkpoint, input_size=input_size)
    images, mask = torch.randn(2, 3, 32, 32), random_mask()
    resized = nn.functional.interpolate(
        images, (64, 64), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(
        target(images, mask)[0].values,
        ready(checkpoint, patch=16)(resized, mask)[0].values,
        rtol=1e-4,
        atol=1e-5,
    )
    # Images of another size keep the pairing of patches.
    wide = target(torch.randn(1, 3, 32, 48), random_mask(1, (4, 6)))
    assert wide[0].values.shape == (1, 18, clip_files.OUT)


def test_forward__norm_features_has_no_affine_and_torchs_epsilon(checkpoint):
    images, mask = torch.randn(2, 3, 32, 32), random_mask()
    plain = ready(checkpoint)(images, mask)[0].values
    normed = ready(checkpoint, norm_features=True)(images, mask)[0].values
    var, mean = torch.var_mean(plain, dim=-1, unbiased=False, keepdim=True)
    torch.testing.assert_close(normed, (plain - mean) / (var + 1e-5).sqrt())


def test_train__one_frozen_pass_and_no_teacher_in_checkpoint_or_optimiser(checkpoint):
    cfg = clip_model(checkpoint)
    model = MODELS.build(cfg)
    tower = model.target_generator.teacher.network
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    model.init_weights()
    model.train()
    passes = []
    tower.register_forward_hook(lambda *args: passes.append(args[-1]))
    losses = model.loss(torch.randn(2, 3, 32, 32))
    assert list(losses) == ["loss_0", "loss_1", "loss_2"]
    assert all(0 < loss < 4 for loss in losses.values())
    sum(losses.values()).backward()
    assert len(passes) == 1 and not passes[0].requires_grad
    assert not any(module.training for module in tower.modules())
    ours = {id(p) for p in tower.parameters()}
    optim = build_optim_wrapper(model, dict(optimizer=dict(type="SGD", lr=0.1)))
    groups = optim.optimizer.param_groups
    assert not ours & {id(p) for group in groups for p in group["params"]}
    optim.step()
    assert not any("target_generator" in key for key in model.state_dict())
    assert not any("target_generator" in key for key, _ in model.named_parameters())
    # A resumed run builds the teacher from its file again, untouched by training.
    resumed = MODELS.build(cfg)
    resumed.load_state_dict(model.state_dict(), strict=True)
    for key, value in resumed.target_generator.teacher.network.state_dict().items():
        assert torch.equal(value, before[key]) and torch.equal(
            tower.state_dict()[key], value
        )


def test_build__full_size_tower_on_the_meta_device(tmp_path):
    state = clip_files.clip_state_dict(width=768, layers=12, patch=16, size=224)
    state = {key: torch.zeros(1).expand(value.shape) for key, value in state.items()}
    cfg = clip_model(save(state, tmp_path))
    cfg["backbone"].update(img_size=224, patch_size=16)
    with torch.device("meta"), pytest.warns(UserWarning, match="non-meta"):
        model = MODELS.build(cfg)
    assert model.neck.out_dims == [512] * 3
    assert model.target_generator.scale.is_meta


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(backbone=dict(img_size=64, patch_size=16)),
            r"cuts 64x64 pixels into a 8x8 grid of 8x8 patches, the student has a 4x4 "
            r"grid of patches of 16x16 pixels.*input_size=\(32, 32\)",
        ),
        (
            dict(backbone=dict(img_size=36, patch_size=6)),
            r"4.5x4.5 grid.*6x6 grid.*input_size=\(48, 48\)",
        ),
        (dict(target_generator=dict(input_size=40)), r"cuts 40x40.*\(32, 32\)"),
        (
            dict(
                backbone=dict(in_channels=4),
                data_preprocessor=dict(mean=[1] * 4, std=[1] * 4),
            ),
            "takes images of 3 channels, the student's have 4.*PixelTarget",
        ),
        (
            dict(target_generator=dict(mean=[0.5] * 3, std=[0.2] * 3)),
            "std=.* from 0 to 1: give .* from 0 to 255",
        ),
        (dict(target_generator=dict(std=[1.0])), "one value per channel"),
        (dict(target_generator=dict(num_heads=3)), "num_heads=3 does not divide"),
        (dict(neck=dict(out_dims=8)), "level 0 predicts 8 values per patch.* has 24"),
    ],
)
def test_build__teachers_that_do_not_fit_are_refused(checkpoint, changes, message):
    cfg = clip_model(checkpoint)
    for part, change in changes.items():
        cfg[part].update(change)
    with pytest.raises(Exception, match=message) as info:
        MODELS.build(cfg)
    assert isinstance(info.value, ValueError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(checkpoint=None), "checkpoint=None is no path: give the OpenAI CLIP"),
        (dict(num_heads="2"), "num_heads='2' is no whole number"),
        (dict(input_size="64"), "input_size='64' is not a size in pixels: give"),
        (dict(input_size=[64]), "not a size in pixels"),
        (
            dict(mean=0.5),
            "mean=0.5 is not a list of numbers: give one value per channel",
        ),
        (dict(std=["1", "1", "1"]), "std=.* is not a list of numbers"),
    ],
)
def test_build__arguments_of_other_types_are_refused(checkpoint, changes, message):
    cfg = clip_model(checkpoint)
    cfg["target_generator"].update(changes)
    with pytest.raises(TypeError, match=message):
        MODELS.build(cfg)


def test_build__missing_file_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="OpenAI CLIP ViT-B/16 weights"):
        MODELS.build(clip_model(str(tmp_path / "ViT-B-16.pt")))


@pytest.mark.parametrize(
    ("preprocessor", "silent"),
    [
        (dict(), False),
        (dict(bgr_to_rgb=True), True),
        (dict(type="SelfSupDataPreprocessor"), False),
        (dict(type="SelfSupDataPreprocessor", to_rgb=True), True),
    ],
)
def test_build__images_that_may_be_bgr_cause_a_warning(
    checkpoint, preprocessor, silent, monkeypatch
):
    warnings = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "warning", warnings.append)
    cfg = clip_model(checkpoint)
    cfg["data_preprocessor"].update(preprocessor)
    MODELS.build(cfg)
    assert len(warnings) == (not silent)
    if not silent:
        assert "CLIPTarget: the teacher takes RGB" in warnings[0]
        assert "set data_preprocessor.bgr_to_rgb=True" in warnings[0]


@pytest.mark.parametrize(("dims", "silent"), [(24, True), (512, False)])
def test_build__dims_of_another_file_cause_a_warning(
    checkpoint, dims, silent, monkeypatch
):
    warnings = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "warning", warnings.append)
    model = MODELS.build(
        clip_model(checkpoint, dims=dims)
        | dict(data_preprocessor=dict(bgr_to_rgb=True))
    )
    assert model.neck.out_dims == [24] * 3
    assert len(warnings) == (not silent)
    if not silent:
        assert "dims=512, but the features of" in warnings[0]
        assert "clip.pth have 24" in warnings[0] and "set dims=24" in warnings[0]


def test_forward__images_whose_grids_part_are_refused(checkpoint):
    # Neither grid follows from the other at run time: 40 pixels are 5 of the teacher's.
    target = ready(checkpoint)
    with pytest.raises(ValueError, match=r"5x5 grid of 8x8.*4x4 grid"):
        target(torch.randn(2, 3, 40, 40), random_mask())
