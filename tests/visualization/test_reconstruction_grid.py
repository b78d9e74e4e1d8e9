"""Tests of the reconstruction tables."""

import numpy as np
import pytest
import torch

from mim_plugins.visualization import (
    pixel_mask,
    reconstruction_grid,
    to_pixels,
    value_range,
)

MEAN, STD = torch.tensor([100.0, 120.0, 140.0]), torch.tensor([50.0, 60.0, 70.0])


def test_to_pixels__undoes_the_normalisation() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 6)).float()
    normalised = (pixels - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    assert torch.allclose(to_pixels(normalised, MEAN, STD), pixels, atol=1e-3)
    assert to_pixels(normalised + 100, MEAN, STD).max() == 255


def test_pixel_mask__covers_the_removed_patches() -> None:
    mask = torch.tensor([[1, 0, 0, 0, 0, 1]])
    pixels = pixel_mask(mask, grid=(2, 3), size=(4, 12))[0, 0]
    expected = torch.zeros(4, 12, dtype=torch.bool)
    expected[:2, :4] = True
    expected[2:, 8:] = True
    assert torch.equal(pixels, expected)


def cells_of(table: np.ndarray, columns: int, size: int) -> list[np.ndarray]:
    """Cut the first row of a table with square cells, from the bottom up."""
    gap = 4
    top = table.shape[0] - gap - size
    return [
        table[top : top + size, gap + i * (size + gap) :][:, :size]
        for i in range(columns)
    ]


@pytest.mark.parametrize("channels, drawn", [(1, [0, 0, 0]), (3, [0, 1, 2])])
def test_reconstruction_grid__cells_show_what_they_say(
    channels: int, drawn: list[int]
) -> None:
    size = 128
    images = torch.rand(1, channels, size, size)
    prediction = torch.zeros_like(images)
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    table = reconstruction_grid(
        images,
        mask,
        {"block 6": torch.ones_like(images), "block 12": prediction},
        mean=torch.zeros(channels),
        std=torch.full((channels,), 255.0),
        grid=(2, 2),
    )
    assert table.dtype == np.uint8 and table.ndim == 3 and table.shape[2] == 3
    original, masked, first, last, pasted = cells_of(table, 5, size)
    expected = (images[0, drawn] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(original, expected)
    assert np.array_equal(masked[:64, 64:], expected[:64, 64:])
    assert len(np.unique(masked[:64, :64])) == 1
    assert (first == 255).all() and (last == 0).all()
    assert (pasted[:64, :64] == 0).all() and (pasted[64:, 64:] == 0).all()
    assert np.array_equal(pasted[64:, :64], expected[64:, :64])
    # Captions are written above the cells.
    header = table[: table.shape[0] - size - 8]
    assert (header < 128).any()


def test_reconstruction_grid__small_images_are_enlarged() -> None:
    images = torch.rand(2, 5, 8, 8)
    table = reconstruction_grid(
        images,
        torch.tensor([[1.0, 0, 0, 0]] * 2),
        {"prediction": images},
        torch.zeros(1),
        torch.full((1,), 255.0),
        (2, 2),
    )
    cell = cells_of(table, 1, 112)[0]
    shrunk = cell[7::14, 7::14]
    expected = (images[1, :3] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(shrunk, expected)


def test_reconstruction_grid__refuses_another_shape() -> None:
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"'block 6'.*\(1, 3, 4, 4\)"):
        reconstruction_grid(
            images,
            torch.zeros(1, 4),
            {"block 6": images[..., :4, :4]},
            MEAN,
            STD,
            (2, 2),
        )


@pytest.mark.parametrize(
    ("images", "shown"),
    [
        (torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), (0, 255)),
        (torch.randint(0, 256, (2, 3, 8, 8)).float(), (0, 255)),
        (torch.zeros(1, 1, 4, 4), (0, 1)),
        (torch.rand(2, 3, 99, 99), (0, 1)),
        (torch.rand(2, 1, 99, 99) * 4095, (0, 4095)),
        (torch.rand(2, 1, 99, 99) * 2 - 1, (-1, 1)),
    ],
)
def test_value_range__is_that_of_the_images(images, shown) -> None:
    span = shown[1] - shown[0]
    assert value_range(images) == pytest.approx(
        shown, abs=0.01 * span * (span < 255 or span > 256)
    )


def test_value_range__a_hot_pixel_does_not_make_the_rest_black() -> None:
    images = torch.rand(4, 1, 64, 64) * 1000
    images[0, 0, 0, 0] = 65535
    assert value_range(images)[1] < 1001


def test_reconstruction_grid__of_16_bits_shows_shades_and_notes() -> None:
    images = torch.linspace(0, 4095, 64 * 64).reshape(1, 1, 64, 64)
    ones, zeros = torch.ones(1), torch.zeros(1)
    arguments = (
        images,
        torch.tensor([[1.0, 0, 0, 0]]),
        {"p": images},
        zeros,
        ones,
        (2, 2),
    )
    plain = reconstruction_grid(*arguments, shown=(0, 4095))
    noted = reconstruction_grid(*arguments, shown=(0, 4095), notes=["word " * 40])
    assert np.array_equal(noted[: len(plain)], plain)
    assert (len(noted) - len(plain)) // 18 > 1 and (noted[len(plain) :] < 99).any()
    original = cells_of(plain, 1, 128)[0]
    assert len(np.unique(original)) > 200
