"""Tests of the pictures drawn during pre-training."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from toy_run import make_runner

from mim_plugins.engine import ReconstructionHook


def test_training__writes_pictures_of_the_same_images_and_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(
        Visualizer,
        "add_image",
        lambda self, name, image, step: shown.append((name, image, step)),
    )
    for run in ("first", "second"):
        runner = make_runner(
            tmp_path / run,
            train_cfg=dict(by_epoch=True, max_epochs=3),
            custom_hooks=[dict(type="ReconstructionHook", interval=2, num_images=2)],
        )
        runner.train()
        assert runner.model.training
        folder = Path(runner.work_dir) / "reconstructions"
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["epoch_002.png", "epoch_003.png"]
    assert [(name, step) for name, _, step in shown[:2]] == [
        ("reconstruction", 2),
        ("reconstruction", 3),
    ]
    written = cv2.cvtColor(cv2.imread(str(folder / names[1])), cv2.COLOR_BGR2RGB)
    assert np.array_equal(written, shown[-1][1])
    # Columns: original, masked, block 1, block 3, pasted, of 112 pixels, 4 apart.
    pictures = [image for _, image, _ in shown]
    assert pictures[0].shape[1] == 4 + 5 * 116
    inputs = [image[:, : 4 + 2 * 116] for image in pictures]
    predictions = [image[:, 4 + 2 * 116 : 4 + 4 * 116] for image in pictures]
    assert all(np.array_equal(inputs[0], other) for other in inputs[1:])
    assert not np.array_equal(predictions[0], predictions[1])
    # The original column shows the first images of the training set.
    first = runner.train_dataloader.dataset[0]["inputs"].permute(1, 2, 0).numpy()
    bottom = pictures[0].shape[0] - 2 * 116
    cell = pictures[0][bottom : bottom + 112, 4 : 4 + 112][7::14, 7::14]
    assert np.abs(cell.astype(int) - first).max() <= 1


def test_training__is_not_changed_by_looking(tmp_path: Path) -> None:
    states = []
    for hooks in ([], [dict(type="ReconstructionHook", interval=1)]):
        runner = make_runner(tmp_path / str(len(hooks)), custom_hooks=hooks)
        runner.train()
        states.append(runner.model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_dataset__of_its_own_can_be_given(tmp_path: Path) -> None:
    hook = ReconstructionHook(dataset=dict(type="ToyImages", count=3), num_images=5)
    runner = make_runner(tmp_path)
    runner.register_hook(hook)
    runner.train()
    assert hook._batch["inputs"].shape == (3, 3, 8, 8)
    assert (Path(runner.work_dir) / "reconstructions" / "epoch_002.png").is_file()


def test_model_without_reconstructions__is_refused(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="Linear has none"):
        ReconstructionHook().before_train(runner)


@pytest.mark.parametrize("changes", [dict(interval=-1), dict(num_images=0)])
def test_config__must_be_positive(changes: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must be"):
        ReconstructionHook(**changes)
