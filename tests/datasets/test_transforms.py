import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import default_collate
from mmpretrain.datasets import PackInputs, RandomFlip, RandomResizedCrop
from PIL import Image

from mim_plugins.datasets import (
    DrawFlip,
    PackPretrainInputs,
    TensorRandomResizedCrop,
    WherePresent,
)


def both(image, seed, **kwargs):
    """The same crop by torch and by Pillow."""
    crops = []
    for transform in (
        TensorRandomResizedCrop(**kwargs),
        RandomResizedCrop(backend="pillow", interpolation="bicubic", **kwargs),
    ):
        np.random.seed(seed)
        crops.append(transform(dict(img=image.copy()))["img"])
    return crops


def psnr(a, b):
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def drawn(height=150, width=200, channels=3):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (15, 20, channels), dtype=np.uint8)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return large.reshape(height, width, channels)


def test_crop__random_interpolation_is_drawn_per_image_and_leaves_the_box():
    image = drawn()
    made = []
    for seed in range(8):
        crops = {}
        for mode in ("bicubic", "bilinear", "random"):
            np.random.seed(seed)
            transform = TensorRandomResizedCrop(scale=64, interpolation=mode)
            crops[mode] = transform(dict(img=image.copy()))["img"]
        is_cubic = np.array_equal(crops["random"], crops["bicubic"])
        assert is_cubic or np.array_equal(crops["random"], crops["bilinear"])
        made.append(is_cubic)
    assert 0 < sum(made) < 8


def test_crop_equals_pillow_on_photographs(photos):
    load = LoadImageFromFile(color_type="color_ignore_orientation")
    transform = TensorRandomResizedCrop(scale=224, crop_ratio_range=(0.2, 1.0))
    identical = []
    for seed, path in enumerate(photos[:16]):
        image = load(dict(img_path=str(path)))["img"]
        ours, pillow = both(image, seed, scale=224, crop_ratio_range=(0.2, 1.0))
        identical.append((ours == pillow).mean())
        assert psnr(ours, pillow) >= 50
        # Newer Pillow releases start with the height of tall crops, which rounds
        # other values; width first is the order of the papers' time.
        np.random.seed(seed)
        top, left, height, width = transform.rand_crop_params(image)
        crop = Image.fromarray(image[top : top + height, left : left + width])
        for size in ((224, height), (224, 224)):
            crop = crop.resize(size, Image.Resampling.BICUBIC)
        assert psnr(ours, np.asarray(crop)) >= 60
        assert (ours == np.asarray(crop)).mean() >= 0.99
    assert np.mean(identical) >= 0.9


def test_crop_is_close_to_pillow_enlarging_and_reducing():
    for seed in range(8):
        ours, pillow = both(drawn(), seed, scale=(48, 160))
        assert ours.shape == (48, 160, 3)
        assert np.abs(ours.astype(int) - pillow).max() <= 3


def test_crop_draws_its_parents_boxes():
    ours = TensorRandomResizedCrop(scale=8)
    parent = RandomResizedCrop(scale=8)
    # The last size always falls back to a central crop.
    for height, width in ((150, 200), (33, 64), (7, 900)):
        image = np.zeros((height, width, 3), np.uint8)
        for seed in range(20):
            np.random.seed(seed)
            box = ours.rand_crop_params(image)
            state = np.random.random()
            np.random.seed(seed)
            assert parent.rand_crop_params(image) == box
            assert np.random.random() == state


@pytest.mark.parametrize("channels", [1, 4, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_treats_channels_alike(channels, dtype):
    image = drawn(channels=channels).astype(dtype)
    transform = TensorRandomResizedCrop(scale=32)
    np.random.seed(3)
    crop = transform(dict(img=image))["img"]
    assert crop.shape == (32, 32, channels)
    assert crop.dtype == dtype
    for channel in range(channels):
        np.random.seed(3)
        alone = transform(dict(img=image[..., channel]))["img"][..., 0]
        # torch has another uint8 kernel for more than four channels.
        assert np.abs(alone.astype(float) - crop[..., channel]).max() <= 1


def test_crop_is_fit_for_transforms_that_follow():
    results = TensorRandomResizedCrop(scale=16)(dict(img=drawn()))
    assert results["img_shape"] == (16, 16, 3)
    image = results["img"]
    image[:2] = 7
    assert (cv2.flip(image, 1) == image[:, ::-1]).all()
    # Nothing left to copy for a (C, H, W) tensor.
    assert torch.from_numpy(image).permute(2, 0, 1).is_contiguous()


def test_crop_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="lanczos"):
        TensorRandomResizedCrop(scale=16, interpolation="lanczos")
    with pytest.raises(TypeError, match="uint16"):
        TensorRandomResizedCrop(scale=16)(dict(img=drawn().astype(np.uint16)))


def test_flip_is_drawn_but_not_done():
    image = drawn()
    np.random.seed(0)
    flips = [DrawFlip(prob=0.25)(dict(img=image))["flip"] for _ in range(2000)]
    assert np.mean(flips) == pytest.approx(0.25, abs=0.03)
    assert not any(DrawFlip(prob=0.0)({})["flip"] for _ in range(50))
    assert all(DrawFlip(prob=1.0)({})["flip"] for _ in range(50))
    with pytest.raises(ValueError, match="1.5"):
        DrawFlip(prob=1.5)


def test_packed_batch_holds_one_tensor_per_entry():
    pack = PackPretrainInputs(keys=["mask"])
    items = [
        pack(
            dict(
                img=drawn(8, 12),
                sample_idx=index,
                seed=2**63 - 1 - index,
                flip=bool(index),
                replaced=0,
                mask=np.eye(2)[index],
                img_path="dropped.png",
            )
        )
        for index in range(2)
    ]
    batch = default_collate(items)
    assert batch["inputs"].shape == (2, 3, 8, 12)
    assert batch["inputs"].dtype == torch.uint8
    samples = batch["data_samples"]
    assert set(samples) == {"sample_idx", "seed", "flip", "replaced", "mask"}
    assert samples["seed"].tolist() == [2**63 - 1, 2**63 - 2]
    assert samples["flip"].tolist() == [False, True]
    assert samples["mask"].tolist() == [[1, 0], [0, 1]]


def test_packs_what_packinputs_packs():
    flipped = RandomFlip(prob=1.0)(dict(img=drawn()))["img"]
    for image in (drawn(), drawn(channels=1), drawn()[..., 0], flipped):
        expected = PackInputs()(dict(img=image))["inputs"]
        assert torch.equal(PackPretrainInputs()(dict(img=image))["inputs"], expected)


def test_where_present__applies_to_samples_with_the_key_alone():
    step = WherePresent("label", [dict(type="DrawFlip", prob=1.0)])
    assert step({"img": 0}) == {"img": 0}
    assert step({"label": 0}) == {"label": 0, "flip": True}
