"""The attention dispatcher: same values whichever backend is chosen."""

import pytest
import torch
from torch.nn import functional as F

from mim_plugins.models import MIMVisionTransformer
from mim_plugins.models import attention as module
from mim_plugins.models.attention import attention, attention_backend


def test_backend__explicit_only_where_fused_is_slower():
    assert attention_backend("cpu", torch.bfloat16) == "explicit"
    assert attention_backend("cpu", torch.bfloat16, needs_grad=False) == "fused"
    assert attention_backend("cpu", torch.float32) == "fused"
    assert attention_backend("cuda", torch.bfloat16) == "fused"


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
    assert [dtype for _, dtype, _ in calls] == [torch.bfloat16] * 2
