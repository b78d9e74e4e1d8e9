"""The installer runs for real here, but with an interpreter and a pip that only note
what they were asked for: order, caches and messages are its behaviour."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the installer is for Linux"
)

INTERPRETER = f"""#!/usr/bin/env bash
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip "*)
        shift 2
        echo "pip $*" >>"$CALLS"
        case "$*" in *"${{PIP_FAILS:-nothing}}"*) echo "no such release"; exit 1 ;; esac
        if [ "$1" = wheel ]; then touch "${{@: -1}}/mmcv.whl"; fi ;;
    "setup.py "*) echo "python $*" >>"$CALLS" ;;
    *'version("torch")'* | *torch/version.py*) echo 2.13.0+cpu ;;
    *CUDA_HOME*) echo cpu ;;
    *Python.h* | *"import mmcv"* | *"import torch"* | *"import pip"*) ;;
    *) exec {sys.executable} "$@" ;;
esac
"""


class Installer:
    """Runs ``tools/install.sh`` against a home folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.calls_file = folder / "calls"
        interpreter = folder / "python"
        interpreter.write_text(INTERPRETER)
        interpreter.chmod(0o755)

    def __call__(self, *profile, **environment):
        """Return the exit code, all output, and the calls of pip this run made."""
        self.calls_file.write_text("")
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CALLS": str(self.calls_file),
            "PYTHON": str(self.folder / "python"),
            "VENV": str(self.folder / "venv"),
            "CXX": "true",
            **{key: str(value) for key, value in environment.items()},
        }
        done = subprocess.run(
            ["bash", str(ROOT / "tools" / "install.sh"), *profile],
            env=env,
            capture_output=True,
            text=True,
        )
        calls = self.calls_file.read_text().splitlines()
        return done.returncode, done.stdout + done.stderr, calls


@pytest.fixture
def install(tmp_path):
    return Installer(tmp_path)


def index(calls, text):
    """Return the position of the only call that holds a text."""
    (found,) = [i for i, call in enumerate(calls) if text in call]
    return found


def test_demo__installs_torch_first_and_does_nothing_the_second_time(install):
    code, output, calls = install("demo")
    assert code == 0, output
    assert calls[0].startswith("pip install torch==2.13.0 setuptools<81")
    assert index(calls, "-e .[onedl,demo]") == len(calls) - 1
    assert "torchvision==0.28.0" in calls[-1]

    code, output, calls = install("demo")
    assert (code, calls) == (0, [])
    assert "is ready" in output


def test_demo__builds_mmcv_isolated_from_torch(install):
    _, _, calls = install("demo")
    build = calls[index(calls, "pip wheel")]
    assert "--no-build-isolation" not in build and "--no-cache-dir" in build
    assert "--use-pep517" in build


def test_test__replaces_plain_mmcv_by_a_compiled_one(install):
    install("demo")
    code, output, calls = install("test")
    assert code == 0, output
    build = calls[index(calls, "pip wheel")]
    for option in ("--no-build-isolation", "--no-deps", "--no-cache-dir"):
        assert option in build
    swap = calls[index(calls, "--force-reinstall")]
    assert "torch2.13.0+cpu" in swap and "-plain/" not in swap
    # What comes after the one resolution must not move its choices.
    rest = calls[index(calls, "-e .[onedl,det,seg,hf,onnx,demo,dev]") + 1 :]
    assert rest and all("--no-deps" in call for call in rest)

    # The larger environment serves the smaller profile as it is.
    code, _, calls = install("demo")
    assert (code, calls) == (0, [])


def test_test__reuses_the_compiled_wheel_in_another_environment(install):
    install("test")
    code, _, calls = install("test", VENV=install.folder / "other")
    assert code == 0
    assert not [call for call in calls if call.startswith("pip wheel")]
    assert "torch2.13.0+cpu" in calls[index(calls, "--force-reinstall")]


def test_plain_wheel__is_not_taken_for_a_compiled_one(install):
    install("demo")
    _, _, calls = install("test", VENV=install.folder / "other")
    assert "--no-build-isolation" in calls[index(calls, "pip wheel")]


def test_classic_stack__has_its_own_pins(install):
    if sys.version_info >= (3, 12):
        pytest.skip("the classic stack ends at Python 3.11")
    code, output, calls = install("test", STACK="openmmlab")
    assert code == 0, output
    assert calls[0].startswith("pip install torch==2.1.2 setuptools<70")
    assert not [call for call in calls if "onedl" in call]
    # Without metadata in the checkout, openmim finds no editable installation.
    assert calls[-1] == "python setup.py -q egg_info"


def test_failing_pip__shows_its_error_and_leaves_no_stamp(install):
    code, output, _ = install("demo", PIP_FAILS="torchvision")
    assert code == 1
    assert "no such release" in output and "failed:" in output
    _, _, calls = install("demo")
    assert calls


def test_missing_compiler__is_named(install):
    code, output, _ = install("test", CXX="/no/such/compiler")
    assert code == 1
    assert "C++ compiler" in output


def test_missing_python__is_named(install):
    code, output, calls = install("demo", PYTHON="/no/such/python")
    assert (code, calls) == (1, [])
    assert "/no/such/python" in output and "3.10" in output


@pytest.mark.parametrize("bad", [{"STACK": "mmlab"}, {"profile": "everything"}])
def test_unknown_choice__is_refused_with_the_known_ones(install, bad):
    code, output, calls = install(bad.pop("profile", "demo"), **bad)
    assert (code, calls) == (2, [])
    assert "onedl or openmmlab" in output or "demo|dev|test" in output


def setup_extras():
    tree = ast.parse((ROOT / "setup.py").read_text())
    (node,) = [
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "EXTRAS"
    ]
    return ast.literal_eval(node)


def test_extras__keep_the_stacks_apart():
    extras = setup_extras()
    assert {"onedl", "openmmlab", "det", "seg", "dev"} <= set(extras)
    assert all(name.startswith("onedl-") for name in extras["det"] + extras["seg"])
    assert not [name for name in extras["openmmlab"] if name.startswith("onedl")]
    # No stack is forced on anybody: it would be written over the one that is there.
    required = re.search(
        r"install_requires=(\[.*?\])", (ROOT / "setup.py").read_text(), re.DOTALL
    )
    assert "mm" not in required.group(1)


def test_lint_tools__have_one_version_everywhere():
    dev = dict(name.split("==") for name in setup_extras()["dev"] if "==" in name)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    revisions = dict(re.findall(r"/([a-z-]+)\n +rev: v(\S+)", hooks))
    assert revisions == {
        "ruff-pre-commit": dev["ruff"],
        "codespell": dev["codespell"],
        "mirrors-mypy": dev["mypy"],
    }


def test_installation__names_no_package_index():
    for name in ("tools/install.sh", "Makefile", ".ci/run", "setup.py"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|index[-]url|find-links", text), name
