"""From a pre-training to a segmentor: loaded, trained, tested, drawn."""

from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from samples import ROOT, TINY_ARCH, ade20k_layout, small_segmentor, tiny_model

from mim_plugins import engine
from mim_plugins.checkpoints import to_official
from mim_plugins.checkpoints.files import save_state

mmseg_models = pytest.importorskip("mmseg.models")
mmseg_datasets = pytest.importorskip("mmseg.datasets")

CONFIG = "distilled/segmentation/d2-mae_vitt_semantic-fpn_ade20k.py"
MULTI_SCALE = CONFIG.replace("-fpn_", "-fpn-ms_")
ADE = mmseg_datasets.ADE20KDataset.METAINFO["classes"]
# What pre-training does not have.
FRESH = ("relative_position_bias_table", "gamma_1", "gamma_2")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A data set, and small config files for it."""
    folder = tmp_path_factory.mktemp("segmentation")
    ade20k_layout(folder / "data")
    for name, path in (("small", CONFIG), ("multi_scale", MULTI_SCALE)):
        cfg = Config.fromfile(ROOT / "configs" / path)
        small_segmentor(cfg, folder / "data", folder / "runs")
        cfg.dump(folder / f"{name}.py")
    return folder


def pretrained_for_a_few_iterations():
    """DeepMIM on 64x64 images, which has seen noise three times."""
    model = MODELS.build(tiny_model(backbone=dict(img_size=48, patch_size=16)))
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        losses = model.loss(torch.randn(2, 3, 48, 48), None)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


@pytest.mark.parametrize("layout", ["ours", "official"])
def test_encoder__is_loaded_whole_and_the_rest_starts_afresh(layout, small, tmp_path):
    state = pretrained_for_a_few_iterations()
    path = tmp_path / "pretrained.pth"
    if layout == "ours":
        torch.save(dict(state_dict=state), path)
    else:
        save_state(to_official(state)[0], path, wrapper="model")
    cfg = Config.fromfile(small / "small.py")
    cfg.model.backbone.init_cfg = dict(
        type="Pretrained", checkpoint=str(path), prefix="backbone."
    )
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = mmseg_models.build_segmentor(cfg.model)
        model.init_weights()
    own = model.backbone.state_dict()
    fresh = {key for key in own if key.endswith(FRESH)}
    assert len(fresh) == 3 * TINY_ARCH["num_layers"]
    for key, value in own.items():
        loaded = state.get(f"backbone.{key}")
        if key.endswith("_index"):
            continue
        if key == "pos_embed":
            # 3x3 patches became 4x4; the class token's place is as it was.
            assert value.shape == (1, 17, 24) and loaded.shape == (1, 10, 24)
            assert torch.equal(value[:, :1], loaded[:, :1])
        elif key in fresh:
            assert loaded is None
            assert (value == (0 if "table" in key else 1)).all()
        else:
            assert torch.equal(value, loaded), key


def test_config_file__trains_tests_and_draws(small, tmp_path):
    apis = pytest.importorskip("mmseg.apis")
    checkpoint = str(tmp_path / "run" / "iter_1.pth")
    with DefaultScope.overwrite_default_scope("mmseg"):
        runner = engine.train(small / "small.py", work_dir=str(tmp_path / "run"))
        assert runner.iter == 1
        metrics = engine.test(
            small / "small.py", checkpoint, work_dir=str(tmp_path / "test")
        )
        assert set(metrics) >= {"mIoU", "aAcc"}
        drawer = apis.MMSegInferencer(str(small / "small.py"), checkpoint, device="cpu")
        image = str(small / "data" / "images" / "validation" / "0.jpg")
        result = drawer(image, out_dir=str(tmp_path / "out"))
        # The checkpoint knows its classes, and what 0 means.
        for change, message in (
            (
                dict(reduce_zero_label=False),
                "False in test_data.*, True in",
            ),
            (
                dict(metainfo=dict(classes=ADE[::-1])),
                "training and test_data",
            ),
        ):
            changed = {f"test_dataloader.dataset.{k}": v for k, v in change.items()}
            with pytest.raises(engine.InputError, match=message):
                engine.test(small / "small.py", checkpoint, cfg_options=changed)
    log = next((tmp_path / "test").rglob("*.log")).read_text()
    assert "of 150 classes, no label of this data is" in log
    assert result["predictions"].shape == (48, 80)
    (picture,) = (tmp_path / "out" / "vis").iterdir()
    drawn = mmcv.imread(str(picture))
    assert drawn.shape[:2] == (48, 80)
    # Classes have colours: no grey.
    assert (drawn.max(-1).astype(int) - drawn.min(-1) > 8).mean() > 0.5
    # Images without labels at several scales, by the same checkpoint.
    with DefaultScope.overwrite_default_scope("mmseg"):
        drawer = apis.MMSegInferencer(
            str(small / "multi_scale.py"), checkpoint, device="cpu"
        )
        result = drawer(image, out_dir=str(tmp_path / "multi_scale"))
    assert result["predictions"].shape == (48, 80)
    classes = runner.train_dataloader.dataset.metainfo["classes"]
    assert drawer.visualizer.dataset_meta["classes"] == classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model.decode_head.num_classes": 11},
            "train_dataloader has 150 classes .*decode_head.num_classes=11: .*=150",
        ),
        ({"data_root": "absent"}, "absent/images/training.*data_root"),
        (
            {"train_dataloader.dataset.data_prefix.seg_map_path": "labels"},
            "folder of label maps, .*labels, does not exist",
        ),
        (
            {"model.data_preprocessor.size": (48, 48), "model.backbone.img_size": 48},
            "training images have 64x64 pixels, .*those of 48x48: set crop_size",
        ),
    ],
)
def test_bad_input__is_refused_before_the_first_iteration(
    options, message, small, tmp_path
):
    with DefaultScope.overwrite_default_scope("mmseg"):
        with pytest.raises(engine.InputError, match=message):
            engine.train(
                small / "small.py", work_dir=str(tmp_path / "run"), cfg_options=options
            )
    assert not list(Path(tmp_path).rglob("iter_*.pth"))
