"""Parity with the official code: values, gradients, and a tool that can fail.

Processors round sums differently (AVX2, AVX-512 and others have kernels of their own),
so the last digits of any array may differ: arrays are compared with a tolerance, which
every processor has to keep. Nothing else may depend on the processor: neither which
arrays are compared, nor the orientation bins of HOG on the CPU, which have to be the
official ones even where a gradient lies exactly between two of them. A test that needs
values rounded otherwise rounds them itself. `.ci/run` runs this file and tests/models
with the kernels of AVX2, too.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from samples import ROOT, golden_folder

from dev.parity import Report, run_case
from dev.parity.compare import WithTies
from dev.parity.ties import settle
from mim_plugins.models import HOGTarget, PatchMask
from mim_plugins.models.targets import hog

CASES = [
    "deepmim/mae_clip",
    "deepmim/mae_pixel",
    "deepmim/mae_pixel_no_norm",
    "deepmim/mae_pixel_hybrid",
    "deepmim/finetune_global_pool",
    "deepmim/finetune_cls_token",
    "deepmim/seg_backbone",
    "localmim/hog_target",
    "localmim/vit_hog",
    "localmim/vit_hog_bias",
    "localmim/finetune_vit",
    "localmim/swin_hog",
    "localmim/swin_pixel",
    "localmim/finetune_swin",
    "localmim/swin_transfer",
    "localmim/seg_vit",
    "localmim/seg_swin",
    "maelite/finetune_hiera",
    "maelite/hiera_distill",
    "maelite/hiera_mae",
    "maelite/mae_tiny",
    "maelite/mae_lite_distill",
    "maelite/mae_hidden_distill",
    "maelite/d2_mae",
    "maelite/finetune_swin",
    "maelite/simmim",
    "maelite/simmim_distill",
    "maelite/finetune_vit",
    "maelite/finetune_vit_cls",
    "maelite/finetune_vit_distilled",
    "maelite/finetune_vit_rpe",
    "maelite/finetune_vit_rpe_qkvbias",
    "maelite/finetune_vit_rpe_shared",
    "maelite/track_ostrack",
    "mirl/pretrain_s54like",
    "mirl/pretrain_b48like",
    "mirl/pretrain_no_weight_norm",
    "mirl/vit_global_pool",
    "mirl/vit_cls_token",
]


@pytest.mark.parametrize("case", CASES)
def test_case__every_array_agrees(case):
    report = run_case(golden_folder(case))
    assert report.ok, report.as_dict()
    assert report.max_rel < 5e-6
    grads = [k for k in np.load(golden_folder(case) / "outputs.npz") if "grad:" in k]
    assert report.compared >= len(grads) + 3 and not report.skipped


@pytest.mark.parametrize(
    ("case", "arrays"), [("mirl/pos_embed_resize", 2), ("mirl/pdparams", 2820)]
)
def test_function_case__every_array_agrees(case, arrays):
    report = run_case(golden_folder(case))
    assert report.ok, report.as_dict()
    assert report.max_rel < 1e-6 and report.compared == arrays


def copy_case(tmp_path, case="deepmim/mae_pixel", **changes):
    folder = tmp_path / "case"
    shutil.copytree(golden_folder(case), folder)
    outputs = dict(np.load(folder / "outputs.npz"))
    np.savez(folder / "outputs.npz", **(outputs | changes))
    return folder


def test_case__a_wrong_value_a_nan_and_an_unknown_array_fail(tmp_path):
    good = dict(np.load(golden_folder("deepmim/mae_pixel") / "outputs.npz"))
    wrong = good["pred2"].copy()
    wrong[0, 1:] += 1e-3
    bad = good["grad:cls_token"].copy()
    bad[...] = np.nan
    folder = copy_case(
        tmp_path, pred2=wrong, surprise=np.zeros(3), **{"grad:cls_token": bad}
    )
    report = run_case(folder)
    assert not report.ok
    assert [line.split(":")[0] for line in report.failed] == ["pred2", "grad"]
    assert report.skipped == ["surprise: not computed"]


def test_ties__the_cpu_stands_in_for_cells_that_differ_and_nothing_else():
    on_cpu = torch.nn.functional.normalize(torch.rand(1, 3, 5), dim=-1)
    device = on_cpu + 1e-7
    device[0, 1] = device[0, 1].roll(1)
    settled, count = settle(device.flatten(1), on_cpu.flatten(1), dims=5)
    assert count == 1
    settled = settled.view(1, 3, 5)
    assert torch.equal(settled[0, 1], on_cpu[0, 1])
    assert torch.equal(settled[0, 0], device[0, 0])
    device[0, 2] = float("nan")
    assert settle(device.flatten(1), on_cpu.flatten(1), dims=5)[0].isnan().sum() == 5
    report = Report("case", tol=1e-5)
    report.add("target", WithTies(settled, count), on_cpu.numpy())
    assert report.ok and report.as_dict()["tied"] == {"target": 1}


def test_device__other_than_the_cpu_settles_ties_and_keeps_the_rest(monkeypatch):
    """The CPU, with gradients that are off by a little, as on another device.

    On the left brightness only falls from row to row: no gradient has a horizontal
    part, and its sign decides between the first bin and the last. On the right it
    grows along the diagonal, in the middle of a bin. Pixels are multiples of 1/8, so
    that every processor computes the gradients without rounding.
    """
    rows, cols = torch.meshgrid(torch.arange(16.0), torch.arange(40.0), indexing="ij")
    picture = torch.where(cols < 16, 32 - rows, cols + rows) / 8
    images = picture.expand(1, 3, 16, 40)
    # One patch of each side is removed, none of them next to the seam.
    removed = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    mask = PatchMask.from_mask(removed[None], (2, 5))
    target = HOGTarget(cell_size=[4, 8])
    on_cpu = target(images, mask)
    convolve = hog._convolve
    monkeypatch.setattr(hog, "_convolve", lambda *args: convolve(*args) - 1e-6)
    for level, cpu, cells in zip(target(images, mask), on_cpu, (4, 1), strict=True):
        settled, count = settle(level.values, cpu.values, dims=27)
        assert count == cells
        assert (level.values - cpu.values)[:, 0].abs().max() > 0.1
        assert torch.equal(settled[:, 0], cpu.values[:, 0])
        assert not torch.equal(level.values[:, 1], cpu.values[:, 1])
        assert torch.equal(settled[:, 1], level.values[:, 1])


def test_tool__json_line_and_exit_code(tmp_path):
    good = str(golden_folder("deepmim/mae_pixel"))
    missing = str(tmp_path / "nowhere")
    for folders, code in (([good], 0), ([good, missing], 1)):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "parity.py"), *folders],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["case"] for line in lines] == folders
        assert {"ok", "compared", "skipped", "max_abs", "max_rel", "worst"} <= set(
            lines[0]
        )
        # For people, on the standard error.
        words = done.stderr.splitlines()
        assert f": ok, {lines[0]['compared']} arrays, largest relative diff" in words[0]
        if code:
            assert "not compared: " in words[1]
            assert "case.json" in lines[1]["error"]
