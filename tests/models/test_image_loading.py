"""Which steps of a run's pipelines load single images afterwards."""

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS
from samples import ROOT, laid_out_only, tiny_model

from mim_plugins.models.selfsup.image_loading import inference_pipeline, trained_steps

PACK = dict(type="PackPretrainInputs")
CROP = dict(type="TensorRandomResizedCrop", scale=32)
LOAD = dict(type="LoadImageFromFile", color_type="unchanged", to_float32=True)
TEST = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=36, backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=32),
    dict(type="PackInputs"),
]


def encoder(**backbone):
    with laid_out_only():
        return MODELS.build(tiny_model(backbone=backbone)["backbone"])


def types(steps):
    return [step["type"] for step in steps]


def trained_with(*steps, **others):
    loader = dict(dataset=dict(type="SeededDataset", dataset=dict(pipeline=steps)))
    return dict(train_dataloader=loader, **others)


def test_files_are_loaded_as_in_training_and_cut_as_in_testing():
    config = trained_with(LOAD, CROP, dict(type="DrawFlip"), PACK, test_pipeline=TEST)
    load, edge, crop, pack = inference_pipeline(config, encoder())
    assert load == LOAD and crop == TEST[2] and pack == TEST[3]
    # Pillow has no floats; of OpenCV's only this is antialiased.
    assert edge == {**TEST[1], "backend": "cv2", "interpolation": "area"}


def test_normalisation_and_ones_own_steps_are_kept_augmentation_is_not():
    norm = dict(type="Normalize", mean=[1.0], std=[1.0])
    steps = [
        LOAD,
        dict(type="LogScale"),
        CROP,
        dict(type="RandomFlip", prob=0.5),
        dict(type="MyRandomNoise"),
        dict(type="ColorJitter"),
        norm,
        PACK,
    ]
    assert trained_steps(trained_with(*steps)) == (
        [LOAD, dict(type="LogScale")],
        [norm],
    )
    assert types(inference_pipeline(trained_with(*steps), encoder())) == [
        "LoadImageFromFile",
        "LogScale",
        "ResizeEdge",
        "CenterCrop",
        "Normalize",
        "PackInputs",
    ]


@pytest.mark.parametrize(
    ("channels", "kind"),
    [(1, "grayscale"), (3, "color_ignore_orientation"), (5, "unchanged")],
)
def test_without_a_training_pipeline_channels_decide(channels, kind):
    steps = inference_pipeline({}, encoder(in_channels=channels))
    assert steps[0] == dict(type="LoadImageFromFile", color_type=kind)


def test_classifiers_are_tested_as_they_were():
    config = trained_with(LOAD, CROP, PACK, test_pipeline=TEST)
    assert inference_pipeline(config, encoder(), pretraining=False) == TEST


@pytest.mark.parametrize("training", [[], [LOAD, CROP, PACK]])
def test_images_of_another_size_than_the_encoders_are_refused(training):
    config = trained_with(*training, test_pipeline=TEST)
    with pytest.raises(
        ValueError, match="32x32 pixels.*for 64x64.*test_pipeline.2.crop_size=64"
    ):
        inference_pipeline(config, encoder(img_size=64))
    stretched = dict(type="Resize", scale=(32, 64))  # width, height
    config["test_pipeline"] = [LOAD, stretched, TEST[3]]
    inference_pipeline(config, encoder(img_size=(64, 32)))
    with pytest.raises(ValueError, match="64x32 pixels.*for 32x64"):
        inference_pipeline(config, encoder(img_size=(32, 64)))


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("mae", "deepmim", "localmim", "mirl", "distilled", "demo")
        for path in (ROOT / "configs" / folder).glob("*.py")
        if not path.stem.startswith(("finetune", "tracker"))
    ),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_pre_training_config_makes_images_of_its_size(path):
    cfg = Config.fromfile(path)
    with laid_out_only():
        backbone = MODELS.build(cfg.model.backbone)
    steps = inference_pipeline(cfg, backbone)
    assert steps[0] == trained_steps(cfg)[0][0]
