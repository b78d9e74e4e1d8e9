"""The building blocks of a plain vision transformer, as in timm 0.3.2."""

import torch
from torch import nn


class Attention(nn.Module):
    """Multi-head self-attention that writes out the attention matrix.

    Args:
        dim: Token width.
        num_heads: Number of heads, a divisor of ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix tokens (N, L, C) -> (N, L, C)."""
        n, length, c = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, c // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, N, H, L, D)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q @ k.transpose(-2, -1)) * self.scale  # (N, H, L, L)
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(n, length, c)
        return self.proj(x)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

    Args:
        dim: Token width.
        hidden_dim: Width of the hidden layer.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform each token (N, L, C) -> (N, L, C)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block.

    Args:
        dim: Token width.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP over the token width.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply attention and MLP to tokens (N, L, C) -> (N, L, C)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A strided convolution that turns every patch into a token.

    Args:
        patch_size: Side of a square patch in pixels.
        in_chans: Image channels.
        dim: Token width.
    """

    def __init__(self, patch_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images (N, C, H, W) -> (N, L, dim) in raster order."""
        return self.proj(images).flatten(2).transpose(1, 2)


def sincos_position_embedding(dim: int, grid: tuple[int, int]) -> torch.Tensor:
    """Build MAE's fixed two-dimensional sine-cosine table with a zero first row.

    Args:
        dim: Token width, a multiple of 4. Its first half encodes the column of a
            patch and its second half the row; each half is sines, then cosines.
        grid: Rows and columns of patches.

    Returns:
        A float32 tensor (1, 1 + rows * cols, dim).
    """
    rows, cols = grid
    omega = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(cols, dtype=torch.float64),
        indexing="ij",
    )
    halves = []
    for position in (x, y):
        angle = position.reshape(-1, 1) * omega  # (L, dim / 4)
        halves += [angle.sin(), angle.cos()]
    table = torch.cat(halves, dim=1)  # (L, dim)
    return torch.cat([torch.zeros(1, dim), table.float()])[None]
