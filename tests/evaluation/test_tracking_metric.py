"""One-pass evaluation against arithmetic of its own, on LaSOT's true boxes."""

import json
import math

import numpy as np
import pytest
from samples import data_folder

from mim_plugins.evaluation.tracking import OnePassMetric, sequence_curves
from mim_plugins.evaluation.tracking.metric import ATTRIBUTES


def figures(predicted, truth, absent):
    """AUC, precision and normalised precision of a sequence, frame by frame.

    Frames without object count, and are never a success nor a hit. A box without area
    in a frame with the object is no success, but a hit (the toolkit's -1).
    """
    n, last = len(truth), None
    overlap, hits, near = [], 0, 0
    for p, t, gone in zip(predicted.tolist(), truth.tolist(), absent, strict=True):
        if gone:
            continue
        if last is None:
            p = t
        elif not all(map(math.isfinite, p)) or p[2] <= 0 or p[3] <= 0:
            p = last
        last = p
        if t[2] <= 0 or t[3] <= 0:
            overlap.append(-1.0)
            hits, near = hits + 1, near + 1
            continue
        w = min(p[0] + p[2], t[0] + t[2]) - max(p[0], t[0])
        h = min(p[1] + p[3], t[1] + t[3]) - max(p[1], t[1])
        common = max(w, 0) * max(h, 0)
        overlap.append(common / (p[2] * p[3] + t[2] * t[3] - common))
        dx = (p[0] + p[2] / 2) - (t[0] + t[2] / 2)
        dy = (p[1] + p[3] / 2) - (t[1] + t[3] / 2)
        hits += math.hypot(dx, dy) <= 20
        near += math.hypot(dx / t[2], dy / t[3]) <= 0.2
    auc = sum(sum(x > k / 20 for x in overlap) for k in range(21)) / 21
    return [100 * auc / n, 100 * hits / n, 100 * near / n]


def static(truth):
    return np.repeat(truth[:1], len(truth), axis=0)


def shifted(truth):
    """By 10 % of the width to the right. Sums of halves and tenths may be rounded."""
    moved = truth.copy()
    moved[:, 0] += truth[:, 2] / 10
    return moved


def lost(truth):
    """From half of the sequence on there is no box any more."""
    found = truth.copy()
    found[len(truth) // 2 :] = [[-500.0, -500.0, 20.0, 20.0]]
    return found


def given_up(truth):
    found = truth.copy()
    found[len(truth) // 2 :] = 0
    return found


@pytest.fixture(scope="module")
def lasot():
    folder = data_folder("lasot_sample") / "lasot_test_annos"
    names = (folder / "testing_set.txt").read_text().split()
    return {
        name: (
            np.loadtxt(folder / "boxes" / f"{name}.txt", delimiter=","),
            np.loadtxt(folder / "absent" / f"{name}.txt") == 1,
        )
        for name in names
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.copy, static, shifted, lost, given_up])
def test_metric__on_lasots_true_boxes_equals_plain_arithmetic(lasot, kind):
    metric, wanted = OnePassMetric(), []
    for name, (truth, absent) in lasot.items():
        predicted = kind(truth)
        sample = dict(name=name, boxes=predicted, truth=truth, absent=absent)
        metric.process(None, [sample])
        wanted.append(figures(predicted, truth, absent))
    found = metric.compute_metrics(metric.results)
    assert found["sequences"] == 280 and found["failed"] == 0
    auc, precision, normalised = np.mean(wanted, axis=0)
    assert found["AUC"] == pytest.approx(auc, abs=1e-6)
    assert found["precision"] == pytest.approx(precision, abs=1e-6)
    assert found["norm_precision"] == pytest.approx(normalised, abs=1e-6)
    if kind is np.copy:  # an overlap of 1 is not above 1, and absent frames are missed
        present = np.mean([1 - absent.mean() for _, absent in lasot.values()])
        assert found["precision"] == pytest.approx(100 * present, abs=1e-6)
        assert found["AUC"] < 100 * present * 20 / 21 + 1e-6


TRUTH = np.array([[10.0, 20, 30, 40], [12, 20, 30, 40], [14, 20, 30, 40]])


def test_overlap__counts_the_last_pixel_of_a_box():
    predicted = TRUTH.copy()
    predicted[1, 0] += 10  # 20 of 30 columns: 20 / 40
    curves = sequence_curves(predicted, TRUTH)
    # 1, 0.5 and 1; not above 0.5 at the threshold 0.5.
    assert curves.success[9] == 1 and curves.success[10] == pytest.approx(2 / 3)
    assert curves.success[20] == 0
    assert curves.auc == pytest.approx((20 + 10 + 20) / 3 / 21)


def test_first_frame__is_the_true_box():
    predicted = TRUTH.copy()
    predicted[0] = [500, 500, 3, 3]
    assert sequence_curves(predicted, TRUTH).precision_20 == 1


def test_absent_frame__is_a_failure_whatever_the_box():
    absent = np.array([False, True, False])
    curves = sequence_curves(TRUTH, TRUTH, absent)
    assert curves.success[0] == curves.precision_20 == pytest.approx(2 / 3)
    assert curves.normalised_20 == pytest.approx(2 / 3)


def test_true_box_without_area__is_a_failure_in_success_and_a_hit_in_precision():
    truth = TRUTH.copy()
    truth[1, 2:] = 0
    curves = sequence_curves(TRUTH, truth)
    assert curves.success[0] == pytest.approx(2 / 3)
    assert curves.precision[0] == curves.normalised[0] == 1


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [12, 20, -3, 4], [math.nan] * 4])
def test_predicted_box_without_area__is_the_one_before(box):
    predicted = TRUTH.copy()
    predicted[1:] = box
    still = TRUTH.copy()
    still[1:] = TRUTH[0]
    ours, theirs = (sequence_curves(x, TRUTH) for x in (predicted, still))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lengths_that_differ__and_no_object_at_all_are_refused():
    with pytest.raises(ValueError, match="2 predicted boxes, 3 true ones"):
        sequence_curves(TRUTH[:2], TRUTH)
    with pytest.raises(ValueError, match="absent in every frame"):
        sequence_curves(TRUTH, TRUTH, np.ones(3, bool))


def test_failed_sequence__is_named_counted_and_left_out(tmp_path):
    out = tmp_path / "results" / "figures.json"
    metric = OnePassMetric(out_file=str(out))
    metric.process(None, [dict(name="cat-1", boxes=TRUTH, truth=TRUTH)])
    metric.process(None, [dict(name="dog-2", boxes=TRUTH[:2], truth=TRUTH)])
    metric.process(None, [dict(name="dog-3", error="no frames")])
    found = metric.compute_metrics(metric.results)
    assert found["AUC"] == pytest.approx(100 * 20 / 21)
    assert (found["sequences"], found["failed"]) == (1, 2)
    written = json.loads(out.read_text())
    assert written["cat-1"]["precision"] == 100
    assert written["dog-3"] == {"error": "no frames"}
    with pytest.raises(RuntimeError, match="all 1 sequences failed.*dog-3: no frames"):
        metric.compute_metrics(metric.results[2:])


def test_attributes__have_an_auc_each(tmp_path):
    flags = {"cat-1": [1, 0] + [0] * 12, "dog-2": [1, 0] + [0] * 11 + [1]}
    for name, values in flags.items():
        (tmp_path / f"{name}.txt").write_text(",".join(map(str, values)) + "\n")
    metric = OnePassMetric(attributes=str(tmp_path))
    metric.process(None, [dict(name="cat-1", boxes=TRUTH, truth=TRUTH)])
    metric.process(None, [dict(name="dog-2", boxes=static(TRUTH), truth=TRUTH)])
    found = metric.compute_metrics(metric.results)
    assert {k for k in found if k.startswith("AUC_")} == {"AUC_IV", "AUC_ARC"}
    assert found["AUC_IV"] == found["AUC"]
    assert found["AUC_ARC"] < found["AUC_IV"]
    assert len(ATTRIBUTES) == 14
    (tmp_path / "cat-1.txt").write_text("1,0\n")
    with pytest.raises(ValueError, match="2 flags, LaSOT has 14"):
        metric.compute_metrics(metric.results)
    with pytest.raises(FileNotFoundError, match="no folder of attributes"):
        OnePassMetric(attributes=str(tmp_path / "none"))
