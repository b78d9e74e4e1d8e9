"""Malformed checkpoints end in one clear line, run no code and give no wrong value."""

from collections import Counter

import pytest
import trial
from hostile_pickles import state_dict
from malformed_files import Maker
from trial import try_all

from mim_plugins.checkpoints.files.reading import TRUST

COUNT = 240


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    maker = Maker(0, tmp_path_factory.mktemp("malformed"))
    return try_all(list(maker.files(COUNT)), maker)


def test_malformed_files__are_refused_by_a_clear_error_or_harmless(outcomes):
    """``python tests/checkpoints/malformed_files.py`` tries thousands."""
    assert len(outcomes) == COUNT
    harmless = ("refused", "read", "LARGE", "ended")
    wrong = [o for o in outcomes if o.result not in harmless]
    assert not wrong, "\n".join(o.message for o in wrong)
    refused = Counter(o.kind for o in outcomes if o.result == "refused")
    assert refused["malicious"] >= 40
    assert sum(refused.values()) > 0.75 * COUNT


def test_trial__sees_code_that_runs_and_files_that_hang(tmp_path, monkeypatch):
    """Else the test above could not fail."""
    maker = Maker(0, tmp_path)
    payloads = dict(maker.payloads)
    files = []
    for number, name in enumerate(("builtins.eval", "os.system")):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(maker.with_pickle("weights.pth", state_dict(payloads[name])))
        files.append(("malicious", path))
    assert {o.result for o in try_all(files, maker)} == {"refused"}
    monkeypatch.setenv(TRUST, "1")
    assert {o.result for o in try_all(files, maker)} == {"RAN CODE"}
    shared = dict(maker.bombs)["a key of shared tuples"]
    path.write_bytes(maker.with_pickle("weights.pth", state_dict(shared)))
    monkeypatch.setattr(trial, "SECONDS", 1)
    (hanging,) = try_all([("bomb", path)], maker)
    assert hanging.result == "ended" and "1.pth" in hanging.message
