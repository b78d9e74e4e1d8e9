"""Tests of the pictures drawn during pre-training."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from toy_run import TINY_MODEL, ToyImages, loader, make_runner

from mim_plugins.engine import ReconstructionHook
from mim_plugins.visualization import reconstruction_table


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
    header = 24
    cell = pictures[0][header : header + 112, 4 : 4 + 112][7::14, 7::14]
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


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_prediction_of_zero__resembles_the_image_only_with_its_statistics(
    build,
) -> None:
    model = build()
    # Patches of different brightness, as those of photographs.
    inputs = torch.randn(2, 3, 32, 32) * 0.3
    inputs += torch.kron(torch.randn(2, 3, 4, 4), torch.ones(8, 8))
    mask = model.draw_mask(inputs)
    zeros = [torch.zeros(2, 16, 192)] * 3
    for picture in model.pictures(zeros, inputs, mask):
        assert correlation(picture, inputs) > 0.5
    for picture in model.pictures(zeros, inputs, mask, patch_statistics=False):
        assert picture.abs().max() < 1e-3
    # What the last prediction should be: every patch with mean 0 and deviation 1.
    target = model.reconstruct(inputs, mask, patch_statistics=False)["images"]
    patches = target.unfold(2, 8, 8).unfold(3, 8, 8).transpose(1, 3).flatten(3)
    assert patches.mean(dim=-1).abs().max() < 1e-3
    assert (patches.std(dim=-1) - 1).abs().max() < 0.02
    assert torch.equal(model.reconstruct(inputs, mask)["images"], inputs)


def test_patch_statistics__can_be_left_out_where_there_are_some(tmp_path: Path) -> None:
    hook = dict(type="ReconstructionHook", patch_statistics=False)
    runner = make_runner(tmp_path / "norm", custom_hooks=[hook])
    runner.train()
    path = Path(runner.work_dir) / "reconstructions" / "epoch_002.png"
    # A column more than usual, the target.
    assert cv2.imread(str(path)).shape[1] == 4 + 6 * 116
    raw = dict(TINY_MODEL, target_generator=dict(type="PixelTarget", norm_pix=False))
    runner = make_runner(tmp_path / "raw", custom_hooks=[hook], model=raw)
    with pytest.raises(ValueError, match="patch_statistics=False changes nothing"):
        runner.train()


def test_note_below__says_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict] = []

    def draw(*args, **kwargs) -> np.ndarray:
        seen.append(kwargs)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(reconstruction_table, "reconstruction_grid", draw)
    make_runner(
        tmp_path / "norm", custom_hooks=[dict(type="ReconstructionHook")]
    ).train()
    visible, statistics = seen[-1]["notes"]
    assert "visible patches" in visible and "patch_statistics=False" in statistics

    class Deep(ToyImages):
        def __getitem__(self, index: int) -> dict:
            item = super().__getitem__(index)
            return {**item, "inputs": item["inputs"].float() * 16}

    hook = ReconstructionHook()
    runner = make_runner(tmp_path / "deep")
    monkeypatch.setattr(runner, "_train_dataloader", runner.build_dataloader(loader()))
    runner.train_dataloader.dataset.__class__ = Deep
    runner.register_hook(hook)
    runner.train()
    assert seen[-1]["notes"][-1].startswith("Black is ")
    low, high = seen[-1]["shown"]
    assert low >= 0 and 1800 < high < 2000


def test_histograms__are_drawn_next_to_their_target(tmp_path: Path) -> None:
    target = dict(type="HOGTarget", cell_size=4)
    runner = make_runner(
        tmp_path,
        model=dict(TINY_MODEL, target_generator=target),
        custom_hooks=[dict(type="ReconstructionHook", num_images=2)],
    )
    runner.train()
    path = Path(runner.work_dir) / "reconstructions" / "epoch_002.png"
    # Original, masked, target, two predictions, pasted.
    assert cv2.imread(str(path)).shape[1] == 4 + 6 * 116
