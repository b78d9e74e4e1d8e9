"""Decoders in shuffled order against the plain form, and their promises."""

import pytest
import torch
from torch import nn

from mim_plugins.models import MIMDecoder, PatchMask


def decoder(**kwargs) -> MIMDecoder:
    kwargs = (
        dict(
            grid=(3, 4),
            in_dims=[24, 24],
            out_dims=12,
            embed_dims=16,
            depth=2,
            num_heads=2,
        )
        | kwargs
    )
    model = MIMDecoder(**kwargs)
    model.init_weights()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model


def plain_prediction(model: MIMDecoder, level: int, latent, mask: PatchMask):
    """The official way: unshuffle, all tokens through all blocks."""
    part = model.decoders[level]
    tokens = part.decoder_embed(latent)
    removed = part.mask_token.expand(len(tokens), mask.num_masked, -1)
    patches = mask.restore(torch.cat([tokens[:, 1:], removed], dim=1))
    tokens = torch.cat([tokens[:, :1], patches], dim=1) + model.decoder_pos_embed
    for block in part.decoder_blocks:
        tokens = block(tokens)
    return part.decoder_pred(part.ln1(tokens))[:, 1:]


@pytest.mark.parametrize("depth", [1, 3])
def test_forward__equals_the_plain_form_in_value_and_gradient(depth):
    model = decoder(depth=depth)
    mask = PatchMask.from_noise(torch.rand(2, 12), 0.75, (3, 4))
    latents = [torch.randn(2, 4, 24, requires_grad=True) for _ in range(2)]
    weight = torch.randn(2, mask.num_masked, 12)

    def loss_of(predictions):
        return sum((p * weight).sum() for p in predictions)

    ours = model(latents, mask)
    loss_of(ours).backward()
    fast = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    fast += [x.grad.clone() for x in latents]
    model.zero_grad()
    for latent in latents:
        latent.grad = None
    full = [plain_prediction(model, k, x, mask) for k, x in enumerate(latents)]
    loss_of([mask.masked(p) for p in full]).backward()
    slow = [p.grad for p in model.parameters() if p.requires_grad]
    slow += [x.grad for x in latents]
    for a, b in zip(ours, full, strict=True):
        torch.testing.assert_close(a, mask.masked(b), rtol=1e-5, atol=1e-5)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(model(latents, mask, masked_only=False), full, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_levels__are_independent_and_share_fixed_positions():
    model = decoder()
    mask = PatchMask.from_noise(torch.rand(1, 12), 0.5, (3, 4))
    latents = [torch.randn(1, 7, 24) for _ in range(2)]
    before = model(latents, mask)
    nn.init.normal_(model.decoders[0].decoder_pred.weight)
    after = model(latents, mask)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not model.decoder_pos_embed.requires_grad
    assert "decoder_pos_embed" in model.state_dict()


def test_out_dims__one_per_level():
    model = decoder(out_dims=[5, 7])
    mask = PatchMask.from_noise(torch.rand(1, 12), 0.5, (3, 4))
    shapes = [p.shape[-1] for p in model([torch.randn(1, 7, 24)] * 2, mask)]
    assert shapes == [5, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(depth=0), "at least one block"),
        (dict(num_heads=3), "does not divide"),
        (dict(out_dims=[1, 2, 3]), "3 entries for 2"),
        (dict(embed_dims=18, num_heads=2), "multiple of 4"),
    ],
)
def test_build__bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        decoder(**changes)


def test_norms__have_the_official_epsilon():
    norms = [m for m in decoder().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * (2 * 2 + 1)
    assert {m.eps for m in norms} == {1e-6}
