"""Tests of the scripts that start several processes, with stand-ins for Slurm."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from samples import ROOT

# Runs its last call only as far as the signal; what it was called with is kept.
SRUN = """#!/usr/bin/env bash
echo "srun $* for $MIM_PLUGINS_LAUNCH" >> {folder}/calls
trap 'exit {code}' USR1 TERM
if [ "$(grep -c ^srun {folder}/calls)" -le {runs} ]; then
    {act}
    for _ in $(seq 100); do sleep 0.1; done
fi
"""


@pytest.fixture
def slurm(tmp_path: Path):
    """Start the script with an srun that is ended by a signal; return the calls."""

    def start(
        signalled: bool = True, act: str = ":", runs: int = 1, code: int = 0, **env
    ):
        text = SRUN.format(folder=tmp_path, act=act, runs=runs, code=code)
        for name, script in {
            "srun": text,
            "scontrol": f"#!/bin/sh\necho scontrol $* >> {tmp_path}/calls\n",
        }.items():
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        process = subprocess.Popen(
            [
                *[ROOT / "tools/slurm_train.sh", "part", "job", "c.py", str(tmp_path)],
                *["--resume", "a.pth"],
            ],
            env={**os.environ, "PATH": path, **env},
        )
        calls = tmp_path / "calls"
        while signalled and not (calls.exists() and calls.read_text()):
            time.sleep(0.05)
        if signalled:
            time.sleep(0.3)
            process.send_signal(signal.SIGUSR1)
        result = process.wait(timeout=30)
        return result, calls.read_text().splitlines()

    return start


def test_usr1__queues_the_job_again(slurm) -> None:
    result, calls = slurm(SLURM_JOB_ID="17")
    assert result == 0
    assert calls[1:] == ["scontrol requeue 17"]
    assert calls[0].endswith(" --resume a.pth for slurm 17")


def test_usr1__outside_of_a_job_starts_again_as_the_same_launch(slurm) -> None:
    """What was saved under its name is gone on from."""
    result, calls = slurm()
    assert result == 0 and len(calls) == 2 and calls[0] == calls[1]
    assert " --resume a.pth for slurm " in calls[0]


def test_usr1_to_the_tasks_alone__is_said_by_them(slurm, tmp_path: Path) -> None:
    act = f"touch {tmp_path}/requeue; exit 0"
    result, calls = slurm(signalled=False, act=act, SLURM_JOB_ID="17")
    assert result == 0 and calls[1] == "scontrol requeue 17"
    assert not (tmp_path / "requeue").exists()


def test_failure__is_no_reason_to_start_again(slurm) -> None:
    result, calls = slurm(code=3, SLURM_JOB_ID="17")
    assert result == 3 and len(calls) == 1


TORCHRUN = """#!/usr/bin/env bash
trap '{act}; exit 1' TERM
echo training > "$MIM_PLUGINS_STATE"
touch {folder}/started
for _ in $(seq 100); do sleep 0.1; done
"""


@pytest.mark.parametrize(
    ("number", "act", "code"),
    [
        (signal.SIGUSR1, 'echo stopped > "$MIM_PLUGINS_STATE"', 0),
        (signal.SIGUSR1, ":", 1),
        (signal.SIGTERM, ":", 143),
    ],
    ids=["saved", "lost", "term"],
)
def test_dist_train__fails_unless_the_run_was_saved(
    tmp_path: Path, number: int, act: str, code: int
) -> None:
    """torchrun's own code is the same whatever becomes of the processes."""
    python = tmp_path / "python"
    python.write_text(TORCHRUN.format(folder=tmp_path, act=act))
    python.chmod(0o755)
    process = subprocess.Popen(
        [ROOT / "tools/dist_train.sh", "c.py", "2"],
        env={**os.environ, "PYTHON": str(python), "TMPDIR": str(tmp_path)},
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert {x.name for x in tmp_path.iterdir()} == {"python", "started"}
