"""LocalMIM on the masked Swin Transformer."""

import pytest
import torch
from mmpretrain.models import SwinTransformer
from mmpretrain.registry import MODELS

ARCH = dict(embed_dims=8, depths=[2, 2, 1], num_heads=[1, 2, 2])


def local_model(**backbone):
    return dict(
        type="LocalMIM",
        mask_sampler=dict(type="SharedPatchMask", mask_ratio=0.75),
        backbone=dict(
            type="MIMSwinTransformer",
            arch=dict(ARCH),
            img_size=56,
            patch_size=2,
            drop_path_rate=0.0,
            **backbone,
        ),
        neck=dict(
            type="MultiScaleDecoder", embed_dims=(8, 16, 16), depth=1, num_heads=2
        ),
        target_generator=dict(type="HOGTarget", nbins=4, bias=True),
        head=dict(type="ReconstructionHead", criterion="L2"),
    )


def test_localmim__cells_follow_the_stages_and_every_parameter_learns():
    model = MODELS.build(local_model())
    model.init_weights()
    assert model.target_generator.cell_sizes == [4, 8, 8]
    losses = model.loss(torch.randn(2, 3, 56, 56))
    assert list(losses) == ["loss_0", "loss_1", "loss_2"]
    sum(losses.values()).backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {n for n, p in model.named_parameters() if not p.requires_grad}
    assert not any(name.startswith("backbone.") for name in without)
    # What mmpretrain's encoder has, and nothing else, is under `backbone.`.
    theirs = SwinTransformer(arch=dict(ARCH), patch_size=2, out_indices=(2,))
    ours = {k for k in model.state_dict() if k.startswith("backbone.")}
    assert ours == {f"backbone.{k}" for k in theirs.state_dict()}


def test_localmim__masks_of_each_image_and_pictures_of_pixels():
    config = local_model()
    config["mask_sampler"]["type"] = "RandomPatchMask"
    config["target_generator"] = dict(type="PixelTarget", norm_pix=True)
    model = MODELS.build(config)
    images = torch.randn(2, 3, 56, 56)
    seeds = dict(seed=torch.arange(2))
    together = model.loss(images, seeds)
    alone = [
        model.loss(images[i : i + 1], dict(seed=seeds["seed"][i : i + 1]))
        for i in (0, 1)
    ]
    for level, loss in together.items():
        torch.testing.assert_close(loss, sum(x[level] for x in alone) / 2)
    pictures = model.reconstruct(images)["levels"]
    assert [picture.shape for picture in pictures] == [images.shape] * 3


def test_localmim__a_ratio_that_leaves_no_cell_is_refused():
    config = local_model()
    config["mask_sampler"]["mask_ratio"] = 0.98
    with pytest.raises(Exception, match="one more than that share") as info:
        MODELS.build(config)
    assert isinstance(info.value, ValueError)
