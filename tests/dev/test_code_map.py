"""README's code map is roughly true."""

from dev import code_map


def test_code_map__has_files_that_exist_and_their_line_counts():
    found = list(code_map.rows(code_map.README.read_text(encoding="utf-8")))
    assert len(found) > 10
    for row, stated, actual in found:
        assert abs(stated - actual) <= 0.15 * actual, (
            f"{row[1]}: README says {stated} lines, there are {actual}; "
            "update it with python -m dev.code_map"
        )


def test_code_map__covers_the_package():
    text = code_map.README.read_text(encoding="utf-8")
    for path in (code_map.ROOT / "mim_plugins").iterdir():
        if path.is_dir() and path.name[0] not in "._":
            assert f"](mim_plugins/{path.name}" in text, path.name
