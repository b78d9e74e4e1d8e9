import importlib.util
import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from dev.benchmarks import memory

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "benchmark.py"

TINY = """
_base_ = ["{root}/configs/mae/vitb_1600e.py"]
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=16,
            num_layers=1,
            num_heads=2,
            feedforward_channels=32,
        ),
        img_size=32,
    ),
    neck=dict(embed_dims=16, depth=1, num_heads=2, mlp_ratio=2.0),
)
"""


def run_tool(*args):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, str(TOOL), *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def write_config(folder):
    path = folder / "tiny.py"
    path.write_text(TINY.format(root=ROOT.as_posix()))
    return path


def test_step_prints_one_json_object_and_a_table(tmp_path):
    done = run_tool(
        "step",
        write_config(tmp_path),
        *("--vs", "reference", "--vs", "mmpretrain-mae"),
        *("--device", "cpu", "--batch-size", 2, "--rounds", 1, "--steps", 2),
        *("--cfg-options", "model.backbone.img_size=48"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["implementations"]) == ["ours", "reference", "mmpretrain-mae"]
    assert report["image_shape"] == [3, 48, 48]
    assert report["steps_per_round"] == 2
    assert set(report["versions"]) >= {"torch", "mmengine", "mmpretrain"}
    assert "GFLOP/img" in done.stderr


def run_main(*args):
    """Runs the tool in this process, which has imported everything already."""
    spec = importlib.util.spec_from_file_location("benchmark_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([str(arg) for arg in args])


def test_data_prints_one_json_object_and_a_table(tmp_path, capsys):
    config = write_config(tmp_path)
    options = ("--images", 4, "--batch-size", 2, "--rounds", 1)
    run_main("data", config, *options)
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert list(report["times_as_fast_as"]) == ["mmpretrain-mae"]
    assert "img/s/core" in err


def test_hog_prints_one_json_object_and_a_table(capsys):
    sizes = ("--cell-sizes", 8, 16, "--img-size", 32, "--batch-size", 2)
    run_main("hog", *sizes, "--rounds", 1)
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["times_as_fast_as"]["mmpretrain"]["median"] > 0
    assert report["max_difference"] < 1e-6
    assert "batch ms" in err
    with pytest.raises(SystemExit, match="img_size=30 is not a multiple"):
        run_main("hog", "--img-size", 30)


def test_memory_prints_one_json_object_and_a_table(tmp_path, capsys, monkeypatch):
    # Threads instead of processes, which would import everything again.
    monkeypatch.setattr(
        memory, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n)
    )
    # Linux counts kibibytes; read after building and after the backward pass of each.
    peaks = iter([100 * 1024, 300 * 1024, 110 * 1024, 210 * 1024])
    monkeypatch.setattr(
        resource,
        "getrusage",
        lambda who: {resource.RUSAGE_SELF: SimpleNamespace(ru_maxrss=next(peaks))}[who],
    )
    run_main("memory", write_config(tmp_path))
    out, err = capsys.readouterr()
    report = json.loads(out)
    plain, lean = report["implementations"].values()
    assert plain["saved_mib"] > lean["saved_mib"] > 0
    assert report["times_fewer_bytes_saved"] == plain["saved_mib"] / lean["saved_mib"]
    assert report["max_gradient_difference"] < 1e-5
    found = [(e["built_rss_mib"], e["peak_rss_mib"]) for e in (plain, lean)]
    assert found == [(100, 300), (110, 210)]
    assert "peak RSS MiB" in err


def test_a_missing_config_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="^error: .*none.py does not exist"):
        run_main("step", tmp_path / "none.py")
    assert capsys.readouterr().out == ""
