"""What every encoder and neck offers, and the refusal of what offers less."""

import pytest
import torch
from mmpretrain.registry import MODELS
from samples import TINY_ARCH, TINY_HIERA, tiny_model

from mim_plugins.models.protocols import (
    BlockwiseEncoder,
    LevelNeck,
    MaskedEncoder,
)

VIT = dict(type="MIMVisionTransformer", arch=TINY_ARCH, img_size=(32, 48), patch_size=8)
SWIN = dict(
    arch=dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2]),
    img_size=64,
    window_size=4,
)
ENCODERS = {
    "swin": SWIN | dict(type="MIMSwinTransformer"),
    "vit": VIT,
    "vit with taps": VIT | dict(taps=(1, 2)),
    "vit with its embedding": VIT | dict(taps=(1,), tap_embedding=True),
    "vit with a final block": VIT | dict(final_block=1),
    "simmim": SWIN | dict(type="SimMIMSwin"),
    "simmim with a final stage": SWIN | dict(type="SimMIMSwin", final_stage=1),
    "hiera": dict(type="MIMHiera", arch=TINY_HIERA, img_size=(64, 96)),
}
# LocalMIM's Swin Transformer is not read block by block.
BLOCKWISE = [name for name in ENCODERS if name != "swin"]


@pytest.fixture(params=ENCODERS)
def encoder(request) -> MaskedEncoder:
    model = MODELS.build(dict(ENCODERS[request.param]))
    model.init_weights()
    model.eval()
    return model


def test_encoder__latents_are_as_it_says(encoder):
    height, width = encoder.image_size
    images = torch.randn(2, encoder.in_channels, height, width)
    rows, cols = encoder.image_grid(images)
    assert (rows, cols) == encoder.grid
    mask = torch.zeros(2, rows * cols)
    mask[:, ::2] = 1
    latents = encoder(images, mask)
    assert len(latents) == encoder.num_levels == len(encoder.level_names)
    assert [latent.shape[-1] for latent in latents] == encoder.level_dims
    patches = rows * cols if encoder.keeps_masked_tokens else int((mask[0] == 0).sum())
    for latent, side in zip(
        latents, encoder.level_scales or [1] * len(latents), strict=True
    ):
        assert latent.shape[1] == encoder.num_extra_tokens + patches * side**2


def test_encoder__encodes_images_with_nothing_masked(encoder):
    images = torch.randn(2, 3, *encoder.image_size)
    rows, cols = encoder.grid
    tokens = encoder.encode_unmasked(images)
    if isinstance(encoder, BlockwiseEncoder) and encoder.final_block < (
        len(encoder.blocks) - 1
    ):
        *_, wanted = encoder.stream(images, torch.zeros(2, rows * cols))
        assert tokens.numel() == wanted.numel()
        torch.testing.assert_close(tokens.sum(), wanted.sum())
    else:
        wanted = encoder(images, torch.zeros(2, rows * cols))[-1]
        assert torch.equal(tokens, wanted)


@pytest.mark.parametrize("encoder", BLOCKWISE, indirect=True)
def test_blockwise__latents_of_the_stream_are_those_of_the_forward_pass(encoder):
    images = torch.randn(1, 3, *encoder.image_size)
    mask = torch.zeros(1, encoder.grid[0] * encoder.grid[1])
    mask[:, ::3] = 1
    stream = list(encoder.stream(images, mask))
    assert len(stream) == len(encoder.blocks) + 1
    for ours, wanted in zip(
        encoder.latents(stream), encoder(images, mask), strict=True
    ):
        assert torch.equal(ours, wanted)
    assert len(encoder.blocks) <= len(encoder.norms) <= len(encoder.blocks) + 1


def test_level_names__say_blocks_or_stages_from_one():
    names = {key: MODELS.build(dict(ENCODERS[key])).level_names for key in ENCODERS}
    assert names["vit with taps"] == ["block 2", "block 3", "block 4"]
    assert names["vit with its embedding"] == ["level 0", "level 1", "level 2"]
    assert names["swin"] == ["stage 1", "stage 2", "stage 3", "stage 4"]
    assert names["hiera"] == ["stage 1", "stage 2", "stage 4"]


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "backbone",
            dict(type="VisionTransformer", arch=TINY_ARCH, img_size=32, patch_size=8),
            "a VisionTransformer cannot encode masked images: .*MaskedEncoder",
        ),
        (
            "neck",
            dict(type="GlobalAveragePooling"),
            "a GlobalAveragePooling does not decode the levels .*LevelNeck",
        ),
    ],
)
def test_build__other_encoders_and_necks_are_refused(part, changes, message):
    with pytest.raises(TypeError, match=message):
        MODELS.build(tiny_model() | {part: changes})


def test_build__unknown_names_are_the_registrys_to_refuse():
    with pytest.raises(KeyError, match="NoDecoder is not in the mmpretrain::model"):
        MODELS.build(tiny_model(neck=dict(type="NoDecoder")))


def test_protocol__an_incomplete_class_says_what_it_lacks():
    class Encoder(BlockwiseEncoder):
        pass

    class Neck(LevelNeck):
        pass

    with pytest.raises(TypeError, match="attention_logits.*stream"):
        Encoder()
    with pytest.raises(TypeError, match="forward"):
        Neck()
