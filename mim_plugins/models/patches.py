"""Images to patch vectors and back."""

from torch import Tensor, nn


def patch_grid(
    image_size: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[int, int]:
    """Rows and columns of the patches of an image, all sizes in pixels.

    Raises:
        ValueError: If the image does not divide into patches.
    """
    if any(side % patch for side, patch in zip(image_size, patch_size, strict=True)):
        raise ValueError(
            f"image size {image_size} is not a multiple of the patch size {patch_size}:"
            " change img_size (and the crop of the data pipeline) or patch_size"
        )
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]


def patchify(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cuts images into flat patches, (N, C, H, W) -> (N, L, p*q*C).

    A patch vector runs over its rows, then its columns, then the channels, the
    official order of MAE; patches are in raster order.

    Args:
        images: Height and width are multiples of the grid's rows and columns.
        grid: Rows and columns of the patch grid.
    """
    n, c, h, w = images.shape
    rows, cols = grid
    blocks = images.reshape(n, c, rows, h // rows, cols, w // cols)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * cols, -1)


def unpatchify(
    patches: Tensor, grid: tuple[int, int], patch_size: tuple[int, int]
) -> Tensor:
    """Inverse of :func:`patchify`, (N, L, p*q*C) -> (N, C, rows*p, cols*q)."""
    n, _, dims = patches.shape
    (rows, cols), (p, q) = grid, patch_size
    blocks = patches.reshape(n, rows, cols, p, q, dims // (p * q))
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, rows * p, cols * q)


def projection_weights(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """A patch embedding as a linear layer over :func:`patchify`'s vectors.

    Returns:
        Weight (D, p*q*C) and bias (D,).
    """
    return conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias
