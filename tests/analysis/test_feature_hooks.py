"""Probes and ranks of features while a run is under way."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from samples import ROOT
from toy_run import loader, make_runner

from mim_plugins.analysis.feature_hooks import (
    FeatureRankHook,
    LinearProbeHook,
    random_view,
)
from mim_plugins.analysis.rank import rankme
from mim_plugins.engine.config.best_checkpoint import check_best
from mim_plugins.evaluation import extract_features

PROBE = dict(
    type="LinearProbeHook",
    train_dataloader=loader(count=12, labelled=True),
    val_dataloader=loader(count=7, labelled=True),
    interval=2,
    blocks=(0, 2),
)
RANK = dict(type="FeatureRankHook", dataloader=loader(count=11), interval=2, blocks=[1])


def scalars(runner) -> list[dict]:
    path = Path(runner.log_dir) / "vis_data" / "scalars.json"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_figures__are_in_the_log_and_decide_which_checkpoint_is_best(tmp_path):
    checkpoint = dict(
        type="AtomicCheckpointHook",
        interval=3,
        save_best=["rankme", "probe_top1_block_2"],
        rule="greater",
    )
    runner = make_runner(
        tmp_path,
        train_cfg=dict(by_epoch=True, max_epochs=3),
        custom_hooks=[{**PROBE, "at_start": True}, RANK],
        default_hooks=dict(checkpoint=checkpoint),
    )
    runner.train()
    probes = [line for line in scalars(runner) if "probe_top1" in line]
    assert [line["epoch"] for line in probes] == [0, 2, 3]
    # Brightness separates the toy classes.
    assert {line["probe_top1_block_0"] for line in probes} == {100.0}
    ranks = [line for line in scalars(runner) if "rankme" in line]
    assert [line["epoch"] for line in ranks] == [2, 3]
    names = ("rankme", "alpha_req", "feature_std")
    expected = {*names, "lidar", *(f"{name}_block_1" for name in names)}
    assert expected < set(ranks[0])
    assert all(1 < line["rankme"] < 11 for line in ranks)
    log = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "LinearProbeHook after epoch 2: probe_top1: 100" in log
    assert "(19 images, " in log and " % of the time)" in log
    folder = Path(runner.work_dir)
    (best,) = folder.glob("best_probe_top1_block_2_epoch_*.pth")
    saved = torch.load(best, weights_only=False)
    assert best.stem.endswith("epoch_2")  # equal figures later are no better
    assert saved["meta"]["epoch"] == 2 and saved["meta"]["iter"] == 6
    best_rank = max(ranks, key=lambda line: line["rankme"])["epoch"]
    assert list(folder.glob("best_rankme_*")) == [
        folder / f"best_rankme_epoch_{best_rank}.pth"
    ]


def test_training__is_not_changed_by_looking(tmp_path):
    states, draws = [], []
    shuffled = {**loader(), "sampler": dict(type="DefaultSampler", shuffle=True)}
    every = [{**x, "interval": 1, "at_start": True} for x in (PROBE, RANK)]
    for hooks in ([], every):
        runner = make_runner(
            tmp_path / str(len(hooks)), custom_hooks=hooks, train_dataloader=shuffled
        )
        runner.train()
        assert runner.model.training
        states.append(runner.model.state_dict())
        draws.append(torch.get_rng_state())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert torch.equal(*draws)


def test_rank__is_that_of_the_unmasked_means(tmp_path):
    runner = make_runner(tmp_path)
    runner.model.eval()
    data = runner.build_dataloader(loader(count=11, labelled=True))
    with torch.no_grad():
        expected = rankme(extract_features(runner.model, data)[0])
    options = {key: value for key, value in RANK.items() if key != "type"}
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    hook = FeatureRankHook(**{**options, "lidar_views": 0})
    hook.before_train(runner)
    with torch.no_grad():
        figures, images = hook.measure(runner, runner.model)
    assert images == 11
    assert figures["rankme"] == pytest.approx(expected, rel=1e-5)
    assert "lidar" not in figures


def test_cost__is_a_hundredth_of_the_images_trained_meanwhile():
    hook = FeatureRankHook(loader(), interval=10)

    class Loader(list):
        batch_size = 64

    training = SimpleNamespace(world_size=4)
    training.train_dataloader = Loader(range(100))
    # 256,000 images are trained meanwhile, and each image is encoded 5 times.
    assert hook._affordable(training) == 2560 // 5
    training.train_dataloader = Loader(range(1250))
    assert hook._affordable(training) == 2000
    training.train_dataloader = Loader(range(1))
    assert hook._affordable(training) == 64


def test_given_number_of_images__is_spread_over_the_data(tmp_path):
    runner = make_runner(tmp_path, custom_hooks=[{**RANK, "num_images": 5}])
    runner.train()
    log = next(Path(runner.log_dir).glob("*.log")).read_text()
    assert "(5 images, " in log


def test_views__are_crops_of_the_images():
    images = torch.linspace(0, 1, 16).expand(6, 3, 16, 16)
    views = random_view(images, torch.Generator().manual_seed(0))
    assert views.shape == images.shape
    assert views.min() >= 0 and views.max() <= 1
    slopes = (views[..., -1] - views[..., 0])[:, 0, 0].sign()
    assert set(slopes.tolist()) == {-1.0, 1.0}
    again = random_view(images, torch.Generator().manual_seed(0))
    assert torch.equal(views, again)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({**RANK, "blocks": [3]}, "numbered from 0 to 2, got"),
        ({**RANK, "lidar_views": 1}, "lidar_views is 0 or at least 2"),
        ({**RANK, "num_images": 1}, "num_images must be at least 2"),
        ({**RANK, "interval": 0}, "interval must be a positive"),
        ({**PROBE, "train_dataloader": loader(), "at_start": True}, "LinearProbeHook"),
    ],
)
def test_bad_settings__are_refused_before_training(tmp_path, hook, message):
    with pytest.raises(ValueError, match=message):
        make_runner(tmp_path, custom_hooks=[hook]).train()
    assert not list(Path(tmp_path).rglob("*.pth"))


def test_model_without_features__is_named_before_training():
    options = {key: value for key, value in PROBE.items() if key != "type"}
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"patch_mean\(\), but Linear has none"):
        LinearProbeHook(**options).before_train(runner)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("lidar", None),
        ("rankme_block_1", None),
        (["probe_top1", "feature_std"], None),
        ("rank_me", "save_best='rank_me' is none of the figures of custom_hooks"),
        ("lidar_block_1", "probe_top1_block_2"),
    ],
)
def test_save_best__knows_the_figures(wanted, message):
    hooks = dict(checkpoint=dict(type="AtomicCheckpointHook", save_best=wanted))
    cfg = Config(dict(default_hooks=hooks, custom_hooks=[PROBE, RANK]))
    if message is None:
        assert check_best(cfg) is None
        return
    with pytest.raises(ValueError, match=message):
        check_best(cfg)


def test_example_of_the_page__trains(tmp_path):
    text = (ROOT / "docs" / "analysis.md").read_text()
    (example,) = (
        part.split("```")[0]
        for part in text.split("```python\n")
        if part.startswith("custom_hooks")
    )
    part = loader(count=6, labelled=True)
    given = dict(labelled_train=part, labelled_val=part)
    exec(example, given)
    runner = make_runner(
        tmp_path,
        custom_hooks=[{**hook, "blocks": [0]} for hook in given["custom_hooks"]],
        default_hooks=given["default_hooks"],
    )
    runner.train()
    assert list(Path(runner.work_dir).glob("best_probe_top1_epoch_*.pth"))
