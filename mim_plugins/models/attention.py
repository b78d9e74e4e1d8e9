"""The one attention function of the package, its backend chosen by device and dtype."""

import torch
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.nn import functional as F


def attention_backend(
    device_type: str, dtype: torch.dtype, needs_grad: bool = True
) -> str:
    """Names the backend that :func:`attention` takes: ``fused`` or ``explicit``.

    Fused attention wins on CUDA and on the CPU in fp32. On the CPU in bf16 its
    backward pass is slower than two matrix products and a softmax, so training
    there takes the explicit form.
    """
    slow_backward = device_type == "cpu" and dtype == torch.bfloat16 and needs_grad
    return "explicit" if slow_backward else "fused"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention ``softmax(q k^T / sqrt(d) + bias) v``.

    Args:
        query: (N, heads, L_q, d).
        key: (N, heads, L_k, d).
        value: (N, heads, L_k, d).
        dropout_p: Dropout probability of the attention weights.
        bias: Added to the logits, -inf where a pair does not meet; broadcast to (N,
            heads, L_q, L_k). Always fused: on the CPU torch then computes bf16 in
            fp32, several times faster than the many small bf16 products.

    Returns:
        (N, heads, L_q, d).
    """
    if bias is not None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout_p
        )
    needs_grad = torch.is_grad_enabled() and query.requires_grad
    if attention_backend(query.device.type, query.dtype, needs_grad) == "fused":
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_p)
    weights = attention_logits(query, key).softmax(dim=-1)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    # Under autocast the softmax is fp32; the product takes the operands' dtype.
    return weights.to(value.dtype) @ value


def attention_logits(query: Tensor, key: Tensor) -> Tensor:
    """Logits before the softmax, ``q k^T / sqrt(d)``, (N, heads, L_q, L_k).

    The query is scaled before the product: L_q * d multiplications in place of
    L_q * L_k.
    """
    return (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)


def self_attention_logits(attn: MultiheadAttention, normed: Tensor) -> Tensor:
    """Logits of mmpretrain's self-attention, (N, L, C) -> (N, heads, L, L).

    They are computed beside the layer, which goes on using fused attention; values,
    which they do not depend on, are not.
    """
    dims = 2 * attn.embed_dims
    bias = None if attn.qkv.bias is None else attn.qkv.bias[:dims]
    query, key = F.linear(normed, attn.qkv.weight[:dims], bias).chunk(2, dim=-1)
    return attention_logits(
        split_heads(query, attn.num_heads), split_heads(key, attn.num_heads)
    )


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(N, L, C) -> (N, heads, L, C / heads)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def use_attention_dispatch(module: nn.Module) -> None:
    """Lets every ``MultiheadAttention`` of mmpretrain below ``module`` use ours."""
    for layer in module.modules():
        if isinstance(layer, MultiheadAttention):
            layer.scaled_dot_product_attention = attention
