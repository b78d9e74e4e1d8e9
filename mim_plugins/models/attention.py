"""The one attention function of the package, its backend chosen by device and dtype."""

import torch
from mmpretrain.models.utils import MultiheadAttention, WindowMSA
from torch import Tensor, nn
from torch.nn import functional as F


def attention_backend(
    device_type: str,
    dtype: torch.dtype,
    needs_grad: bool = True,
    trains_bias: bool = False,
) -> str:
    """Names the backend that :func:`attention` takes: ``fused`` or ``explicit``.

    Fused attention wins on CUDA and, without gradients, on the CPU. There its backward
    pass is slower than two matrix products and a softmax in two cases: in bf16, and in
    fp32 where the bias is trained. (In bf16 with a bias torch computes in fp32, several
    times faster than the many small bf16 products.)
    """
    slow_dtype = torch.float32 if trains_bias else torch.bfloat16
    slow_backward = device_type == "cpu" and needs_grad and dtype == slow_dtype
    return "explicit" if slow_backward else "fused"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention ``softmax(scale q k^T + bias) v``.

    Args:
        query: (N, heads, L_q, d).
        key: (N, heads, L_k, d).
        value: (N, heads, L_k, d).
        dropout_p: Dropout probability of the attention weights.
        bias: Added to the logits, -inf where a pair does not meet; broadcast to (N,
            heads, L_q, L_k).
        scale: Factor on the products; ``d ** -0.5`` by default.

    Returns:
        (N, heads, L_q, d).
    """
    recorded = torch.is_grad_enabled()
    backend = attention_backend(
        query.device.type,
        query.dtype,
        recorded and query.requires_grad,
        recorded and bias is not None and bias.requires_grad,
    )
    if backend == "fused":
        bias = None if bias is None else bias.to(query.dtype)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout_p, scale=scale
        )
    logits = attention_logits(query, key, scale)
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    # Under autocast the softmax is fp32; the product takes the operands' dtype.
    return weights.to(value.dtype) @ value


def attention_logits(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Logits before the softmax, ``scale q k^T``, (N, heads, L_q, L_k).

    The query is scaled before the product: L_q * d multiplications instead of
    L_q * L_k.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return (query * scale) @ key.transpose(-2, -1)


class WindowAttention(WindowMSA):
    """mmpretrain's ``WindowMSA``, by :func:`attention`."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention inside windows.

        Args:
            x: (N * windows, L, C).
            mask: What keeps the regions of a window apart, (windows, L, L).

        Returns:
            (N * windows, L, C).
        """
        length, heads = x.shape[1], self.num_heads
        qkv = self.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.position_bias()
        if mask is not None:
            # Windows join the heads dimension: one bias for all images.
            bias = (bias + mask.unsqueeze(1)).flatten(0, 1)
            qkv = qkv.reshape(3, -1, bias.shape[0], *qkv.shape[3:])
        dropout = self.attn_drop.p if self.training else 0.0
        query, key, value = qkv
        out = attention(query, key, value, dropout, bias, self.scale)
        out = out.reshape(-1, heads, length, out.shape[-1]).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out))

    def logits(self, x: Tensor) -> Tensor:
        """Logits with their bias before the softmax, (N * windows, heads, L, L)."""
        return self_attention_logits(self, x, self.scale) + self.position_bias()

    def position_bias(self) -> Tensor:
        """Bias of each pair of tokens of a window, (heads, L, L)."""
        bias = F.embedding(
            self.relative_position_index, self.relative_position_bias_table
        )
        return bias.permute(2, 0, 1)


def self_attention_logits(
    attn: MultiheadAttention | WindowMSA, normed: Tensor, scale: float | None = None
) -> Tensor:
    """Logits of mmpretrain's self-attention, (N, L, C) -> (N, heads, L, L).

    They are computed separately from the layer, which keeps its fused attention;
    values, which they do not depend on, are not computed.
    """
    dims = 2 * attn.embed_dims
    bias = None if attn.qkv.bias is None else attn.qkv.bias[:dims]
    query, key = F.linear(normed, attn.qkv.weight[:dims], bias).chunk(2, dim=-1)
    return attention_logits(
        split_heads(query, attn.num_heads), split_heads(key, attn.num_heads), scale
    )


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(N, L, C) -> (N, heads, L, C / heads)."""
    n, length, _ = tokens.shape
    return tokens.view(n, length, num_heads, -1).transpose(1, 2)


def use_attention_dispatch(module: nn.Module) -> None:
    """Makes mmpretrain's ``MultiheadAttention`` layers use :func:`attention`."""
    for layer in module.modules():
        if isinstance(layer, MultiheadAttention):
            layer.scaled_dot_product_attention = attention
