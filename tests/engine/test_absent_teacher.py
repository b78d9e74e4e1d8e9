"""Training without a teacher's file ends before it begins."""

import pytest
from toy_run import TINY_MODEL, make_runner


def test_train__without_the_teachers_file_is_refused_before_the_first_step(tmp_path):
    target = dict(type="CLIPTarget", checkpoint="absent.pt", dims=8)
    runner = make_runner(tmp_path, model=TINY_MODEL | dict(target_generator=target))
    with pytest.raises(
        FileNotFoundError,
        match="cannot be trained: there is no CLIP checkpoint absent.pt: give",
    ):
        runner.train()
    assert runner.iter == 0
    assert not list(tmp_path.rglob("*.pth"))
