"""What is built of a checkout holds configs, tools and model index, and mim finds them.

Sdist and wheel are made, and installed into a folder, for real: without a network, and
with the setuptools that is installed.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub
from samples import ROOT

import mim_plugins
from mim_plugins import model_index
from mim_plugins.engine import load_config

NAME = "localmim_vitb-hog_1600e"


def run(*command, folder):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel of the sdist of this checkout is installed."""
    pytest.importorskip("wheel")
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "work_dirs")
    source.mkdir()
    for name in ("mim_plugins", "configs", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for path in ROOT.iterdir():
        if path.is_file() and path.name[0] != ".":
            shutil.copy(path, source)
    run("setup.py", "-q", "sdist", "-d", folder, folder=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    pip = ("-m", "pip", "-q")
    offline = ("--no-deps", "--no-build-isolation")
    run(*pip, "wheel", *offline, "-w", folder, ".", folder=unpacked)
    (wheel,) = folder.glob("*.whl")
    # An environment of its own, that borrows all but this package.
    env = folder / "env"
    run("-m", "venv", "--without-pip", env, folder=folder)
    (site,) = env.glob("lib/python*/site-packages")
    borrowed = {path for path in map(Path, sys.path) if path.name == "site-packages"}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    into = ("--python", env / "bin" / "python", "install", "--no-deps", "--no-compile")
    run(*pip, *into, "--ignore-installed", wheel, folder=folder)
    return site


def run_installed(site, folder, *arguments):
    """Runs the installed Python elsewhere, with no path of this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [site.parents[2] / "bin" / "python", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def relative_files(folder, pattern="*"):
    files = (path for path in folder.rglob(pattern) if path.is_file())
    return {
        str(path.relative_to(folder)) for path in files if path.parent.name[0] != "_"
    }


def test_installed_package__has_what_the_checkout_has(installed):
    mim = installed / "mim_plugins" / ".mim"
    assert relative_files(mim / "configs") == relative_files(ROOT / "configs")
    tools = relative_files(ROOT / "tools") - {"parity.py", "benchmark.py", "chaos.py"}
    assert "train.py" in tools and relative_files(mim / "tools") == tools
    # Once: what onedl-mim needs leads there.
    first = installed / "+mim_plugins" / ".mim"
    scripts = {name for name in tools if name.endswith(".py") and "/" not in name}
    assert relative_files(first / "tools") == scripts
    assert not (first / "configs").exists()
    size = sum(path.stat().st_size for path in first.rglob("*") if path.is_file())
    assert size < 150_000
    assert (mim / "model-index.yml").read_text() == (
        ROOT / "model-index.yml"
    ).read_text()
    modules = relative_files(ROOT / "mim_plugins", "*.py")
    assert modules <= relative_files(installed / "mim_plugins", "*.py")
    # `dev` and the tools that need it serve a checkout.
    assert not (installed / "dev").exists()


def test_installed_command__starts_tools_and_knows_its_version(installed, tmp_path):
    command = installed.parents[2] / "bin" / "mim-plugins"
    said = run_installed(installed, tmp_path, command, "--version")
    assert said == f"mim-plugins {mim_plugins.__version__}\n"
    said = run_installed(installed, tmp_path, command, "convert", "--help")
    assert said.startswith("usage: mim-plugins convert")


def test_script_for_onedl_mim__runs_the_tool(installed, tmp_path):
    script = installed / "+mim_plugins" / ".mim" / "tools" / "test.py"
    assert "checkpoint" in run_installed(installed, tmp_path, script, "--help")


CHILDREN = """
import mim_plugins, sys
from pathlib import Path
from mim_plugins.demo.runs import CONFIGS
from mim_plugins.engine import load_config
from mim_plugins.engine.config.print_config import annotated_config

assert Path(sys.argv[1]) in Path(mim_plugins.__file__).parents
assert (CONFIGS / "mae_digits.py").is_file()
for name in ("deepmim/mae_vits_300e", "mirl/vits54_800e", "_base_/models/mim_vitt",
             "distilled/segmentation/mae_vits_semantic-fpn_ade20k"):
    Path("child.py").write_text(
        f"_base_ = 'mim_plugins::{name}.py'\\n"
        "model = dict(backbone=dict(drop_path_rate=0.1))\\n"
    )
    child = load_config("child.py")
    base = load_config(CONFIGS.parent / f"{name}.py")
    assert child.model.backbone.drop_path_rate == 0.1, name
    base.model.backbone.drop_path_rate = 0.1
    assert child.to_dict() == base.to_dict(), name
Path("child.py").write_text("_base_ = 'mim_plugins::deepmim/mae_vits_300e.py'\\n")
text = annotated_config("child.py", cfg_options=dict(img_size=96))
assert "model.backbone.img_size = 96  <- --cfg-options (before: 224)" in text, text
"""


DEMO = """
from mim_plugins.demo import runs
from mim_plugins_cli.main import main

runs.IMAGES_SEEN = 128
main(["demo", "--data", "photos"])
"""


def test_outside_a_checkout__child_configs_and_the_demo_work(installed, tmp_path):
    # One process for both: its imports take most of the time.
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(64):
        image = draw.integers(0, 256, (70, 80, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), image)
    said = run_installed(installed, tmp_path, "-c", CHILDREN + DEMO, installed)
    assert "in the last" in said and "reconstructions" in said
    assert list(tmp_path.glob("work_dirs/demo/*/epoch_*.pth"))


def test_child_config__inherits_in_an_editable_installation(tmp_path):
    if not (ROOT / "mim_plugins" / ".mim").is_dir():
        pytest.skip("setup.py has not been run in this checkout")
    child = tmp_path / "child.py"
    child.write_text("_base_ = 'mim_plugins::deepmim/mae_vits_300e.py'\n")
    base = load_config(ROOT / "configs/deepmim/mae_vits_300e.py")
    assert load_config(child).to_dict() == base.to_dict()
    child.write_text("_base_ = 'mim_plugins::deepmim/mae_vitx_300e.py'\n")
    with pytest.raises(ValueError, match="mae_vitx_300e.py"):
        load_config(child)


def test_installed_package__gives_its_names_to_mmpretrain(installed):
    class Hub(ModelHub):
        _models_dict: dict = {}

    index = model_index.find_index(installed / "mim_plugins")
    assert index == installed / "mim_plugins" / ".mim" / "model-index.yml"
    Hub.register_model_index(index, config_prefix=index.parent)
    ours = {n for n in ModelHub._models_dict if n in Hub._models_dict}
    assert Hub._models_dict.keys() == ours and NAME in ours
    for entry in Hub._models_dict.values():
        assert Path(entry.config).is_file()
        assert installed in Path(entry.config).parents


# What the commands do, in one process and without loading the package: it is named in
# the configs' custom_imports.
MIM = f"""
import json, sys, types
from mim.commands.download import download
from mim.commands.search import get_model_info
sys.modules["mim_plugins"] = types.ModuleType("mim_plugins")
print(json.dumps(get_model_info("mim_plugins", to_dict=True)[{NAME!r}]))
download("mim_plugins", [{NAME!r}], ".")
"""


def test_mim__finds_index_weights_and_config_of_an_installed_wheel(installed, tmp_path):
    if not (is_there("openmim") or is_there("onedl-mim")):
        pytest.skip("mim is not installed")
    entry = ModelHub._models_dict[NAME]
    # mim downloads nothing twice.
    weights = tmp_path / entry.weights.rsplit("/", 1)[1]
    weights.touch()
    done = subprocess.run(
        [sys.executable, "-c", MIM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line[0] == "{"]
    found = json.loads(line)
    assert found["weight"] == entry.weights
    assert found["config"].endswith("configs/localmim/vitb_hog_1600e.py")
    assert f"{weights.name} exists" in done.stdout
    assert Config.fromfile(tmp_path / f"{NAME}.py").model.type == "LocalMIM"


def test_mim__finds_the_index_of_a_checkout(tmp_path):
    mim = Path(sys.executable).with_name("mim")
    if not mim.is_file() or not is_editable():
        pytest.skip("mim is not installed, or mim_plugins not from this checkout")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if is_there("openmim"):
        # It looks next to the metadata: to those that tools/install.sh has put into the
        # checkout it is led as the README says.
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [mim, "search", "mim_plugins", "--config", NAME, "--field", "config"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert f"config id: {NAME}" in done.stdout, done.stderr
    assert "configs/localmim/vitb_hog_1600e.py" in done.stdout


def is_there(distribution):
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def is_editable():
    """Whether an installed mim_plugins is this checkout."""
    for distribution in importlib.metadata.distributions(name="mim_plugins"):
        if origin := distribution.read_text("direct_url.json"):
            return json.loads(origin).get("url") == ROOT.as_uri()
    return False
