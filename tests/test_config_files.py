"""What holds of all config files together: inheritance, names, places of their runs."""

import re
from functools import cache

import pytest
from mmengine.config import Config
from samples import ROOT

from mim_plugins.engine.config.overrides import apply_options, parts, unread_names
from mim_plugins.engine.config.print_config import base_files
from mim_plugins.engine.prepare import default_work_dir

FOLDER = ROOT / "configs"
EVERY = sorted(FOLDER.rglob("*.py"))
CONFIGS = [path for path in EVERY if "_base_" not in path.parts]
STARTS = re.compile(r"work_dirs/(.+)/epoch_(\d+)\.pth")


def name(path) -> str:
    return str(path.relative_to(FOLDER))


@cache
def read(path) -> Config:
    return Config.fromfile(path)


def depth(path) -> int:
    return 1 + max(map(depth, base_files(str(path))), default=0)


def test_inheritance__is_at_most_three_files_deep():
    assert {name(path): depth(path) for path in EVERY if depth(path) > 3} == {}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_inheritance__is_from_no_other_folder(path):
    """From neutral files, or the same method's."""
    own = path.relative_to(FOLDER).parts[0]
    for base in base_files(str(path)):
        assert FOLDER / base in EVERY
        assert (FOLDER / base).relative_to(FOLDER).parts[0] in ("_base_", own)


def test_inheritance__of_neutral_files_is_from_such():
    for path in set(EVERY) - set(CONFIGS):
        for base in base_files(str(path)):
            assert base.startswith(str(FOLDER / "_base_"))


def test_work_dirs__are_unique():
    folders = {default_work_dir(path) for path in CONFIGS}
    assert len(folders) == len(CONFIGS)
    assert str(default_work_dir(FOLDER / "mae/vitb_1600e.py")) == (
        "work_dirs/mae/vitb_1600e"
    )


def test_work_dirs__of_ones_own_configs_are_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ("a.py", "b/a.py", tmp_path / "c/a.py", "/elsewhere/d/a.py")
    assert [str(default_work_dir(path)) for path in paths] == [
        "work_dirs/a",
        "work_dirs/b/a",
        "work_dirs/c/a",
        "work_dirs/d/a",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_checkpoint_to_start_from__is_the_last_of_a_run_of_ours(path):
    found = [
        STARTS.fullmatch(value)
        for _, value in parts(read(path))
        if isinstance(value, str) and value.startswith("work_dirs/")
        if not value.startswith("work_dirs/demo/")
    ]
    for match in found:
        assert match is not None
        run = FOLDER / f"{match[1]}.py"
        assert read(run).train_cfg.max_epochs == int(match[2])
        # The last one is always kept; the best one may be of any epoch.
        assert read(run).default_hooks.checkpoint.get("save_last", True)


def pipelines(cfg: Config, part: str) -> list[str]:
    return [
        key
        for key, _ in parts(cfg)
        if key.startswith(f"{part}_dataloader.") and key.endswith("dataset.pipeline")
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_short_names__reach_what_they_say(path):
    cfg = Config.fromfile(path)
    assert unread_names(cfg) == {}
    averages = "module" in cfg.model
    options = {"train_pipeline": [1], "data_root": "/new"}
    if pipelines(cfg, "test"):  # trackers read their frames themselves
        options["tta_pipeline" if averages else "test_pipeline"] = [2]
    starts = "pretrained" in cfg
    if starts:
        options["pretrained"] = "/mine.pth"
    apply_options(cfg, options)
    values = dict(parts(cfg))
    assert pipelines(cfg, "train")
    for part, wanted in (("train", [1]), ("test", [2])):
        assert all(values[key] == wanted for key in pipelines(cfg, part))
    roots = {v for key, v in values.items() if key.endswith("data_root")}
    assert roots == {"/new"}
    if starts:
        model = cfg.model.module if averages else cfg.model
        assert model.backbone.init_cfg.checkpoint == "/mine.pth"
