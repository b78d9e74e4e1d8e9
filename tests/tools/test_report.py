"""The report of a run: complete, self-contained, and honest about what is missing."""

import base64
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from samples import ROOT

from mim_plugins.analysis.charts import line_chart
from mim_plugins.analysis.report_style import STYLE
from mim_plugins.engine.run_record import git_state, record

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements of a page, its text, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture
def report(capsys):
    main = runpy.run_path(str(ROOT / "tools" / "report.py"))["main"]

    def run(*arguments) -> Page:
        main([str(x) for x in arguments])
        (path,) = capsys.readouterr().out.splitlines()
        return Page(Path(path).read_text())

    return run


def write_run(folder: Path, start: str = "20260101_000000", first: int = 1) -> Path:
    """What a training leaves, with two levels and two epochs."""
    logs = folder / start / "vis_data"
    logs.mkdir(parents=True)
    lines: list[dict] = []
    for step in range(first, first + 6):
        values = dict(lr=1e-3 / step, loss=2 / step, loss_0=0.9 / step, loss_1=1 / step)
        counted = dict(epoch=(step + 2) // 3, iter=step, step=step)
        lines.append({**values, "images_per_s": 900.0 + step, **counted})
    lines.append(dict(knn_top1=42.5, epoch=2, step=2))
    lines.append(dict(rankme=float("nan"), epoch=1, step=1))
    lines.append(dict(rankme=7.5, epoch=2, step=2))
    text = "\n".join(map(json.dumps, lines)) + '\n{"loss": 0.1, "it'
    (logs / "scalars.json").write_text(text)
    command = {**record(), "command": f"python tools/train.py c.py # <{start}>"}
    (folder / start / "run.json").write_text(json.dumps(command))
    (folder / "c.py").write_text("model = dict(type='<b>DeepMIM')\n# http://x.org\n")
    pictures = folder / "reconstructions"
    pictures.mkdir(exist_ok=True)
    for epoch in (1, 2, 10):
        picture = np.full((20, 50, 3), 10 * epoch, np.uint8)
        cv2.imwrite(str(pictures / f"epoch_{epoch:03d}.png"), picture)
    return folder


def write_analysis(folder: Path) -> None:
    rows = [
        dict(distance=[30.0, 40.0 + block], entropy=[1.0, 2.0], divergence=[0.1, 0.2],
             token_similarity=0.4, knn=50.0 + block, linear=60.0)
        for block in range(3)
    ]  # fmt: skip
    cka = [dict(models=["a", "a"], values=np.eye(3).tolist())]
    content = dict(images=12, paper_figures=False, quantities={}, cka=cka)
    folder.mkdir()
    text = json.dumps({**content, "blocks": {"a": rows}})
    (folder / "analysis.json").write_text(text)


def assert_self_contained(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "base")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
    assert not page.all("script")[0]
    assert "url(" not in STYLE and "@import" not in STYLE


def test_run_with_everything(tmp_path, report):
    write_run(tmp_path / "run")
    write_analysis(tmp_path / "run" / "analysis")
    page = report(tmp_path / "run")
    assert_self_contained(page)
    assert "Not there" not in page.text
    headings = (
        "Loss per level", "Learning rate", "Throughput", "k-NN and probes", "rankme",
        "Reconstructions", "Attention distance", "Attention entropy", "CKA",
        "Probe accuracy per layer", "What was run",
    )  # fmt: skip
    assert all(heading in page.text for heading in headings)
    # Levels, without their sum, which would dwarf them.
    assert {"loss_0", "loss_1"} <= {x.strip() for x in page.words}
    assert "loss" not in {x.strip() for x in page.words if "iteration" in x}
    assert "# <20260101_000000>" in page.text
    assert "model = dict(type='<b>DeepMIM')" in page.text
    assert record()["versions"]["torch"] in page.text
    for chart in page.all("svg"):
        assert chart.get("aria-label") or chart.get("aria-hidden") == "true"


def test_pictures__have_a_slider_with_a_label(tmp_path, report):
    page = report(write_run(tmp_path / "run"))
    (slider,) = [x for x in page.all("input") if x["type"] == "range"]
    assert [x["for"] for x in page.all("label")] == [slider["id"]]
    assert slider["max"] == slider["value"] == "2"
    images = page.all("img")
    greys = []
    for image in images:
        assert image["alt"]
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/jpeg;base64"
        content = np.frombuffer(base64.b64decode(data), np.uint8)
        greys.append(cv2.imdecode(content, cv2.IMREAD_COLOR).mean())
    # In the order of epochs.
    assert greys == pytest.approx([10, 20, 100], abs=2)
    steps = [x["data-step"] for x in page.all("figure") if "data-step" in x]
    assert steps == ["epoch 1", "epoch 2", "epoch 10"]


def test_what_is_missing__is_named(tmp_path, report):
    logs = tmp_path / "run" / "20260101_000000" / "vis_data"
    logs.mkdir(parents=True)
    (logs / "scalars.json").write_text('{"loss": 1.0, "iter": 1, "step": 1}\n')
    page = report(tmp_path / "run")
    reasons = (
        "no learning rate", "ThroughputHook", "KNNHook", "FeatureRankHook",
        "no picture was drawn", "run.json", "the config", "analyze.py",
    )  # fmt: skip
    for reason in reasons:
        assert reason in page.text
    assert page.text.count("Not there") == 8


def test_resumed_run__is_one(tmp_path, report):
    write_run(tmp_path / "run")
    write_run(tmp_path / "run", "20260102_000000", first=5)
    page = report(tmp_path / "run")
    # Iterations 5 and 6 were repeated: 10 in all.
    assert "at 10" in page.text
    assert "Resumed with" in page.text and "# <20260102_000000>" in page.text


def test_folder_of_runs__has_a_section_for_each(tmp_path, report):
    for name in ("deepmim", "mae"):
        write_run(tmp_path / name)
    page = report(tmp_path, "-o", tmp_path / "elsewhere" / "page.html")
    assert {"#run-0", "#run-1", "#layers"} == {x["href"] for x in page.all("a")}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no folder"),
        (["empty"], "no log of a training"),
        (["run", "--analysis", "empty"], "has no analysis.json"),
        (["run", "--analysis", "other"], "was not written by tools/analyze.py"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    tmp_path, monkeypatch, report, arguments, message
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "analysis.json").write_text("[]")
    with pytest.raises(SystemExit, match=message):
        report(*arguments)
    assert not (tmp_path / "run" / "report.html").exists()


def luminance(color: str) -> float:
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in values
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast__is_enough_in_light_and_dark():
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    for scheme in (light, dark):
        colors = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        assert len(colors) == 12
        for ground in ("page", "card"):
            for name in set(colors) - {"page", "card", "grid"}:
                low, high = sorted(map(luminance, (colors[name], colors[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 1e-9], [-1.0, 1e6]])
def test_chart__of_few_or_equal_values(values):
    drawn = line_chart("a", {"b": list(enumerate(values))}, "x", "y")
    assert "nan" not in drawn and "inf" not in drawn
    Page(drawn)


def test_chart__of_many_values_is_small():
    points = [(float(x), float(x % 7)) for x in range(100_000)]
    assert len(line_chart("a", {"b": points}, "x", "y")) < 20_000
    assert line_chart("a", {"b": [(1.0, float("nan"))]}, "x", "y") == ""


def test_git_state__is_that_of_this_checkout(tmp_path):
    state = git_state(ROOT / "mim_plugins" / "engine")
    if (ROOT / ".git").exists():
        assert re.match(r"[0-9a-f]{40}", state)
    assert git_state(tmp_path) is None
