"""The calls of README, on generated images."""

import re

import pytest
from own_images import write_classes, write_images
from samples import ROOT


@pytest.mark.usefixtures("unformatted")
def test_calls_of_readme__run_as_they_are(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text().split("## Your own images\n", 1)[1]
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    # A smaller model, and one epoch of each training.
    code, changes = re.subn('model="deepmim_vits", img_size=96', SMALL, code)
    code, tuned = re.subn('out="classifier/"', 'out="classifier/", epochs=1', code)
    assert changes == tuned == 1
    write_images(tmp_path / "photos", 4)
    write_classes(tmp_path / "classes")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code, found)
    assert 0 <= found["knn"] <= 100 and 0 <= found["linear"] <= 100
    assert found["checkpoint"].is_file() and 0 <= found["accuracy"] <= 100
    assert len(list(tmp_path.glob("pictures/*.png"))) == 4
    assert (tmp_path / "features.npz").is_file()


SMALL = 'model="deepmim_vitt", img_size=32, epochs=1'
