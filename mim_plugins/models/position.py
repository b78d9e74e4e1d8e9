"""Fixed two-dimensional sine-cosine position embeddings, as in the official MAE."""

import torch
from torch import Tensor


def sincos_position_embedding(
    grid: tuple[int, int],
    embed_dim: int,
    cls_token: bool = True,
    temperature: float = 10000.0,
) -> Tensor:
    """Builds the sine-cosine table of MAE and DeepMIM (papers' official order).

    The first half of the channels encodes the column, the second half the row; in
    each half ``embed_dim / 4`` sines precede as many cosines. (mmpretrain's
    ``build_2d_sincos_position_embedding`` has the two halves swapped.)

    Args:
        grid: Rows and columns of the patch grid.
        embed_dim: Channels, a multiple of 4.
        cls_token: Whether a row of zeros for the class token comes first.
        temperature: Largest wavelength in units of 2 pi.

    Returns:
        (1, [1 +] rows * cols, embed_dim), float32; computed in float64.

    Raises:
        ValueError: If ``embed_dim`` is not a multiple of 4.
    """
    if embed_dim % 4:
        raise ValueError(
            "a sine-cosine position embedding needs an embed_dim that is a multiple "
            f"of 4, got {embed_dim}"
        )
    quarter = embed_dim // 4
    exponent = torch.arange(quarter, dtype=torch.float64) / quarter
    omega = temperature**-exponent
    rows, cols = (torch.arange(size, dtype=torch.float64) for size in grid)
    y, x = torch.meshgrid(rows, cols, indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (x, y)]  # 2 x (L, D/4)
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)
    if cls_token:
        table = torch.cat([table.new_zeros(1, embed_dim), table])
    return table.float()[None]
