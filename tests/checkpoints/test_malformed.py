"""Malformed checkpoints end in one clear line: no code, no hang, no flood of memory."""

from collections import Counter

import pytest
from malformed_files import Maker
from trial import try_all

COUNT = 240


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    maker = Maker(0, tmp_path_factory.mktemp("malformed"))
    return try_all(list(maker.files(COUNT)), maker.canary)


def test_malformed_files__are_refused_by_a_clear_error_or_harmless(outcomes):
    """``python tests/checkpoints/malformed_files.py`` tries thousands."""
    assert len(outcomes) == COUNT
    wrong = [o for o in outcomes if o.result not in ("refused", "read")]
    assert not wrong, "\n".join(o.message for o in wrong)
    refused = Counter(o.kind for o in outcomes if o.result == "refused")
    assert refused["malicious"] >= 40 and refused["bomb"] >= 10
    assert sum(refused.values()) > 0.8 * COUNT
