"""Tests of the k-NN accuracy during pre-training."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from samples import ROOT
from toy_run import loader, make_runner

from mim_plugins.engine.config.overrides import apply_options
from mim_plugins.evaluation import KNNHook, extract_features
from mim_plugins.evaluation import knn as knn_module


def knn(**changes) -> dict:
    config = dict(
        type="KNNHook",
        train_dataloader=loader(count=12, labelled=True),
        val_dataloader=loader(count=7, labelled=True),
        interval=2,
        k=3,
    )
    return {**config, **changes}


def test_training__reports_the_accuracy_every_interval_and_at_the_end(
    tmp_path: Path,
) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg=dict(by_epoch=True, max_epochs=3),
        custom_hooks=[knn(at_start=True)],
    )
    runner.train()
    # Start, epoch 2, and the last epoch. Brightness separates the toy classes.
    history = runner.message_hub.get_scalar("knn_top1").data[0]
    assert history.tolist() == [100.0, 100.0, 100.0]
    scalars = (Path(runner.log_dir) / "vis_data" / "scalars.json").read_text()
    lines = [json.loads(line) for line in scalars.splitlines()]
    assert [line["epoch"] for line in lines if "knn_top1" in line] == [0, 2, 3]
    log = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "k-NN after epoch 2: knn_top1: 100.00 % of 7 images" in log
    checkpoint = torch.load(Path(runner.work_dir) / "epoch_2.pth", weights_only=False)
    saved = checkpoint["message_hub"]["log_scalars"]["knn_top1"]
    assert saved.data[0].tolist() == [100.0, 100.0]


def test_training__is_not_changed_by_looking(tmp_path: Path) -> None:
    states = []
    for hooks in ([], [knn(interval=1, at_start=True)]):
        runner = make_runner(
            tmp_path / str(len(hooks)),
            custom_hooks=hooks,
            # A shuffled loader draws from torch's generator at every epoch.
            train_dataloader={
                **loader(),
                "sampler": dict(type="DefaultSampler", shuffle=True),
            },
        )
        runner.train()
        assert runner.model.training
        states.append(runner.model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_unlabelled_images__are_named_as_the_problem(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, custom_hooks=[knn(train_dataloader=loader())])
    with pytest.raises(ValueError, match="KNNHook needs labelled images"):
        runner.train()


def test_model_without_features__is_named_before_training(tmp_path: Path) -> None:
    hook = knn(interval=100)
    hook.pop("type")
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"patch_mean\(\), but Linear has none"):
        KNNHook(**hook).before_train(runner)


def test_loaders__are_in_order_even_from_a_config_that_shuffles(tmp_path: Path) -> None:
    shuffled = {**loader(count=12, labelled=True), "shuffle": True}
    runner = make_runner(tmp_path, custom_hooks=[knn(train_dataloader=shuffled)])
    runner.train()
    assert runner.message_hub.get_scalar("knn_top1").current() == 100.0


@pytest.mark.parametrize("changes", [dict(interval=0), dict(k=0)])
def test_config__must_be_positive(changes: dict) -> None:
    config = knn(**changes)
    config.pop("type")
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must be"):
        KNNHook(**config)


@pytest.mark.parametrize("total, world", [(7, 2), (8, 3)])
def test_extract_features__several_processes_give_every_image_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, world: int
) -> None:
    # What DefaultSampler(shuffle=False, round_up=True) hands to the processes.
    padded = [i % total for i in range(-(-total // world) * world)]
    parts = [torch.tensor(padded[rank::world]) for rank in range(world)]
    monkeypatch.setattr(knn_module, "get_world_size", lambda: world)
    monkeypatch.setattr(knn_module, "all_gather", lambda local: parts)
    gathered = knn_module.in_order(parts[0], total)
    assert gathered.tolist() == list(range(total))


def test_extract_features__is_the_models_unmasked_mean(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.model.eval()
    data = runner.build_dataloader(loader(batch_size=5, count=7, labelled=True))
    with torch.no_grad():
        features, labels = extract_features(runner.model, data)
        images = torch.stack([data.dataset[i]["inputs"] for i in range(7)])
        inputs = runner.model.data_preprocessor(dict(inputs=images))["inputs"]
        expected = runner.model.patch_mean(inputs)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.allclose(features, expected, atol=1e-5)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder with three classes of one's own, and a grey level for each."""
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for number, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for index in range(2):
                image = draw.integers(0, 20, (8, 8, 3)) + 100 * number
                cv2.imwrite(str(folder / f"{index}.png"), image.astype(np.uint8))
    return tmp_path / "images"


def folder_loader(root: Path, part: str, **loading) -> dict:
    steps = [dict(type="LoadImageFromFile", **loading), dict(type="PackInputs")]
    data = dict(data_root=str(root), data_prefix=part, pipeline=steps)
    return {**loader(), "dataset": dict(type="CustomDataset", **data)}


def test_images_of_another_size_than_the_model__are_refused_before_training(
    classes: Path, tmp_path: Path
) -> None:
    large = folder_loader(classes, "val")
    large["dataset"]["pipeline"].insert(1, dict(type="Resize", scale=(24, 24)))
    loaders = dict(train_dataloader=folder_loader(classes, "train"))
    runner = make_runner(tmp_path, custom_hooks=[knn(**loaders, val_dataloader=large)])
    sizes = "val_dataloader of KNNHook are 24x24 pixels, but the encoder is made for"
    with pytest.raises(ValueError, match=f"{sizes} 8x8.*img_size"):
        runner.train()
    assert runner.iter == 0


def test_readme_example__takes_classes_of_ones_own(
    classes: Path, tmp_path: Path
) -> None:
    _, text = (ROOT / "README.md").read_text().split("```python\ncustom_hooks", 1)
    base = ROOT / "configs" / "deepmim" / "mae_vitb_300e.py"
    example = f"_base_ = {str(base)!r}\ncustom_hooks{text.split('```')[0]}"
    (tmp_path / "example.py").write_text(example)
    cfg = Config.fromfile(tmp_path / "example.py")
    apply_options(cfg, dict(data_root=str(classes)))
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == "KNNHook")
    init_default_scope("mmpretrain")
    for part in ("train", "val"):
        dataset = Runner.build_dataloader(
            {
                **hook[f"{part}_dataloader"],
                "num_workers": 0,
                "sampler": loader()["sampler"],
            }
        ).dataset
        assert dataset.metainfo["classes"] == ("ant", "bee", "cat")
        assert dataset.get_data_info(0)["img_path"].endswith(f"{part}/ant/0.png")


def test_classes_of_other_numbers__are_refused_before_training(
    classes: Path, tmp_path: Path
) -> None:
    (classes / "val" / "ant").rename(tmp_path / "away")
    loaders = {f"{p}_dataloader": folder_loader(classes, p) for p in ("train", "val")}
    runner = make_runner(tmp_path, custom_hooks=[knn(**loaders, at_start=True)])
    with pytest.raises(ValueError, match="val_dataloader of KNNHook lacks ant"):
        runner.train()
    assert not list(Path(runner.work_dir).glob("*.pth"))


def test_images_that_do_not_fit_the_model__are_refused_before_training(
    classes: Path, tmp_path: Path
) -> None:
    loaders = {f"{p}_dataloader": folder_loader(classes, p) for p in ("train", "val")}
    loaders["val_dataloader"] = folder_loader(classes, "val", color_type="grayscale")
    runner = make_runner(tmp_path, custom_hooks=[knn(**loaders)])
    with pytest.raises(ValueError, match="val/ant/0.png.*1 channels"):
        runner.train()
