"""The benchmark of trackers runs, and says what it measured."""

import json
import subprocess
import sys

from samples import ROOT


def test_benchmark__prints_frames_per_second_and_shares():
    command = [sys.executable, "-m", "dev.benchmarks.tracking", "--frames", "3"]
    command.append("configs/demo/tracker_lasot-layout.py")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["network"] > 0 and result["tracker, torch"] > 0
    # A difference of two medians, of either sign on a busy machine.
    assert result["share outside of the network, torch"] < 1
