"""A batch that was not remembered is loaded again as it was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from mim_plugins.datasets import EndlessSampler, EpochSampler, SeededDataset
from mim_plugins.engine.running.kept_batches import describe_paths, remember


@pytest.mark.parametrize("kind", [EpochSampler, EndlessSampler])
def test_batch_loaded_again__has_the_same_crops(tmp_path: Path, kind: Any) -> None:
    """Whatever the sampler calls an epoch, the key of its draws finds it."""
    rng = np.random.default_rng(0)
    for index in range(8):
        picture = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
    dataset = SeededDataset(
        dict(
            type="UnlabelledImages",
            data_root=str(tmp_path),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="TensorRandomResizedCrop", scale=16),
                dict(type="DrawFlip"),
                dict(type="PackPretrainInputs"),
            ],
        )
    )
    sampler = kind(dataset, shuffle=True, seed=3)
    if kind is EpochSampler:
        sampler.set_epoch(2)
    loader = DataLoader(
        dataset, batch_size=4, sampler=sampler, collate_fn=default_collate
    )
    runner: Any = SimpleNamespace(iter=9, epoch=0, train_dataloader=loader)
    for count, batch in enumerate(loader):
        at = remember(runner, batch, keep=False)
        again = at.batch_of(runner)
        assert again.exact
        assert torch.equal(again.data["inputs"], batch["inputs"])
        for key, value in batch["data_samples"].items():
            assert torch.equal(again.data["data_samples"][key], value), key
        assert [Path(x).suffix for x in again.paths] == [".png"] * 4
        if count == 4:
            break


def test_many_images__are_listed_in_a_file_which_a_full_disk_leaves_out(
    tmp_path: Path,
) -> None:
    runner: Any = SimpleNamespace(work_dir=str(tmp_path), rank=0)
    paths = [f"{number}.png" for number in range(70)]
    file = tmp_path / "non_finite_batch_rank0.txt"
    said = describe_paths(runner, paths)
    assert said.endswith(f"63.png and 6 more, listed in {file}")
    assert file.read_text().split() == paths
    file.unlink()
    file.symlink_to("/dev/full")
    said = describe_paths(runner, paths)
    assert f"which {file} cannot list: No space left on device" in said
