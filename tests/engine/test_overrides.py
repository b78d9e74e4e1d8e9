"""Tests of how far the options of the command line reach."""

import pytest
from mmengine.config import Config
from samples import ROOT

from mim_plugins.engine.config.overrides import apply_options, unread_names

PIPELINE = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=224)]
FINETUNE = "deepmim/benchmarks/mae_vitb_finetune-100e_in1k.py"
DETECTION = "deepmim/detection/mae_vitb_mask-rcnn_coco.py"
SEGMENTATION = "deepmim/segmentation/mae_vitb_upernet_ade20k.py"


def recipe(path: str) -> Config:
    return Config.fromfile(ROOT / "configs" / path)


def dataset(root: str, **more) -> dict:
    return dict(dataset=dict(type="A", data_root=root, **more))


def test_pipeline__is_reached_by_its_short_name() -> None:
    cfg = recipe("deepmim/mae_vitb_300e.py")
    apply_options(cfg, {"train_pipeline.1.scale": 32})
    assert cfg.train_dataloader.dataset.dataset.pipeline[1].scale == 32
    assert cfg.train_pipeline[1].scale == 32
    assert cfg.test_pipeline[1].scale == 256


def test_pipeline__of_tests_reaches_validation_and_test() -> None:
    cfg = recipe(FINETUNE)
    apply_options(cfg, {"test_pipeline.1.scale": 235})
    assert cfg.val_dataloader.dataset.pipeline[1].scale == 235
    assert cfg.test_dataloader.dataset.pipeline[1].scale == 235
    assert (
        cfg.train_dataloader.dataset.dataset.pipeline == recipe(FINETUNE).train_pipeline
    )


def test_pipelines__that_are_equal_are_two() -> None:
    loaders = {
        f"{part}_dataloader": dict(dataset=dict(pipeline=PIPELINE))
        for part in ("train", "val", "test")
    }
    cfg = Config(dict(loaders, train_pipeline=PIPELINE, test_pipeline=PIPELINE))
    apply_options(cfg, {"train_pipeline.1.scale": 32, "test_pipeline.1.scale": 64})
    scales = [cfg[name].dataset.pipeline[1].scale for name in loaders]
    assert scales == [32, 64, 64]


def test_longer_key__wins() -> None:
    cfg = recipe("deepmim/mae_vitb_300e.py")
    key = "train_dataloader.dataset.dataset.pipeline.1.scale"
    apply_options(cfg, {key: 48, "train_pipeline.1.scale": 32})
    assert cfg.train_dataloader.dataset.dataset.pipeline[1].scale == 48


def test_pretrained__reaches_the_encoder() -> None:
    for path in (FINETUNE, DETECTION, SEGMENTATION):
        cfg = recipe(path)
        apply_options(cfg, {"pretrained": "/mine.pth"})
        assert cfg.model.backbone.init_cfg.checkpoint == "/mine.pth"


def test_knn_loader__reaches_the_hook_or_is_refused() -> None:
    cfg = recipe("deepmim/mae_vitb_300e.py")
    option = {"knn_train_dataloader.batch_size": 8}
    with pytest.raises(ValueError, match="nothing reads knn_train_dataloader"):
        apply_options(cfg, option)
    hook = dict(
        type="KNNHook",
        train_dataloader=cfg.knn_train_dataloader,
        val_dataloader=cfg.knn_val_dataloader,
    )
    cfg.custom_hooks = [*cfg.custom_hooks, hook]
    apply_options(cfg, option)
    assert cfg.custom_hooks[-1].train_dataloader.batch_size == 8
    assert cfg.custom_hooks[-1].val_dataloader.batch_size == 128


def test_validation__reaches_the_test_where_they_are_equal() -> None:
    cfg = recipe(FINETUNE)
    apply_options(cfg, {"val_dataloader.batch_size": 4}, testing=True)
    assert cfg.test_dataloader.batch_size == cfg.val_dataloader.batch_size == 4
    cfg.test_dataloader.batch_size = 2
    apply_options(cfg, {"val_dataloader.batch_size": 8})
    assert cfg.val_dataloader.batch_size == 8 and cfg.test_dataloader.batch_size == 2
    message = "a test does not read val_dataloader. Write.* test_dataloader.batch_size"
    with pytest.raises(ValueError, match=message):
        apply_options(cfg, {"val_dataloader.batch_size": 8}, testing=True)


@pytest.mark.parametrize("option", ["train_cfg.max_epochs", "train_pipeline.1.scale"])
def test_test__takes_the_options_of_the_training(option: str) -> None:
    apply_options(recipe(FINETUNE), {option: 1}, testing=True)


def test_test__at_several_scales_has_a_pipeline_of_its_own() -> None:
    path = "deepmim/segmentation/mae-clip_vitb_upernet-ms_ade20k.py"
    cfg = recipe(path)
    with pytest.raises(ValueError, match="Write instead: test_dataloader.*pipeline.1"):
        apply_options(cfg, {"test_pipeline.1.scale": (64, 64)}, testing=True)
    apply_options(cfg, {"tta_pipeline.0.imdecode_backend": "pillow"}, testing=True)
    assert cfg.test_dataloader.dataset.pipeline[0].imdecode_backend == "pillow"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_cgf.max_epochs", "has no train_cgf.*instead: train_cfg.max_epochs"),
        ("max_epochs", "Write instead: train_cfg.max_epochs"),
        ("batch_size", "Write instead: train_dataloader.batch_size"),
        ("lr", "Write instead: optim_wrapper.optimizer.lr"),
        ("img_size", "Write instead: model.backbone.img_size"),
        ("warmup_epochs", "param_scheduler.0.end or param_scheduler.1.begin"),
        ("data_preprocessor.mean", "Write instead: model.data_preprocessor.mean$"),
    ],
)
def test_name_that_nothing_reads__is_refused_with_what_to_write(
    option: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        apply_options(recipe("deepmim/mae_vitb_300e.py"), {option: 3})


def test_name_whose_copies_were_replaced__is_refused_with_what_to_write() -> None:
    """A child config that sets the variable alone changes nothing either."""
    cfg = recipe(FINETUNE)
    cfg.pretrained, cfg.train_pipeline = "other.pth", PIPELINE
    with pytest.raises(ValueError, match="model.backbone.init_cfg.checkpoint"):
        apply_options(cfg, {"pretrained": "/mine.pth"})
    key = "train_dataloader.dataset.dataset.pipeline.1.scale$"
    with pytest.raises(ValueError, match=key):
        apply_options(cfg, {"train_pipeline.1.scale": 32})
    cfg.test_pipeline = PIPELINE
    with pytest.raises(ValueError, match="val_dataloader.dataset.pipeline.1.scale or"):
        apply_options(cfg, {"test_pipeline.1.scale": 32})


def test_pipeline_without_a_name__is_named() -> None:
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=PIPELINE))))
    with pytest.raises(ValueError, match="train_dataloader.dataset.pipeline.1.scale"):
        apply_options(cfg, {"train_pipeline.1.scale": 32})


def test_data_root__reaches_every_data_set() -> None:
    cfg = Config(
        dict(
            data_root="data/old",
            train_dataloader=dict(dataset=dict(type="Wrap", **dataset("data/old/"))),
            val_dataloader=dataset("data/old/more"),
            custom_hooks=[
                dict(train_dataloader=dataset("data/old"), folder="data/old")
            ],
        )
    )
    apply_options(cfg, {"data_root": "/new", "optim_wrapper.optimizer.lr": 1})
    assert cfg.data_root == "/new"
    assert cfg.train_dataloader.dataset.dataset.data_root == "/new"
    assert cfg.val_dataloader.dataset.data_root == "/new/more"
    assert cfg.custom_hooks[0].train_dataloader.dataset.data_root == "/new"
    assert cfg.custom_hooks[0].folder == "data/old"
    assert cfg.optim_wrapper.optimizer.lr == 1


@pytest.mark.parametrize(
    "path", ["deepmim/mae_vitb_300e.py", FINETUNE, DETECTION, SEGMENTATION]
)
@pytest.mark.parametrize("moves_data", [False, True])
def test_data_root__reaches_the_data_sets_of_a_child(
    path, moves_data, tmp_path
) -> None:
    """Whether it sets the variable alone, or gives it to the data sets as well."""
    child = f"_base_ = '{ROOT / 'configs' / path}'\ndata_root = '/mine/'\n"
    if moves_data:
        inner = "dict(data_root=data_root)"
        if "detection" not in path and "segmentation" not in path:
            inner = f"dict(dataset={inner})"
        child += f"train_dataloader = dict(dataset={inner})\n"
        if "300e" in path:
            child += "knn_train_dataloader = dict(dataset=dict(data_root=data_root))\n"
            child += "knn_val_dataloader = dict(dataset=dict(data_root=data_root))\n"
        else:
            child += "val_dataloader = dict(dataset=dict(data_root=data_root))\n"
            child += "test_dataloader = val_dataloader\n"
    (tmp_path / "child.py").write_text(child)
    cfg = Config.fromfile(tmp_path / "child.py")
    apply_options(cfg, {"data_root": "/new"})
    text = cfg.pretty_text
    assert "/mine" not in text and "data/" not in text.replace("/new", "")
    if path == DETECTION:
        for metric in (cfg.val_evaluator, cfg.test_evaluator):
            assert metric.ann_file == "/new/annotations/instances_val2017.json"


def test_unread_names__are_those_a_child_sets_alone(tmp_path) -> None:
    base = ROOT / "configs" / FINETUNE
    (tmp_path / "child.py").write_text(
        f"_base_ = '{base}'\ndata_root = '/mine'\npretrained = 'x.pth'\n"
        "test_pipeline = [dict(type='LoadImageFromFile')]\n"
        "data_preprocessor = dict(mean=[1.0])\n"
    )
    child = Config.fromfile(tmp_path / "child.py")
    names = {"data_root", "pretrained", "test_pipeline", "data_preprocessor"}
    assert unread_names(child).keys() == names


def test_data_root__of_several_folders_is_refused_with_their_keys() -> None:
    cfg = Config(
        dict(
            data_root="data/old",
            train_dataloader=dataset("data/old"),
            val_dataloader=dataset("data/other"),
        )
    )
    message = "several: train_dataloader.dataset.data_root=data/old, val_dataloader"
    with pytest.raises(ValueError, match=message):
        apply_options(cfg, {"data_root": "/new"})
    # Unless the odd one is named.
    options = {"data_root": "/new", "val_dataloader.dataset.data_root": "/odd"}
    apply_options(cfg, options)
    assert cfg.train_dataloader.dataset.data_root == "/new"
    assert cfg.val_dataloader.dataset.data_root == "/odd"


def test_data_root__that_a_metric_does_not_follow_is_refused() -> None:
    cfg = Config(
        dict(
            val_dataloader=dataset("data/old", ann_file="val.json"),
            val_evaluator=dict(type="M", ann_file="elsewhere/all.json"),
        )
    )
    with pytest.raises(ValueError, match="does not reach val_evaluator.ann_file"):
        apply_options(cfg, {"data_root": "/new"})


def test_data_root__of_a_config_without_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="has none"):
        apply_options(Config(dict(train_dataloader=dict())), {"data_root": "/new"})
