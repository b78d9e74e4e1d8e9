"""A small campaign of random mistakes; the large one is run by hand."""

import pytest
from fuzzed_configs import GOOD, campaign


@pytest.mark.filterwarnings("ignore")
def test_mistake__ends_in_one_sentence_or_is_none() -> None:
    results = campaign(count=30, options=20, seed=0, kinds=["deepmim", "mirl"])
    bad = [result for result in results if result["how"] not in GOOD]
    # A part that is missing altogether may be named by what would have needed it.
    assert [x for x in bad if x["how"] != "names nothing"] == []
    assert len(bad) <= 2, bad
