"""The command line that runs the batch of a skipped step again."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmpretrain.structures import DataSample
from samples import ROOT
from toy_run import make_runner

from mim_plugins.engine.running.kept_batches import _objects, _plain
from mim_plugins.evaluation.replay import replay

TOOL = ROOT / "tools" / "replay.py"


@pytest.fixture
def kept(tmp_path: Path):
    """Trains, with a part of the model that fails in one step, and gives the file."""

    def run(spoil: Any, **changes: Any) -> Path:
        runner = make_runner(
            tmp_path, custom_hooks=[dict(type="StopNonFiniteHook")], **changes
        )

        def before(module: Any, args: Any) -> None:
            if runner.iter == 1:
                spoil(runner.model)

        runner.model.register_forward_pre_hook(before)
        runner.train()
        return tmp_path / "work" / "non_finite" / "iter_2_rank0.pth"

    return run


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    main = runpy.run_path(str(TOOL))["main"]

    def run(*args: Any) -> str:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, args)])
        main()
        return capsys.readouterr().out

    return run


def set_weight(name: str, value: float):
    def spoil(model: torch.nn.Module) -> None:
        model.get_parameter(name).data[0] = value

    return spoil


def test_replay__names_losses_and_the_module(kept, tool) -> None:
    """A weight in the middle of the encoder overflows, in bfloat16 as in training."""
    name = "backbone.layers.1.ffn.layers.0.0.weight"
    file = kept(
        set_weight(name, 3e38),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            type="AutocastOptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)
        ),
    )
    out = tool(file, "--device", "cpu")
    assert "precision: bfloat16 on cpu" in out
    assert "iteration 2 (epoch 1), images: 4, 5, 6, 7\n" in out
    assert "  loss_0: nan\n" in out or "  loss_1: nan\n" in out
    assert "  gradient norm: nan\n" in out
    assert "output is not finite: backbone.layers.1.ffn.layers.0.0 (Linear)" in out
    assert "gradients that are not finite: backbone." in out


def test_replay__gives_the_losses_of_the_training(kept) -> None:
    """Masks without seeds are drawn again by the generator as it was."""
    losses = []

    def spoil(model: torch.nn.Module) -> None:
        loss = model.loss

        def once(inputs, data_samples):
            found = loss(inputs, None)  # without seeds
            losses.append({key: value.item() for key, value in found.items()})
            model.loss = loss
            return {**found, "loss_extra": inputs.sum() * torch.nan}

        model.loss = once

    file = kept(spoil, train_cfg=dict(by_epoch=True, max_epochs=1))
    content = torch.load(file, weights_only=True)
    content["batches"][0]["data"].pop("data_samples")
    torch.save(content, file)
    *_, result = replay(file, device="cpu")
    for key, value in losses[0].items():
        assert result.losses[key] == pytest.approx(value, rel=1e-6)
    assert result.module == "" and result.gradients == []


def test_replay__takes_weights_of_a_checkpoint(kept, tool, tmp_path) -> None:
    file = kept(spoil_images)
    file.with_name("iter_2_weights.pth").unlink()
    with pytest.raises(SystemExit, match="no file .*weights.pth: give a checkpoint"):
        tool(file, "--device", "cpu")
    checkpoint = tmp_path / "work" / "epoch_1.pth"
    out = tool(file, "--checkpoint", checkpoint, "--device", "cpu")
    assert f"weights: {checkpoint}\n" in out
    assert "none, all outputs are finite" in out


def spoil_images(model: torch.nn.Module) -> None:
    loss = model.loss

    def once(inputs, data_samples):
        model.loss = loss
        return loss(inputs * torch.nan, data_samples)

    model.loss = once


def test_other_files__are_refused(tool, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "epoch_1.pth")
    with pytest.raises(SystemExit, match="is no file of skipped batches"):
        tool(tmp_path / "epoch_1.pth")
    with pytest.raises(SystemExit, match="there is no checkpoint file .*missing.pth"):
        tool(tmp_path / "missing.pth")


def test_config_in_the_file__is_not_executed(kept, tool, tmp_path: Path) -> None:
    file = kept(spoil_images)
    content = torch.load(file, weights_only=True)
    content["config"] += f"\nopen({str(tmp_path / 'trap')!r}, 'w')\n"
    torch.save(content, file)
    with pytest.raises(SystemExit, match="not accepted.*None of it was executed"):
        tool(file)
    assert not (tmp_path / "trap").exists()


def test_data_samples__are_kept_as_plain_values() -> None:
    """A file holds no pickled objects, and gives none of another kind."""
    sample = DataSample().set_gt_label(3)
    sample.set_metainfo(dict(sample_idx=5, img_path="a.jpg", scale=(8, 8)))
    data = dict(inputs=[torch.zeros(3, 4, 4)], data_samples=[sample])
    (back,) = _objects(_plain(data))["data_samples"]
    assert isinstance(back, DataSample)
    assert back.gt_label.tolist() == [3] and back.scale == (8, 8)
    with pytest.raises(TypeError, match="it holds a object"):
        _plain(dict(inputs=object()))
    with pytest.raises(ValueError, match=r"os\.system, which is no data element"):
        _objects({"__element__": "os.system", "meta": {}, "data": {}})
