"""tools/track.py: folders, videos, what they leave, and what is refused."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest
import torch
from samples import ROOT
from tracking_files import draw, write_frames, write_lasot

from mim_plugins import engine
from mim_plugins.datasets.tracking.box_files import read_boxes
from mim_plugins.evaluation.tracking import video
from mim_plugins.evaluation.tracking.video import Frames, load_tracker, track_video

CONFIG = """
_base_ = "{root}/configs/demo/tracker_lasot-layout.py"
model = dict(
    backbone=dict(
        arch=dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48),
        elimination_blocks=(1,),
    ),
    head=dict(channels=8),
)
train_dataloader = dict(batch_size=4, dataset=dict(dataset=dict(num_pairs=4)))
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tracker.py"
    path.write_text(CONFIG.format(root=ROOT))
    return str(path)


@pytest.fixture
def frames(tmp_path):
    write_frames(tmp_path / "frames", 5)
    return tmp_path / "frames"


def tool():
    spec = importlib.util.spec_from_file_location("track", ROOT / "tools/track.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_video(path, count=6):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (80, 60))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for step in range(count):
        writer.write(draw(step)[0])
    writer.release()


def test_tool__tracks_with_the_config_that_training_has_left(tmp_path, config, capsys):
    """And with what it has exported."""
    root = write_lasot(tmp_path / "data")
    engine.train(
        config, work_dir=str(tmp_path / "run"), cfg_options={"data_root": str(root)}
    )
    source = root / "cup" / "cup-1"  # a sequence: its frames are in img
    arguments = [str(source), "--init", "10,20,16,16", "--device", "cpu"]
    out = tmp_path / "out"
    checkpoint = str(tmp_path / "run" / "epoch_1.pth")
    tool().main([*arguments, checkpoint, "--out", str(out), "--no-video"])
    assert "6 frames" in capsys.readouterr().out
    boxes = read_boxes(out / "boxes.txt")
    assert boxes.shape == (6, 4) and boxes[0].tolist() == [10, 20, 16, 16]
    assert [x.name for x in out.iterdir()] == ["boxes.txt"]
    # As the Python API.
    from mim_plugins.models import Tracker

    tracker = Tracker(load_tracker(checkpoint)).init(draw(0)[0], (10, 20, 16, 16))
    assert tracker.update(draw(1)[0]).shape == (4,)


def test_video__is_read_and_written(tmp_path, config):
    write_video(tmp_path / "in.mp4")
    done = track_video(
        load_tracker(None, config), tmp_path / "in.mp4", (10, 20, 16, 16), tmp_path
    )
    assert len(done.boxes) == 6 and done.timed == 4
    assert 0 < done.network_seconds < done.seconds
    assert "frames/s" in done.summary()
    again = list(Frames(tmp_path / "video.mp4"))
    assert len(again) == 6 and again[0].shape == (60, 80, 3)


def test_frames__stop_after_as_many_as_asked_for(frames, config, tmp_path):
    done = track_video(
        load_tracker(None, config), frames, (10, 20, 16, 16), tmp_path, max_frames=2
    )
    assert len(done.boxes) == 2 and done.summary() == "2 frames"


def test_box__of_another_form_is_refused(capsys):
    for text in ("1,2,3", "a,b,c,d", "1 2 3 4"):
        with pytest.raises(SystemExit):
            tool().parse_args(["video.mp4", "--init", text])
        assert "four numbers x,y,w,h" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # neither --init nor --select
        tool().parse_args(["video.mp4"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.mp4", "no video or folder"),
        ("text.mp4", "cannot be opened"),
        ("empty", "no frames in"),
    ],
)
def test_source__that_cannot_be_read_is_an_error_in_one_line(
    tmp_path, config, source, words
):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / source), "--init", "1,2,3,4", "--model", config]
    with pytest.raises(SystemExit, match=words):
        tool().main([*arguments, "--out", str(tmp_path / "out")])


def test_video__that_ends_in_the_middle_keeps_what_was_tracked(
    tmp_path, config, monkeypatch
):
    write_video(tmp_path / "in.mp4", 5)
    lines = []
    monkeypatch.setattr(video, "print_log", lambda message, *_: lines.append(message))
    frames = Frames(tmp_path / "in.mp4")
    frames._announced = 9
    assert len(list(frames)) == 5
    assert "ends after 5 of 9 frames" in lines[0]


def test_folder__with_a_damaged_frame_keeps_what_was_tracked(frames, config, tmp_path):
    (frames / "00000004.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="00000004.jpg cannot be decoded"):
        track_video(
            load_tracker(None, config), frames, (10, 20, 16, 16), tmp_path / "out"
        )
    assert len(read_boxes(tmp_path / "out" / "boxes.txt")) == 3


def test_window__that_cannot_be_opened_is_said(monkeypatch):
    def fail(*_, **__):
        raise cv2.error("no display")

    monkeypatch.setattr(cv2, "selectROI", fail)
    with pytest.raises(ValueError, match="--init x,y,w,h"):
        video.select_box(draw(0)[0])
    monkeypatch.setattr(cv2, "selectROI", lambda *_, **__: (0, 0, 0, 0))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    with pytest.raises(ValueError, match="no box was drawn"):
        video.select_box(draw(0)[0])


def test_checkpoint__of_another_model_is_refused(tmp_path, config):
    tracker = load_tracker(None, config).model
    state = tracker.state_dict()
    torch.save({k: x for k, x in state.items() if "head" not in k}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="lacks part of the OneStreamTracker"):
        load_tracker(tmp_path / "a.pth", config)
    other = str(ROOT / "configs/mae/vitb_1600e.py")
    with pytest.raises(ValueError, match="not a OneStreamTracker"):
        load_tracker(None, other)


def test_zoo__knows_the_names_of_trackers():
    """By name, of the paper's size."""
    from mmpretrain import list_models

    assert "distilled_d2-mae-vitt_400e_lasot-300e" in list_models("distilled_*lasot*")


def test_onnx__computes_what_the_model_does(tmp_path, config):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from mim_plugins.models import Tracker
    from mim_plugins.models.trackers.onnx import OnnxNetwork, export_onnx

    network = load_tracker(None, config)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    path = tmp_path / "tracker.onnx"
    export_onnx(network.model, path)
    assert not network.model.training
    exported = load_tracker(path)
    assert isinstance(exported, OnnxNetwork)
    template, search = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 128, 128)
    inputs = {"template": template.numpy(), "search": search.numpy()}
    found = exported.session.run(["score", "size", "offset"], inputs)
    with torch.no_grad():
        wanted = network.model.predict_maps(template, search)
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a - b.numpy()).max() < 1e-4
    box = (10, 20, 16, 16)
    boxes = [
        Tracker(x).init(draw(0)[0], box).update(draw(1)[0]) for x in (network, exported)
    ]
    assert np.allclose(*boxes, atol=1e-2)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        load_tracker(tmp_path / "no.onnx")
    with pytest.raises(FileNotFoundError):
        load_tracker(tmp_path / "none.onnx")


def test_onnx__needs_a_package_and_says_which(monkeypatch, tmp_path, config):
    monkeypatch.setitem(sys.modules, "onnx", None)
    from mim_plugins.models.trackers.onnx import export_onnx

    with pytest.raises(ImportError, match="mim_plugins\\[onnx\\]"):
        export_onnx(load_tracker(None, config).model, tmp_path / "x.onnx")
