"""Features of timm's Vision Transformers as targets, and what is refused."""

import re

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from samples import tiny_model

from mim_plugins.models import PatchMask, TimmFeatureTarget
from mim_plugins.models.targets import ImageSpec

timm = pytest.importorskip("timm")

TINY = dict(img_size=32, patch_size=8, depth=3, embed_dim=24, num_heads=2)
NAME = "vit_tiny_patch16_224"


@pytest.fixture
def network():
    """A tiny network of timm with a classifier, weights far from their defaults."""
    model = timm.create_model(NAME, num_classes=5, **TINY).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def checkpoint(network, tmp_path):
    path = str(tmp_path / "vit.pth")
    torch.save({"state_dict": network.state_dict()}, path)
    return path


def timm_model(**target):
    cfg = tiny_model()
    cfg["target_generator"] = dict(
        type="TimmFeatureTarget", **{"model_name": NAME, "model_kwargs": TINY, **target}
    )
    return cfg


def features(target, images, grid=(4, 4)):
    """Of every patch but the first, in raster order."""
    given = torch.ones(len(images), grid[0] * grid[1])
    given[:, 0] = 0
    return target(images, PatchMask.from_mask(given, grid))[0].values


@pytest.mark.parametrize(("layer", "index"), [(-1, 2), (1, 1), (-3, 0)])
@pytest.mark.parametrize("final_norm", [True, False])
def test_forward__patch_tokens_of_the_block_that_is_asked_for(
    network, checkpoint, layer, index, final_norm
):
    target = TimmFeatureTarget(
        NAME, checkpoint, layer=layer, final_norm=final_norm, model_kwargs=TINY
    )
    assert target.prepare(ImageSpec((4, 4), (8, 8)))[0].dims == 24
    assert len(target.teacher.network.model.blocks) == index + 1
    pixels = torch.rand(2, 3, 32, 32)
    # timm's own statistics of this model are 0.5 and 0.5.
    tokens = network.patch_embed(pixels * 2 - 1)
    tokens = torch.cat([network.cls_token.expand(2, -1, -1), tokens], dim=1)
    tokens = tokens + network.pos_embed
    for block in network.blocks[: index + 1]:
        tokens = block(tokens)
    wanted = (network.norm(tokens) if final_norm else tokens)[:, 2:]
    torch.testing.assert_close(
        features(target, pixels * 255), wanted, rtol=1e-4, atol=1e-5
    )


def test_model__trains_on_the_features_and_holds_no_teacher(checkpoint):
    model = MODELS.build(timm_model(checkpoint=checkpoint))
    model.train()
    assert not any(m.training for m in model.target_generator.teacher.network.modules())
    losses = model.loss(torch.randn(2, 3, 32, 32))
    assert list(losses) == ["loss_0", "loss_1", "loss_2"]
    sum(losses.values()).backward()
    assert model.neck.out_dims == [24] * 3
    assert not any("target_generator" in key for key in model.state_dict())
    assert not any("target_generator" in key for key, _ in model.named_parameters())


def test_checkpoint__bare_safetensors_without_head_and_other_grid(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if k[:5] != "head."}
    save_file(state, tmp_path / "vit.safetensors")
    target = TimmFeatureTarget(NAME, tmp_path / "vit.safetensors", model_kwargs=TINY)
    target.prepare(ImageSpec((2, 6), (8, 8)))
    assert features(target, torch.rand(1, 3, 16, 48), (2, 6)).shape == (1, 11, 24)
    assert "state_dict" not in target.teacher.network.model.pretrained_cfg


def test_dinov2__registers_are_left_out_and_patches_of_14_resized(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    kwargs = dict(img_size=56, depth=1, embed_dim=24, num_heads=2)
    torch.save(
        timm.create_model(name, **kwargs).state_dict(), path := tmp_path / "dino.pth"
    )
    target = TimmFeatureTarget(name, path, input_size=56, model_kwargs=kwargs)
    target.prepare(ImageSpec((4, 4), (8, 8)))
    assert target.teacher.network.model.num_prefix_tokens == 5
    assert features(target, torch.rand(1, 3, 32, 32)).shape == (1, 15, 24)
    assert target.mean == pytest.approx((123.675, 116.28, 103.53))
    with pytest.raises(ValueError, match=r"2.28571x2.28571.*input_size=\(56, 56\)"):
        TimmFeatureTarget(name, path, model_kwargs=kwargs).prepare(
            ImageSpec((4, 4), (8, 8))
        )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (dict(model_name="vit_tiny_patch16_24"), "did you mean vit_tiny_patch16_224"),
        (dict(model_name="resnet18"), "resnet18 cannot be a teacher.*dynamic_img_size"),
        (
            dict(model_name="swin_tiny_patch4_window7_224", model_kwargs={}),
            "is a SwinTransformer.*one patch grid for all blocks",
        ),
        (dict(layer=3), "layer=3 is out of range.* 3 blocks, 0 to 2"),
        (dict(layer=-4), "layer=-4 is out of range"),
        (
            dict(model_kwargs=dict(TINY, global_pool="avg", fc_norm=True)),
            "do not fit .*fc_norm",
        ),
        (dict(model_kwargs=dict(TINY, embed_dim=32)), "size mismatch"),
        (dict(checkpoint=None), "Give either checkpoint='file', or pretrained=True"),
        (dict(pretrained=True), "Give either checkpoint='file', or pretrained=True"),
    ],
)
def test_build__teachers_that_cannot_be_are_refused(checkpoint, target, message):
    if target.get("model_name") == "swin_tiny_patch4_window7_224":
        checkpoint = checkpoint.replace("vit", "swin")
        with torch.device("meta"):
            state = timm.create_model(target["model_name"]).state_dict()
        state = {k: torch.zeros(1).expand(v.shape) for k, v in state.items()}
        torch.save(state, checkpoint)
    with pytest.raises(Exception, match=re.compile(message, re.DOTALL)) as info:
        MODELS.build(timm_model(**{"checkpoint": checkpoint, **target}))
    assert isinstance(info.value, ValueError)


def test_build__no_norm_behind_the_blocks_asks_for_final_norm_false(tmp_path):
    kwargs = dict(TINY, global_pool="avg", fc_norm=True)
    torch.save(timm.create_model(NAME, **kwargs).state_dict(), tmp_path / "x.pth")
    with pytest.raises(ValueError, match="set final_norm=False"):
        TimmFeatureTarget(NAME, tmp_path / "x.pth", model_kwargs=kwargs)
    target = TimmFeatureTarget(
        NAME, tmp_path / "x.pth", final_norm=False, model_kwargs=kwargs
    )
    assert target.dims == 24
