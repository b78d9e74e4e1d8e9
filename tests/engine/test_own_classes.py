"""The classifier has as many classes as the data has class folders."""

import pytest
from mmengine.config import Config
from samples import ROOT

from mim_plugins.engine import training_config
from mim_plugins.engine.config.own_classes import follow_class_folders

BENCHMARKS = sorted(
    path
    for path in (ROOT / "configs").rglob("benchmarks/*_in1k.py")
    if "_transfer-" not in path.name
)


def name(path) -> str:
    return str(path.relative_to(ROOT / "configs"))


@pytest.fixture
def folders(tmp_path):
    for part in ("train", "val"):
        for folder in ("ant", "bee", "cat", ".ipynb_checkpoints"):
            (tmp_path / part / folder).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("path", BENCHMARKS, ids=name)
def test_every_benchmark__follows_the_folders(path, folders):
    cfg, notes = training_config(path, cfg_options={"data_root": str(folders)})
    assert cfg.model.head.num_classes == 3
    assert cfg.model.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    (said,) = [note.message for note in notes if "classes:" in note.message]
    assert "classes: 3, the folders in" in said and "(ant, bee, cat)" in said
    assert "model.head.num_classes=3 (was 1000)" in said


def test_imagenet_that_is_not_there__changes_nothing():
    before = Config.fromfile(BENCHMARKS[0])
    cfg, notes = training_config(BENCHMARKS[0])
    assert cfg.model.head == before.model.head
    assert cfg.model.data_preprocessor == before.model.data_preprocessor
    assert cfg.val_evaluator == before.val_evaluator
    assert not [note for note in notes if "classes:" in note.message]


def test_top_5__is_kept_where_it_says_something(tmp_path):
    for number in range(6):
        (tmp_path / "train" / str(number)).mkdir(parents=True)
    cfg, _ = training_config(BENCHMARKS[0], cfg_options={"data_root": str(tmp_path)})
    assert cfg.val_evaluator.topk == (1, 5) and cfg.model.head.num_classes == 6


def test_option__wins(folders):
    options = {"data_root": str(folders), "model.head.num_classes": 7}
    cfg, _ = training_config(BENCHMARKS[0], cfg_options=options)
    assert cfg.model.head.num_classes == 7


def test_lists_and_other_data_sets__decide_nothing(folders):
    cfg = Config.fromfile(BENCHMARKS[0])
    cfg.train_dataloader.dataset.dataset.update(
        type="CustomDataset", data_root=str(folders)
    )
    assert follow_class_folders(cfg) is None
    (folders / "meta").mkdir()
    (folders / "meta" / "train.txt").write_text("ant/1.jpg 0")
    cfg.train_dataloader.dataset.dataset.type = "ClassFolders"
    assert follow_class_folders(cfg) is None
    assert cfg.model.head.num_classes == 1000


def test_teacher__keeps_its_classes(folders):
    cfg = Config.fromfile(BENCHMARKS[0])
    cfg.train_dataloader.dataset.dataset.data_root = str(folders)
    cfg.model.teacher = dict(head=dict(num_classes=1000))
    assert follow_class_folders(cfg)
    assert cfg.model.teacher.head.num_classes == 1000
