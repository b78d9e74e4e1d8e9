"""A tracker is trained, resumed and tested by the tools, on drawn videos."""

import json
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from samples import ROOT
from tracking_files import write_lasot

from mim_plugins import engine
from mim_plugins.datasets.tracking.box_files import read_boxes

CONFIG = """
_base_ = "{root}/configs/demo/tracker_lasot-layout.py"
model = dict(
    backbone=dict(
        arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
        elimination_blocks=(1,),
    ),
    head=dict(channels=8),
)
train_dataloader = dict(batch_size=4, dataset=dict(dataset=dict(num_pairs=8)))
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.fixture
def run(tmp_path):
    """A config, options, and a folder of sequences."""
    config = tmp_path / "tracker.py"
    config.write_text(CONFIG.format(root=ROOT))
    root = write_lasot(tmp_path / "data")
    return config, {"data_root": str(root)}, tmp_path / "work"


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_tracker__trains_resumes_and_is_tested(run):
    config, options, work = run
    engine.train(config, work_dir=str(work / "a"), cfg_options=options)
    runner = engine.train(
        config,
        work_dir=str(work / "b"),
        cfg_options=options,
        resume=str(work / "a" / "epoch_1.pth"),
    )
    complete, resumed = (weights(work / x / "epoch_2.pth") for x in "ab")
    assert all(torch.equal(resumed[key], value) for key, value in complete.items())
    assert runner.model.keep_rate == 1.0  # up to epoch 2
    metrics = engine.test(
        config, str(work / "a" / "epoch_2.pth"), work_dir=str(work), cfg_options=options
    )
    assert metrics["tracking/sequences"] == 3 and metrics["tracking/failed"] == 0
    assert 0 <= metrics["tracking/AUC"] <= 100
    boxes = read_boxes(work / "tracking_results" / "cup-2.txt")
    assert boxes.shape == (6, 4) and boxes[0].tolist() == [10, 20, 16, 16]


@pytest.fixture
def trained(run):
    config, options, work = run
    options = {**options, "train_cfg.max_epochs": 1}
    engine.train(config, work_dir=str(work), cfg_options=options)
    return config, options, work, str(work / "epoch_1.pth")


def test_evaluation__goes_on_where_it_was_interrupted(trained):
    config, options, work, checkpoint = trained
    whole = engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    results = work / "tracking_results"
    kept = results / "cup-1.txt"
    before = kept.stat().st_mtime_ns
    (results / "dog-1.txt").unlink()
    again = engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    assert again == whole
    assert kept.stat().st_mtime_ns == before and (results / "dog-1.txt").exists()


def test_results__of_another_tracker_are_refused(trained):
    config, options, work, checkpoint = trained
    engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"]["head.size.4.bias"] += 1
    torch.save(content, work / "other.pth")
    with pytest.raises(engine.InputError, match="results of another tracker"):
        engine.test(
            config, str(work / "other.pth"), work_dir=str(work), cfg_options=options
        )
    elsewhere = {**options, "test_cfg.results_dir": str(work / "elsewhere")}
    engine.test(
        config, str(work / "other.pth"), work_dir=str(work), cfg_options=elsewhere
    )
    assert len(list((work / "elsewhere").glob("*.txt"))) == 3


def test_sequence__that_fails_does_not_end_the_evaluation(trained):
    config, options, work, checkpoint = trained
    root = ROOT.__class__(options["data_root"])
    (root / "cup/cup-1/img/00000004.jpg").write_bytes(b"no image")
    (root / "cup/cup-2/img/00000006.jpg").unlink()
    out = work / "figures.json"
    options = {**options, "test_evaluator.out_file": str(out)}
    metrics = engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    assert metrics["tracking/sequences"] == 1 and metrics["tracking/failed"] == 2
    figures = json.loads(out.read_text())
    assert "00000004.jpg cannot be decoded" in figures["cup-1"]["error"]
    assert "5 frames, but 6 boxes" in figures["cup-2"]["error"]
    # What was not finished is not there, and is tracked once it can be.
    assert [x.name for x in (work / "tracking_results").glob("*.txt")] == ["dog-1.txt"]


def test_amp__computes_in_half_precision_and_is_another_tracker(trained):
    config, options, work, checkpoint = trained
    arguments = dict(work_dir=str(work), cfg_options=options)
    engine.test(config, checkpoint, **arguments)
    with pytest.raises(engine.InputError, match="results of another tracker"):
        engine.test(config, checkpoint, amp=True, **arguments)
    options["test_cfg.results_dir"] = str(work / "half")
    metrics = engine.test(config, checkpoint, amp=True, **arguments)
    assert metrics["tracking/sequences"] == 3


def test_results__with_lines_missing_are_said_to_be(trained):
    config, options, work, checkpoint = trained
    engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    path = work / "tracking_results" / "cup-1.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    metrics = engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    assert metrics["tracking/failed"] == 1


@pytest.mark.slow
def test_sequences__are_shared_by_processes(trained):
    config, options, work, checkpoint = trained
    alone = engine.test(config, checkpoint, work_dir=str(work), cfg_options=options)
    out = work / "two.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(ROOT / "tools/test.py"), str(config)]
    command += [checkpoint, "--launcher", "pytorch", "--work-dir", str(work / "two")]
    command += ["--out", str(out), "--cfg-options", f"data_root={options['data_root']}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(out.read_text()) == pytest.approx(alone)
    assert len(list((work / "two/tracking_results").glob("*.txt"))) == 3


def test_recipe__validates_on_pairs_at_reduced_size(run, tmp_path):
    """The four data sets of the paper, each in its layout."""
    from tracking_files import box_lines, write_frames

    data = tmp_path / "data"
    write_lasot(data / "lasot", ("mug-1", "airplane-1"))
    for name in ("a", "b"):
        folder = data / "got10k/train" / name
        write_frames(folder, 4)
        (folder / "groundtruth.txt").write_text(box_lines(4))
    for split in ("train", "val"):
        (data / f"got10k/train/got10k_vot_{split}_split.txt").write_text("0\n1\n")
    write_frames(data / "trackingnet/TRAIN_0/frames/v", 4, first=0, digits=1)
    (data / "trackingnet/TRAIN_0/anno").mkdir()
    (data / "trackingnet/TRAIN_0/anno/v.txt").write_text(box_lines(4))
    write_frames(data / "coco/train2017", 1)
    (data / "coco/annotations").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "00000001.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [1, 1, 60, 55], "iscrowd": 0}],
    }
    (data / "coco/annotations/instances_train2017.json").write_text(json.dumps(content))
    config = tmp_path / "recipe.py"
    config.write_text(
        f'''_base_ = "{ROOT}/configs/distilled/tracking/mae_vitt_lasot_300e.py"
model = dict(
    backbone=dict(
        arch=dict(embed_dims=24, num_layers=10, num_heads=2, feedforward_channels=48),
        patch_size=32,
        img_size=64,
        init_cfg=None,
    ),
    head=dict(channels=8),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(dataset=dict(num_pairs=16)),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(dataset=dict(num_pairs=8)),
)
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = [dict(type="ConstantLR", factor=1.0)]
'''
    )
    runner = engine.train(
        config, work_dir=str(tmp_path / "work"), cfg_options={"data_root": str(data)}
    )
    iou = runner.message_hub.get_scalar("val/pairs/IoU").current()
    assert 0 <= iou <= 100
    sources = runner.train_dataloader.dataset.dataset.sources
    assert [len(source) for source in sources] == [1, 2, 1, 1]


def test_keep_rate__follows_the_epoch():
    cfg = Config.fromfile(ROOT / "configs/distilled/tracking/mae_vitt_lasot_300e.py")
    hook = next(x for x in cfg.custom_hooks if x.type == "KeepRateHook")
    assert (hook.start, hook.end, hook.final) == (20, 100, 0.7)
