"""Features of images of runs that do not load plain 8-bit colour."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import FeatureExtractor as MMFeatureExtractor
from mmpretrain import get_model
from PIL import Image
from samples import ROOT, tiny_model
from small_run import saved

from mim_plugins.evaluation import FeatureExtractor
from mim_plugins.evaluation.embed import embed

DEEP = dict(type="LoadImageFromFile", color_type="unchanged", to_float32=True)
CROP = dict(type="TensorRandomResizedCrop", scale=32)


def run(folder, load, mean=123.0, std=58.0, channels=3, **config):
    """What a training leaves: network, config file and checkpoint."""
    model = tiny_model(
        data_preprocessor=dict(mean=[mean] * channels, std=[std] * channels),
        backbone=dict(in_channels=channels),
    )
    network, path, checkpoint = saved(model, folder)
    steps = [load, CROP, dict(type="PackPretrainInputs")]
    dataset = dict(type="UnlabelledImages", data_root="x", pipeline=steps)
    loader = dict(dataset=dict(type="SeededDataset", dataset=dataset))
    cfg = Config(dict(model=model, train_dataloader=loader, **config))
    cfg.dump(path)
    return network, path, checkpoint


def mean_of(network, pixels):
    """The feature of raw pixels, (H, W) or (H, W, C), of the encoder's size."""
    image = torch.from_numpy(np.atleast_3d(pixels).astype(np.float32))
    inputs = image.permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        inputs = network.data_preprocessor(dict(inputs=inputs), False)["inputs"]
        return network.patch_mean(inputs)[0].numpy()


def embedded(folder, checkpoint, images, **options):
    out = folder / "x.npz"
    embed(str(images), out, checkpoint=checkpoint, workers=0, force=True, **options)
    return np.load(out)["mean"]


@pytest.fixture
def deep(tmp_path):
    """Three 12-bit images in 16-bit files, of values below 256."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 250, (3, 32, 32), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
    return pixels


def test_run_on_16_bits__has_features_of_16_bits(tmp_path, deep):
    # With a test_pipeline that the run has inherited, of 8-bit colour.
    test = [
        dict(type="LoadImageFromFile"),
        dict(type="ResizeEdge", scale=32, backend="pillow", interpolation="bicubic"),
        dict(type="CenterCrop", crop_size=32),
        dict(type="PackInputs"),
    ]
    folder = tmp_path / "run"
    network, config, checkpoint = run(folder, DEEP, channels=1, test_pipeline=test)
    wanted = np.stack([mean_of(network, image) for image in deep])
    assert np.ptp(wanted, axis=0).max() > 0.01
    found = embedded(tmp_path, checkpoint, tmp_path / "images")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    files = sorted(map(str, (tmp_path / "images").glob("*.png")))
    extract = FeatureExtractor(config, pretrained=checkpoint)
    for inputs in (files, list(deep)):
        own = torch.stack(extract(inputs, batch_size=2, stage="mean"))
        np.testing.assert_allclose(own, wanted, atol=1e-5)
    theirs = MMFeatureExtractor(config, pretrained=checkpoint)
    with pytest.raises(ValueError, match="mim_plugins.evaluation.FeatureExtractor"):
        theirs(files[0], stage="mean")
    own = theirs(list(deep), batch_size=3, stage="mean")
    np.testing.assert_allclose(torch.stack(own), wanted, atol=1e-5)


@pytest.mark.parametrize("turned", [True, False])
def test_exif_orientation__is_that_of_training(tmp_path, turned):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "images" / "a.jpg", exif=exif)
    kind = "color" if turned else "color_ignore_orientation"
    load = dict(type="LoadImageFromFile", color_type=kind)
    network, config, checkpoint = run(tmp_path / "run", load)
    how = cv2.IMREAD_COLOR | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
    path = str(tmp_path / "images" / "a.jpg")
    image = cv2.imread(path, how)
    wanted = mean_of(network, image)
    (found,) = embedded(tmp_path, checkpoint, tmp_path / "images")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    (own,) = FeatureExtractor(config, pretrained=checkpoint)(path, stage="mean")
    np.testing.assert_allclose(own, wanted, atol=1e-5)


def test_demo__has_features_of_its_grey_images(tmp_path):
    config = str(ROOT / "configs" / "demo" / "mae_digits.py")
    model = get_model(config, pretrained=False)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    (found,) = embedded(
        tmp_path, str(tmp_path / "x.pth"), tmp_path / "images", model=config
    )
    np.testing.assert_allclose(found, mean_of(model.eval(), image), atol=1e-5)
    for kind in (FeatureExtractor, MMFeatureExtractor):
        extract = kind(config, pretrained=str(tmp_path / "x.pth"))
        (own,) = extract(str(tmp_path / "images" / "a.png"), stage="mean")
        np.testing.assert_allclose(own, found, atol=1e-5)


def test_normalisation_in_the_pipeline__is_kept(tmp_path, photos):
    load = dict(type="LoadImageFromFile")
    steps = dict(type="Normalize", mean=[123.0] * 3, std=[58.0] * 3, to_rgb=False)
    folder = tmp_path / "run"
    network, config, checkpoint = run(folder, load)
    wanted = embedded(tmp_path, checkpoint, photos)
    cfg = Config.fromfile(config)
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.train_dataloader.dataset.dataset.pipeline.insert(2, steps)
    cfg.dump(config)
    np.testing.assert_allclose(
        embedded(tmp_path, checkpoint, photos), wanted, atol=1e-4
    )


def test_images_that_do_not_fit__are_named(tmp_path, deep, photos):
    *_, checkpoint = run(tmp_path / "run", dict(DEEP, to_float32=False), channels=1)
    with pytest.raises(ValueError, match="cat/1.png.* 3 channels.*in_channels.*for 1"):
        embedded(tmp_path, checkpoint, photos)
