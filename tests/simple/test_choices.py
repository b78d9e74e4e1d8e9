"""What is chosen for a folder of images: epochs, batch, patches, sizes."""

import pytest

from mim_plugins.simple import choices


@pytest.mark.parametrize(
    ("images", "gpu", "epochs"),
    [
        (5, True, 800),
        (250, True, 800),
        (250_000, True, 400),
        (10_000_000, True, 100),
        (5, False, 800),
        (250, False, 400),
        (100_000, False, 1),
    ],
)
def test_epochs__are_more_for_fewer_images(images, gpu, epochs):
    assert choices.choose_epochs("pretrain", images, gpu) == epochs


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(1, 0), (2, 1), (15, 2), (100, 10), (800, 40)]
)
def test_warmup__is_a_tenth_and_at_most_the_recipes(epochs, warmup):
    assert choices.choose_warmup(epochs) == warmup


@pytest.mark.parametrize(
    ("images", "gpu", "batch"),
    [
        (1, False, 1),
        (5, False, 5),
        (16, False, 8),
        (250, False, 32),
        (100_000, False, 64),
        (100_000, True, 1024),
    ],
)
def test_batch__leaves_steps_for_an_epoch(images, gpu, batch):
    assert choices.choose_batch(images, gpu) == batch


def test_rate__follows_the_square_root_of_the_batch():
    assert choices.choose_rate(2.4e-3, 4096, 1024) == pytest.approx(1.2e-3)


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((224, 224), 16),
        ((96, 96), 16),
        ((64, 160), 16),
        ((64, 64), 8),
        ((32, 32), 4),
        ((28, 28), 4),
        ((16, 16), 2),
        ((45, 45), 5),
    ],
)
def test_patch__leaves_enough_of_them(size, patch):
    assert choices.choose_patch(size) == patch


@pytest.mark.parametrize(
    ("size", "patch"), [((96, 96), 16), ((32, 32), 4), ((48, 48), 8)]
)
def test_patch_for_several_scales__allows_cells_of_twice_its_size(size, patch):
    assert choices.choose_patch(size, multi_scale=True) == patch


def test_size_without_a_patch__is_refused_with_one_that_works():
    with pytest.raises(ValueError, match="take img_size=96"):
        choices.choose_patch((97, 97))
    with pytest.raises(ValueError, match="take img_size=28, or another patch_size"):
        choices.check_patch((30, 30), 7)
    with pytest.raises(ValueError, match="take img_size=64x160"):
        choices.check_patch((64, 161), 16)


@pytest.mark.parametrize(
    ("size", "one_size", "chosen"),
    [
        ((28, 28), True, (28, 28)),
        ((64, 160), True, (64, 160)),
        ((480, 640), True, (224, 224)),
        ((100, 150), False, (96, 96)),
        ((9, 9), True, (16, 16)),
        ((97, 97), True, (96, 96)),
    ],
)
def test_image_size__is_that_of_the_images_where_it_can_be(size, one_size, chosen):
    assert choices.choose_size(size, one_size) == chosen


def test_image_size__is_one_number_or_two():
    assert choices.as_size(96) == choices.as_size([96]) == (96, 96)
    assert choices.as_size([64, 160]) == (64, 160)
    for wrong in (0, [1, 2, 3], [64.0, 64]):
        with pytest.raises(ValueError, match="img_size is"):
            choices.as_size(wrong)


def test_workers__are_none_for_a_few_images_and_no_more_than_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)), raising=False)
    assert choices.choose_workers(10) == 0
    assert choices.choose_workers(1000) == 3
