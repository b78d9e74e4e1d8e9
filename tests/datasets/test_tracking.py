"""Tracking data: layouts, pairs, crops."""

import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from samples import ROOT
from tracking_files import HEIGHT, WIDTH, box_lines, draw, write_frames, write_lasot

from mim_plugins.datasets import SeededDataset
from mim_plugins.datasets.tracking import (
    COCOStills,
    CropPair,
    GOT10kSequences,
    LaSOTSequences,
    TrackingNetSequences,
    TrackingPairs,
    TrackingSequences,
)
from mim_plugins.datasets.tracking.box_files import (
    read_boxes,
    read_flags,
    write_boxes,
)
from mim_plugins.datasets.tracking.pairs import draw_frames
from mim_plugins.datasets.tracking.sequences import LASOT_TESTING_SET


def test_boxes__are_read_with_any_separator_and_written_as_lasots(tmp_path):
    path = tmp_path / "boxes.txt"
    path.write_text("1,2,3,4\n1.5\t2\t3\t4\n 1 2  3 4 \nnan,nan,nan,nan\n\n")
    boxes = read_boxes(path)
    assert boxes.shape == (4, 4) and boxes[1, 0] == 1.5 and np.isnan(boxes[3]).all()
    write_boxes(path, boxes[:2])
    assert path.read_text().splitlines()[1] == "1.500,2.000,3.000,4.000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3,4\n1,2,3\n", "line 2: '1,2,3' is not a box"),
        ("1,2,3,4\n\n1,2,3,4\n", "line 2"),
        ("a,b,c,d\n", "line 1"),
        ("", "holds no box"),
    ],
)
def test_boxes__of_another_form_are_refused(tmp_path, text, words):
    (tmp_path / "boxes.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_boxes(tmp_path / "boxes.txt")


def test_flags__are_in_one_line_or_in_many(tmp_path):
    for text in ("0,1,0", "0\n1\n0\n"):
        (tmp_path / "flags.txt").write_text(text)
        assert read_flags(tmp_path / "flags.txt").tolist() == [False, True, False]
    (tmp_path / "flags.txt").write_text("0,2")
    with pytest.raises(ValueError, match="but also '2'"):
        read_flags(tmp_path / "flags.txt")


def test_lasot__what_is_hidden_is_not_visible(tmp_path):
    source = LaSOTSequences(str(write_lasot(tmp_path)))
    assert source.names == ["cup-1", "cup-2", "dog-1"] and len(source) == 3
    folder = tmp_path / "cup" / "cup-1"
    (folder / "full_occlusion.txt").write_text("0,1,0,0,0,0")
    (folder / "out_of_view.txt").write_text("0,0,0,1,0,0")
    annotation = source.annotation(0)
    assert annotation.usable.tolist() == [0, 2, 4, 5]
    assert annotation.boxes[2].tolist() == [16, 22, 16, 16]
    assert source.frame_path(0, 2).endswith("cup-1/img/00000003.jpg")
    assert len(source.frames(0)) == 6
    (folder / "out_of_view.txt").write_text("0,0")
    with pytest.raises(ValueError, match="6 boxes, but flags for 2 frames"):
        source.annotation(0)


def test_lasot__has_280_sequences_to_test_and_trains_on_the_others(tmp_path):
    testing = LASOT_TESTING_SET.read_text().split()
    assert len(testing) == len(set(testing)) == 280
    write_lasot(tmp_path, ("mug-1", testing[0]))
    assert LaSOTSequences(str(tmp_path), split="train").names == ["mug-1"]
    assert LaSOTSequences(str(tmp_path), split="test").names == testing
    assert len(LaSOTSequences(str(tmp_path)).names) == 2
    with pytest.raises(ValueError, match="train, test or all"):
        LaSOTSequences(str(tmp_path), split="val")
    shutil.rmtree(tmp_path / testing[0].rpartition("-")[0])
    with pytest.raises(FileNotFoundError, match="finds no sequence in"):
        len(LaSOTSequences(str(tmp_path), split="test"))
    with pytest.raises(FileNotFoundError, match="does not exist: set its data_root"):
        len(LaSOTSequences(str(tmp_path / "none")))


def test_got10k__takes_names_or_numbers_and_its_labels(tmp_path):
    names = [f"GOT-10k_Train_00000{k}" for k in (1, 2, 3)]
    for name in names:
        write_frames(tmp_path / "train" / name, 3)
        (tmp_path / "train" / name / "groundtruth.txt").write_text(box_lines(3))
    (tmp_path / "train" / "list.txt").write_text("\n".join(names))
    (tmp_path / "train" / names[2] / "absence.label").write_text("0\n1\n0\n")
    (tmp_path / "train" / names[2] / "cover.label").write_text("8\n8\n0\n")
    root = str(tmp_path)
    assert GOT10kSequences(root, "train").names == names
    (tmp_path / "train" / "split.txt").write_text("2\n0\n")
    source = GOT10kSequences(root, "train", ann_file="split.txt")
    assert source.names == [names[2], names[0]]
    assert source.annotation(0).usable.tolist() == [0]
    assert source.image(source.frame_path(1, 2)).shape == (HEIGHT, WIDTH, 3)
    (tmp_path / "train" / "split.txt").write_text("3\n")
    with pytest.raises(ValueError, match="names sequence 3 of 3"):
        len(GOT10kSequences(root, "train", ann_file="split.txt"))
    with pytest.raises(FileNotFoundError, match="no list of sequences"):
        len(GOT10kSequences(root, "train", ann_file="none.txt"))


def test_trackingnet__is_read_from_folders_and_from_its_archives(tmp_path):
    for name in ("aaa", "bbb"):
        write_frames(tmp_path / "TRAIN_0" / "frames" / name, 12, first=0, digits=1)
        anno = tmp_path / "TRAIN_0" / "anno" / f"{name}.txt"
        anno.parent.mkdir(exist_ok=True)
        anno.write_text(box_lines(12))
    source = TrackingNetSequences(str(tmp_path))
    assert source.names == ["TRAIN_0/aaa", "TRAIN_0/bbb"]
    wanted = source.image(source.frame_path(1, 11))
    folder = tmp_path / "TRAIN_0"
    (folder / "zips").mkdir()
    with zipfile.ZipFile(folder / "zips" / "bbb.zip", "w") as archive:
        for path in (folder / "frames" / "bbb").iterdir():
            archive.write(path, path.name)
    shutil.rmtree(folder / "frames" / "bbb")
    assert source.frame_path(1, 11).endswith("bbb.zip/11.jpg")
    assert np.array_equal(source.image(source.frame_path(1, 11)), wanted)
    assert [path.rpartition("/")[2] for path in source.frames(1)][:3] == [
        "0.jpg", "1.jpg", "2.jpg"
    ]  # fmt: skip


def test_coco__is_stills_without_crowds_and_small_objects(tmp_path):
    boxes = [[0, 0, 60, 55], [0, 0, 60, 50], [0, 0, 70, 60]]
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [
            {"image_id": 7, "bbox": box, "iscrowd": int(k == 2)}
            for k, box in enumerate(boxes)
        ],
    }
    (tmp_path / "ann.json").write_text(json.dumps(content))
    source = COCOStills(str(tmp_path), ann_file="ann.json", images="train")
    assert source.names == ["7.jpg"] and not source.is_video
    assert source.annotation(0).boxes.tolist() == [[0, 0, 60, 55]]
    assert source.frame_path(0, 0) == str(tmp_path / "train" / "7.jpg")
    with pytest.raises(FileNotFoundError, match="larger than 90"):
        len(COCOStills(str(tmp_path), ann_file="ann.json", min_side=90))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_frame__that_cannot_be_read_is_named(tmp_path, content):
    source = LaSOTSequences(str(write_lasot(tmp_path, ("cup-1",))))
    path = tmp_path / "cup/cup-1/img/00000002.jpg"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match="00000002.jpg"):
        source.image(str(path))


def test_pair__is_of_a_later_frame_no_further_than_the_gap():
    np.random.seed(0)
    usable = np.array([0, 3, 5, 9, 30, 31])
    pairs = {draw_frames(usable, 4) for _ in range(600)}
    # From 9 on nothing is within 4 frames: the window grows by 5 up to 9 + 24.
    assert pairs == {(0, 3), (3, 5), (5, 9), (9, 30), (9, 31), (30, 31)}
    assert draw_frames(usable[:1], 4) is None
    assert draw_frames(usable[:1], 4, is_video=False) == (0, 0)


def tracking_pairs(root, **options):
    cfg = Config.fromfile(ROOT / "configs/demo/tracker_lasot-layout.py")
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.update(data_root=str(root), num_pairs=8, **options)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return SeededDataset(DATASETS.build(dataset), seed=3)


def test_pairs__follow_from_seed_epoch_and_index_alone(tmp_path):
    root = write_lasot(tmp_path)
    one, two = tracking_pairs(root), tracking_pairs(root)
    np.random.seed(5)
    first = [one[k] for k in range(16)]
    second = [two[k] for k in reversed(range(16))][::-1]
    for a, b in zip(first, second, strict=True):
        for name in ("template", "search"):
            assert torch.equal(a["inputs"][name], b["inputs"][name])
        assert torch.equal(a["data_samples"]["box"], b["data_samples"]["box"])
    # Another epoch has other pairs.
    boxes = torch.stack([x["data_samples"]["box"] for x in first])
    assert len(boxes.unique(dim=0)) > 12
    assert first[0]["inputs"]["template"].shape == (3, 64, 64)
    assert first[0]["inputs"]["search"].shape == (3, 128, 128)
    assert first[0]["inputs"]["search"].dtype == torch.uint8


def test_pairs__have_the_object_where_the_box_is(tmp_path):
    for sample in map(tracking_pairs(write_lasot(tmp_path)).__getitem__, range(16)):
        x, y, w, h = (128 * sample["data_samples"]["box"]).tolist()
        column, row = round(x + w / 2), round(y + h / 2)
        if not (0 <= column < 128 and 0 <= row < 128):
            continue
        pixel = sample["inputs"]["search"][:, row, column]
        assert pixel.max() > 130, (column, row, pixel)


def test_pairs__replace_frames_that_cannot_be_read(tmp_path):
    root = write_lasot(tmp_path, ("cup-1",), count=8)
    (tmp_path / "cup/cup-1/img/00000003.jpg").write_bytes(b"")
    pairs = tracking_pairs(root)
    samples = [pairs[k] for k in range(24)]
    replaced = sum(sample["data_samples"]["replaced"] for sample in samples)
    assert 0 < replaced < 24


def test_pairs__of_a_hidden_object_are_drawn_again(tmp_path):
    root = write_lasot(tmp_path, ("cup-1", "dog-1"))
    (tmp_path / "dog/dog-1/out_of_view.txt").write_text("0,1,1,1,1,1")
    pairs = tracking_pairs(root)
    assert all(pairs[k]["data_samples"]["replaced"] == 0 for k in range(12))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(sources=[]), "needs sources"),
        (dict(weights=[1, 2]), "one weight for each"),
        (dict(weights=[0]), "must be positive"),
        (dict(max_gap=0), "must be positive"),
    ],
)
def test_pairs__refuse_what_cannot_be(tmp_path, options, words):
    arguments = dict(sources=[dict(type="LaSOTSequences")], num_pairs=4) | options
    with pytest.raises(ValueError, match=words):
        TrackingPairs(data_root=str(tmp_path), **arguments)


def test_weights__say_how_often_a_source_is_taken(tmp_path):
    write_lasot(tmp_path / "a", ("cup-1",))
    write_lasot(tmp_path / "b", ("dog-1",))
    sources = [dict(type="LaSOTSequences", data_prefix=name) for name in ("a", "b")]
    pairs = TrackingPairs(
        sources, 4, weights=[1, 3], data_root=str(tmp_path), pipeline=[]
    )
    np.random.seed(0)
    drawn = [pairs.load_pair({})["img_path"] for _ in range(400)]
    share = sum("/b/" in path for path in drawn) / 400
    assert share == pytest.approx(0.75, abs=0.07)


def test_crop__is_the_square_around_the_box_with_zeros_outside():
    image = np.full((50, 40, 3), 200, np.uint8)
    crop = CropPair(sizes=(32, 64), scale_jitter=(0, 0), centre_jitter=(0, 0))
    corners = [np.array([[0, 0, 9, 4]], np.float32), np.array([[30, 40, 38, 42]])]
    done = crop.transform(dict(img=[image, image], gt_bboxes=corners))
    # Sides ceil(2 * sqrt(36)) = 12 and ceil(4 * sqrt(16)) = 16.
    template, search = done["img"]
    assert template.shape == (32, 32, 3) and search.shape == (64, 64, 3)
    # From x = 4.5 - 6, rounded to even, -2: two of twelve columns are outside.
    assert template[16, 0].tolist() == [0, 0, 0] and (template[16, 7:] == 200).all()
    x1, y1, x2, y2 = done["gt_bboxes"][1][0]
    assert [x1, y1, x2, y2] == pytest.approx([16, 28, 48, 36])  # from (26, 33)


def test_crop__without_a_pixel_of_the_image_is_drawn_again():
    image = np.zeros((50, 40, 3), np.uint8)
    crop = CropPair(scale_jitter=(0, 0), centre_jitter=(0, 0))
    boxes = [np.array([[0, 0, 9, 4]]), np.array([[400.0, 400, 410, 410]])]
    assert crop.transform(dict(img=[image, image], gt_bboxes=boxes)) is None


def test_jitter__has_the_papers_distribution():
    np.random.seed(0)
    crop, box = CropPair(), np.array([10.0, 20, 30, 40])
    boxes = np.stack([crop._jittered(box, 1) for _ in range(4000)])
    logs = np.log(boxes[:, 2:] / box[2:])
    assert logs.std(axis=0) == pytest.approx([0.25, 0.25], abs=0.02)
    shift = boxes[:, :2] + boxes[:, 2:] / 2 - (box[:2] + box[2:] / 2)
    shift /= np.sqrt(boxes[:, 2:].prod(axis=1))[:, None]
    assert np.abs(shift).max() <= 1.5 and shift.std(axis=0) == pytest.approx(
        [3 / np.sqrt(12)] * 2, abs=0.03
    )
    assert np.allclose(crop._jittered(box, 0), box)  # the template is not jittered


def test_sequences__count_frames_and_boxes(tmp_path):
    root = write_lasot(tmp_path, ("cup-1",))
    dataset = TrackingSequences(dict(type="LaSOTSequences"), data_root=str(root))
    sequence = dataset[0]["data_samples"]
    assert sequence.name == "cup-1"
    assert len(list(sequence.images())) == 6
    assert np.array_equal(next(sequence.images()).shape, draw(0)[0].shape)
    (tmp_path / "cup/cup-1/img/00000006.jpg").unlink()
    with pytest.raises(ValueError, match="5 frames, but 6 boxes"):
        sequence.annotation()


def test_frames__are_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), draw(0)[0])
    source = GOT10kSequences(str(tmp_path.parent), tmp_path.name)
    source.names = [""]
    assert [x.rpartition("/")[2] for x in source.frames(0)] == [
        "1.jpg", "2.jpg", "10.jpg"
    ]  # fmt: skip
