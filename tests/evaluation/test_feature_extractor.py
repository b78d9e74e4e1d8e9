"""mmpretrain's FeatureExtractor, for models of pre-training."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import FeatureExtractor, get_model
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, hiera_model, laid_out_only, tiny_model

from mim_plugins.evaluation.encoder import plain_features
from mim_plugins.models.selfsup.feature_extraction import extract_features
from mim_plugins.models.selfsup.image_loading import inference_pipeline


@pytest.fixture
def image(tmp_path) -> str:
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    return str(tmp_path / "a.png")


def test_model__gives_features_of_files_arrays_and_lists(image, build):
    model = build()
    extractor = FeatureExtractor(model)
    picture = cv2.imread(image)
    cls, *others = extractor([image, picture, image], batch_size=2, stage="cls")
    assert cls.shape == (24,) and len(others) == 2
    for other in others:
        torch.testing.assert_close(other, cls, atol=1e-6, rtol=0)
    (mean,) = extractor(picture, stage="mean")
    (patch,) = extractor(image, stage="patch")
    torch.testing.assert_close(patch.mean(dim=0), mean)
    # By default what the encoder itself gives.
    ((own,),) = extractor(image)
    torch.testing.assert_close(own, cls, atol=1e-5, rtol=0)
    # Resized and cropped to the encoder's images, normalised, nothing masked.
    small = cv2.resize(picture[:, 5:45], (32, 32), interpolation=cv2.INTER_AREA)
    (near,) = extractor(small, stage="mean")
    assert torch.cosine_similarity(near, mean, dim=0) > 0.9
    exact = torch.from_numpy(small).permute(2, 0, 1)[None]
    inputs = model.data_preprocessor(dict(inputs=exact))["inputs"]
    torch.testing.assert_close(near, model.patch_mean(inputs)[0], atol=1e-6, rtol=0)


def test_config_and_file__load_the_weights_given(tmp_path, image, build):
    model = build()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    expected = FeatureExtractor(model)(image, stage="mean")[0]
    (tmp_path / "tiny.py").write_text(f"model = {tiny_model()!r}\n")
    for cfg in (Config(dict(model=tiny_model())), str(tmp_path / "tiny.py")):
        extractor = FeatureExtractor(cfg, pretrained=str(tmp_path / "x.pth"))
        assert torch.equal(extractor(image, stage="mean")[0], expected)


def test_name__is_enough(tmp_path, image):
    name = "distilled_mae-vitt_400e"
    model = get_model(name)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    extractor = FeatureExtractor(name, pretrained=str(tmp_path / "x.pth"))
    (mean,) = extractor(image, stage="mean")
    assert mean.shape == (192,)
    assert torch.equal(mean, FeatureExtractor(model)(image, stage="mean")[0])


def test_config__says_how_images_are_made_ready(image):
    cfg = Config(dict(model=tiny_model()))
    crop = dict(type="CenterCrop", crop_size=32)
    cfg.test_pipeline = [dict(type="LoadImageFromFile"), crop, dict(type="PackInputs")]
    extractor = FeatureExtractor(cfg, pretrained=False)
    assert [type(t).__name__ for t in extractor.pipeline.transforms] == [
        "CenterCrop",
        "PackInputs",
    ]
    whole = FeatureExtractor(Config(dict(model=tiny_model())), pretrained=False)
    whole.model.load_state_dict(extractor.model.state_dict())
    mean = extractor(image, stage="mean")[0]
    assert not torch.allclose(mean, whole(image, stage="mean")[0])
    centre = cv2.imread(image)[4:36, 9:41]
    torch.testing.assert_close(mean, whole(centre, stage="mean")[0])
    # The given config is as it was.
    assert "test_dataloader" not in cfg


@pytest.mark.parametrize(
    "config", ["deepmim/mae_vitb_300e", "localmim/swinb_hog_100e", "mae/vitb_1600e"]
)
def test_config_files__make_224_pixels(config):
    cfg = Config.fromfile(ROOT / "configs" / f"{config}.py")
    with laid_out_only():
        backbone = MODELS.build(cfg.model.backbone)
    steps = inference_pipeline(cfg, backbone)
    assert [step["type"] for step in steps[1:]] == [
        "ResizeEdge",
        "CenterCrop",
        "PackInputs",
    ]
    assert steps[2]["crop_size"] == 224


def swin(**backbone) -> dict:
    arch = dict(embed_dims=8, depths=(1, 2, 2, 1), num_heads=(1, 2, 2, 4))
    return dict(type="MIMSwinTransformer", arch=arch, img_size=64, **backbone)


@pytest.mark.parametrize(
    "cfg",
    [
        hiera_model()["backbone"],
        swin(window_size=4),
        dict(swin(window_size=4), type="SimMIMSwin", arch=swin()["arch"]),
        dict(type="MIMVisionTransformer", arch=TINY_ARCH, img_size=(64, 96)),
    ],
    ids=["hiera", "swin", "simmim", "vit"],
)
def test_patches__are_where_the_unmasked_encoder_has_them(cfg):
    cfg = {key: x for key, x in cfg.items() if key != "taps"}
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    backbone.eval()
    inputs = torch.randn(2, 3, *((64, 96) if "Vision" in cfg["type"] else (64, 64)))
    masked, plain = (
        extract_features(backbone, inputs),
        plain_features(backbone, inputs),
    )
    assert masked.grid == plain.grid and masked.patch.std(dim=1).min() > 1e-3
    torch.testing.assert_close(masked.patch, plain.patch, atol=1e-5, rtol=0)
    torch.testing.assert_close(masked.mean, plain.mean, atol=1e-5, rtol=0)
    rows, cols = masked.grid
    assert masked.patch.shape[1] == rows * cols


def test_mistakes__are_named(image, build):
    with pytest.raises(ValueError, match="stage='neck': a DeepMIM gives .*cls, mean"):
        FeatureExtractor(build())(image, stage="neck")
    hiera = FeatureExtractor(MODELS.build(hiera_model()))
    with pytest.raises(ValueError, match="no class token.*take 'mean'"):
        hiera(image, stage="cls")
