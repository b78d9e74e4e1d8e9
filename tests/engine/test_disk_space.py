"""Tests of how much space a run's checkpoints need."""

import pytest
from mmengine.config import Config

from mim_plugins.engine.hooks.disk_space import most_files


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(interval=1, max_keep_ckpts=3), 4),
        (dict(interval=5, max_keep_ckpts=3, save_best="auto"), 3),
        (dict(interval=1, save_best=["a", "b"]), 12),
        (dict(interval=-1, max_keep_ckpts=3), 1),
        # Two by epochs, and no one knows how many by time.
        (dict(interval=5, max_keep_ckpts=3, interval_minutes=30), 4),
        (dict(interval=100, max_keep_ckpts=3, by_epoch=False), 4),
    ],
)
def test_most_files__of_ten_epochs(options: dict, expected: int) -> None:
    most = most_files(Config(dict(train_cfg=dict(max_epochs=10))), options)
    assert most.training + most.best == expected
