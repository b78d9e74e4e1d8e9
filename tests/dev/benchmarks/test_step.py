import json

import pytest
from samples import ROOT

from dev.benchmarks import render, run_step, step

PARTS = ("forward_s", "backward_s", "optimizer_s")


def test_step_times_all_implementations(tiny_config):
    report = run_step(
        str(tiny_config), ["mmpretrain-mae", "reference"], "cpu", batch_size=4
    )
    implementations = report["implementations"]
    assert list(implementations) == ["ours", "mmpretrain-mae", "reference"]
    for entry in implementations.values():
        step_s = entry["step_s"]
        assert 0 < step_s["min"] <= step_s["median"] <= step_s["max"]
        assert entry["images_per_s"] == pytest.approx(4 / step_s["median"])
        assert all(entry[part] > 0 for part in PARTS)
        share = entry["images_per_s"] * entry["gflop_per_image"] / 1e3
        assert entry["share_of_matmul"] == pytest.approx(
            share / report["matmul_tflops"]
        )
    assert list(report["times_as_fast_as"]) == ["mmpretrain-mae", "reference"]
    for ratio in report["times_as_fast_as"].values():
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert (report["threads"], report["clock"]) == (1, "process CPU time")
    assert json.loads(json.dumps(report)) == report
    assert all(name in render(report) for name in implementations)


def test_ours_computes_the_reference_with_less(tiny_config):
    report = run_step(str(tiny_config), ["reference"], "cpu", batch_size=4, rounds=1)
    difference = report["difference_from_reference"]
    assert difference["loss"] < 1e-6
    assert difference["gradient"] < 1e-5
    ours, reference = (
        report["implementations"]["ours"],
        report["implementations"]["reference"],
    )
    assert ours["parameters"] == reference["parameters"]
    assert ours["optimizer_groups"] == reference["optimizer_groups"] == 2
    assert ours["gflop_per_image"] == reference["gflop_per_image"]
    assert ours["computed_gflop_per_image"] < reference["computed_gflop_per_image"]
    assert 0 < ours["memory"]["per_image_mib"] < reference["memory"]["per_image_mib"]


def test_bf16_takes_explicit_attention_on_the_cpu(tiny_config, monkeypatch):
    # A CPU without bf16 instructions takes seconds for the large product.
    monkeypatch.setattr(step, "matmul_rate", lambda device, dtype: 1e12)
    report = run_step(str(tiny_config), [], "cpu", 2, "bf16", rounds=1)
    assert report["implementations"]["ours"]["attention"] == "explicit"
    assert report["times_as_fast_as"] == {}
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16"):
        run_step(str(tiny_config), dtype="fp64")


def test_baselines_that_do_not_fit_are_refused(tiny_config, tmp_path):
    wide = {"model.backbone.img_size": (32, 64)}
    with pytest.raises(ValueError, match="square images only"):
        run_step(str(tiny_config), ["mmpretrain-mae"], "cpu", cfg_options=wide)
    with pytest.raises(FileNotFoundError, match="mmpretrain-mea: neither"):
        run_step(str(tiny_config), ["mmpretrain-mea"], "cpu")
    larger = tmp_path / "larger.py"
    larger.write_text("_base_ = './tiny.py'\nmodel = dict(backbone=dict(img_size=48))")
    with pytest.raises(ValueError, match="their img_size differ"):
        run_step(str(tiny_config), [str(larger)], "cpu")
    labels = tmp_path / "labels.py"
    labels.write_text("model = dict(type='mmpretrain.ImageClassifier')")
    with pytest.raises(ValueError, match="no `optim_wrapper`"):
        run_step(str(labels), [], "cpu")


def test_another_config_is_a_baseline(tiny_config, tmp_path):
    mae = tmp_path / "mae.py"
    mae.write_text("_base_ = './tiny.py'\nmodel = dict(backbone=dict(taps=()))")
    report = run_step(str(tiny_config), [str(mae)], "cpu", 2, rounds=1)
    flop = {k: v["gflop_per_image"] for k, v in report["implementations"].items()}
    assert flop["mae"] < flop["ours"]
    assert report["difference_from_reference"] is None


def test_simmim_is_a_baseline_of_swin(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="with a MIMSwinTransformer, this one has"):
        run_step(str(tiny_config), ["mmpretrain-simmim"], "cpu")
    swin = tmp_path / "swin.py"
    swin.write_text(
        f"""
_base_ = {str(ROOT / "configs/localmim/swinb_pixel_400e.py")!r}
model = dict(
    mask_sampler=dict(mask_ratio=0.5),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4]
        ),
        img_size=64,
        window_size=2,
    ),
    neck=dict(embed_dims=(16, 16, 16, 16)),
    target_generator=dict(cell_size=(8, 16, 32, 32)),
)
"""
    )
    report = run_step(str(swin), ["mmpretrain-simmim"], "cpu", 2, rounds=1)
    assert list(report["implementations"]) == ["ours", "mmpretrain-simmim"]
    memory = [c["memory"]["per_image_mib"] for c in report["implementations"].values()]
    assert memory[0] < memory[1]
