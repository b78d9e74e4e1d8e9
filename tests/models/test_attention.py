"""The attention dispatcher: same values whichever backend is chosen."""

import pytest
import torch
from mmpretrain.models.utils import WindowMSA
from torch.nn import functional as F

from mim_plugins.models import MIMVisionTransformer
from mim_plugins.models import attention as module
from mim_plugins.models.attention import WindowAttention, attention, attention_backend


def test_backend__explicit_only_where_fused_is_slower():
    assert attention_backend("cpu", torch.bfloat16) == "explicit"
    assert attention_backend("cpu", torch.bfloat16, needs_grad=False) == "fused"
    assert attention_backend("cpu", torch.float32) == "fused"
    assert attention_backend("cuda", torch.bfloat16) == "fused"
    assert attention_backend("cpu", torch.float32, trains_bias=True) == "explicit"
    assert attention_backend("cpu", torch.bfloat16, trains_bias=True) == "fused"
    assert attention_backend("cpu", torch.float32, False, True) == "fused"
    assert attention_backend("cuda", torch.float32, trains_bias=True) == "fused"


@pytest.mark.parametrize("backend", ["fused", "explicit"])
def test_attention__both_backends_match_torch(backend, monkeypatch):
    monkeypatch.setattr(module, "attention_backend", lambda *_: backend)
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    wanted = F.scaled_dot_product_attention(q, k, v)
    out = attention(q, k, v)
    torch.testing.assert_close(out, wanted)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    wanted_grads = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    for a, b in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(a, b)


def test_attention__encoder_uses_the_dispatcher(monkeypatch):
    calls = []
    real = module.attention_backend
    monkeypatch.setattr(
        module, "attention_backend", lambda *a: calls.append(a) or real(*a)
    )
    arch = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8)
    model = MIMVisionTransformer(arch=arch, img_size=8, patch_size=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(1, 3, 8, 8))
    assert [dtype for _, dtype, *_ in calls] == [torch.bfloat16] * 2


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@pytest.mark.parametrize("qk_scale", [None, 0.7])
@pytest.mark.parametrize("masked", [False, True])
def test_windows__are_what_mmpretrain_computes(backend, qk_scale, masked, monkeypatch):
    monkeypatch.setattr(module, "attention_backend", lambda *_: backend)
    ours, theirs = (
        kind(12, window_size=(3, 3), num_heads=2, qk_scale=qk_scale)
        for kind in (WindowAttention, WindowMSA)
    )
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2 * 4, 9, 12, requires_grad=True)
    mask = torch.where(torch.rand(4, 9, 9) > 0.3, 0.0, -100.0) if masked else None
    out, wanted = ours(x, mask), theirs(x, mask)
    torch.testing.assert_close(out, wanted)
    cotangent = torch.randn_like(out)
    grads = torch.autograd.grad(out, [x, *ours.parameters()], cotangent)
    wanted_grads = torch.autograd.grad(wanted, [x, *theirs.parameters()], cotangent)
    for a, b in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
