"""Tests of stopping at the first number that is not finite."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from toy_run import ToyImages, loader, make_runner

from mim_plugins.engine.hooks.non_finite import NonFiniteError, StopNonFiniteHook
from mim_plugins.engine.launch import _add_hook


@DATASETS.register_module(force=True)
class FloatImages(ToyImages):
    """Float images with paths, of which one has a NaN."""

    def __init__(self, bad: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bad = bad

    def get_data_info(self, index: int) -> dict[str, Any]:
        return dict(img_path=f"images/{index}.tif")

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        item["inputs"] = item["inputs"].float()
        if index == self.bad:
            item["inputs"][0, 0, 0] = torch.nan
        return item


def runner_of(folder: Path, bad: int | None = None, **changes: Any):
    data = loader()
    data["dataset"] = dict(type="FloatImages", bad=bad)
    changes = dict(
        dict(
            train_dataloader=data,
            custom_hooks=[dict(type="StopNonFiniteHook")],
            default_hooks=dict(
                runtime_info=dict(type="DeferredRuntimeInfoHook"),
                logger=dict(type="LoggerHook", interval=2),
                checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=1),
            ),
        ),
        **changes,
    )
    return make_runner(folder, **changes)


@pytest.fixture(params=["immediate", "deferred"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Checks in every step as on a CPU, or at the log line as on a GPU."""
    if request.param == "deferred":
        before = StopNonFiniteHook.before_train

        def deferred(self, runner) -> None:
            before(self, runner)
            self._deferred = True

        monkeypatch.setattr(StopNonFiniteHook, "before_train", deferred)
    return request.param


@pytest.mark.parametrize("amp", [False, True])
def test_nan_in_one_image__names_level_iteration_and_images(
    tmp_path: Path, mode: str, amp: bool
) -> None:
    wrapper = "AutocastOptimWrapper" if amp else "OptimWrapper"
    runner = runner_of(
        tmp_path,
        bad=6,
        optim_wrapper=dict(type=wrapper, optimizer=dict(type="AdamW", lr=1e-3)),
    )
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    message = str(error.value)
    assert re.search(r"iteration 2 \(epoch 1\): loss_[01] is nan", message)
    assert "Not all values of images/6.tif are finite" in message
    assert message.endswith(
        "images of the batch: images/4.tif, images/5.tif, images/6.tif, images/7.tif"
    )
    assert not list((tmp_path / "work").glob("*.pth"))


def test_weights_that_explode__leave_the_last_good_checkpoint(
    tmp_path: Path, mode: str
) -> None:
    """One checkpoint is kept; mmengine removes it before it writes the next."""
    runner_of(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1)).train()
    good = (tmp_path / "work" / "epoch_1.pth").read_bytes()
    runner = runner_of(
        tmp_path,
        resume=True,
        load_from=str(tmp_path / "work" / "epoch_1.pth"),
        train_cfg=dict(by_epoch=True, max_epochs=40),
    )

    def explode(module, args):
        with torch.no_grad():
            next(runner.model.neck.parameters()).mul_(1e30)

    runner.model.register_forward_pre_hook(explode)
    with pytest.raises(NonFiniteError, match="is (inf|nan); no checkpoint") as error:
        runner.train()
    assert "The learning rate is 0.001: train with a lower" in str(error.value)
    assert (tmp_path / "work" / "epoch_1.pth").read_bytes() == good
    assert not (tmp_path / "work" / "epoch_2.pth").exists()


def test_gradient__alone_stops_before_the_step(tmp_path: Path, mode: str) -> None:
    """The loss is finite; its derivative, of a square root at zero, is not."""
    runner = runner_of(
        tmp_path,
        optim_wrapper=dict(
            type="OptimWrapper",
            accumulative_counts=2,
            optimizer=dict(type="AdamW", lr=1e-3),
            clip_grad=dict(max_norm=1.0),
        ),
    )
    loss = runner.model.loss
    before: dict[str, torch.Tensor] = {}

    def with_root(*args, **kwargs):
        if not before:
            state = runner.model.state_dict()
            before.update({key: value.clone() for key, value in state.items()})
        losses = loss(*args, **kwargs)
        weight = next(p for p in runner.model.parameters() if p.requires_grad)
        losses["loss_0"] = losses["loss_0"] + (weight.sum() * 0).abs().sqrt()
        return losses

    runner.model.loss = with_root
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    message = str(error.value)
    assert "iteration 2 (epoch 1): the gradient norm is nan" in message
    # Of both batches that were accumulated.
    assert "images/0.tif" in message and "images/7.tif" in message
    if mode == "immediate":
        for key, value in runner.model.state_dict().items():
            assert torch.equal(value, before[key]), key


def test_weights__are_checked_before_a_checkpoint(tmp_path: Path, mode: str) -> None:
    runner = runner_of(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))
    runner.model.register_buffer("counter", torch.tensor(torch.inf))
    with pytest.raises(NonFiniteError, match="weights are not finite, counter first"):
        runner.train()
    assert not list((tmp_path / "work").glob("*.pth"))


def test_checkpoints_by_iteration__are_checked_before(
    tmp_path: Path, mode: str
) -> None:
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=1)
    with pytest.raises(NonFiniteError, match=r"iteration 3 \(epoch 1\): loss_"):
        runner_of(
            tmp_path,
            bad=11,
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=100), checkpoint=checkpoint
            ),
        ).train()
    assert sorted(x.name for x in (tmp_path / "work").glob("*.pth")) == [
        "iter_1.pth",
        "iter_2.pth",
    ]


def test_long_batches__are_listed_in_a_file(tmp_path: Path) -> None:
    data = loader(batch_size=70)
    data["dataset"] = dict(type="FloatImages", bad=0, count=70)
    with pytest.raises(NonFiniteError, match="and 6 more, listed in ") as error:
        runner_of(tmp_path, train_dataloader=data).train()
    listed = Path(str(error.value).split("listed in ")[1]).read_text().split()
    assert listed == [f"images/{i}.tif" for i in range(70)]


def test_a_finite_run__is_the_same_with_and_without(tmp_path: Path, mode: str) -> None:
    states = []
    for hooks in ([], [dict(type="StopNonFiniteHook")]):
        torch.manual_seed(0)
        runner = runner_of(tmp_path / str(len(hooks)), custom_hooks=hooks)
        runner.train()
        states.append(runner.model.state_dict())
        assert not runner.model._forward_hooks
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_add_hook__once() -> None:
    cfg = Config(dict(custom_hooks=[dict(type="ThroughputHook")]))
    for _ in range(2):
        _add_hook(cfg, "StopNonFiniteHook")
    assert [x.type for x in cfg.custom_hooks] == ["ThroughputHook", "StopNonFiniteHook"]
