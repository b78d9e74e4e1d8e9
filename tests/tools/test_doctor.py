"""mim-plugins doctor: what is wrong with an installation, and what mends it."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from samples import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from cli import doctor  # noqa: E402

ONEDL = {
    "torch": "2.13.0",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmpretrain": "1.3.6",
}


@pytest.fixture
def installed(monkeypatch):
    """Sets what is installed, by distribution."""

    def install(packages):
        monkeypatch.setattr(doctor, "_version", packages.get)

    return install


def problems(findings):
    return {x.name: x for x in findings if x.level == doctor.PROBLEM}


def test_missing_stack_is_named_with_the_command(installed):
    installed({})
    found = problems(doctor.stack())
    assert list(found) == ["mmengine", "mmcv", "mmpretrain"]
    assert found["mmengine"].remedy == "pip install 'mim_plugins[onedl]'"


def test_two_stacks_in_one_environment_are_a_problem(installed):
    installed(ONEDL | {"mmengine": "0.10.7"})
    found = problems(doctor.stack())
    assert list(found) == ["mmengine"]
    assert "0.10.12 and mmengine 0.10.7 write the same" in found["mmengine"].text
    assert "pip uninstall -y onedl-mmengine mmengine" in found["mmengine"].remedy


@pytest.mark.parametrize(
    ("packages", "named"),
    [
        (ONEDL | {"numpy": "2.2.0", "opencv-python": "4.13.0"}, []),
        ({"mmengine": "0.10.7", "numpy": "2.0.1"}, ["numpy"]),
        ({"mmengine": "0.10.7", "setuptools": "80.1"}, ["setuptools"]),
        (ONEDL | {"transformers": "5.0.0rc1"}, ["transformers"]),
        (ONEDL | {"opencv-python": "5.0.0"}, ["opencv-python"]),
    ],
)
def test_versions_that_do_not_fit_together(installed, packages, named):
    installed(packages)
    found = list(doctor.known_conflicts())
    assert [x.name for x in found] == named
    assert all(x.remedy.startswith("pip install") for x in found)


def test_torchvision_of_another_torch(installed, monkeypatch):
    torch = SimpleNamespace(
        __version__="2.13.0+cpu", cuda=SimpleNamespace(is_available=lambda: False)
    )
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: torch)
    monkeypatch.setattr(doctor, "gpu", lambda torch: doctor.Finding("GPU", "ok", ""))
    installed({"torchvision": "0.27.0"})
    found = problems(doctor.torch_and_vision())
    assert found["torchvision"].remedy == "pip install 'torchvision==0.28.*'"
    torch.__version__ = "2.0.1"
    assert "is before 2.1" in problems(doctor.torch_and_vision())["torch"].text


def test_driver_without_cuda_in_torch(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    cuda = SimpleNamespace(is_available=lambda: False)
    version = SimpleNamespace(cuda=None)
    torch = SimpleNamespace(__version__="2.13.0+cpu", cuda=cuda, version=version)
    assert "built for the CPU" in doctor.gpu(torch).text
    assert doctor.gpu(torch).level == doctor.PROBLEM


def test_little_space_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=2 * 2**30, total=64 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    levels = {x.name: x.level for x in doctor.disk(tmp_path)}
    assert levels == {"folder": "ok", "disk": "warning"}
    assert list(tmp_path.iterdir()) == []
    assert "--shm-size" in doctor.shared_memory().remedy
    gone = {x.name: x.level for x in doctor.disk(tmp_path / "gone")}
    assert gone["folder"] == doctor.PROBLEM


def test_a_step_that_fails_ends_in_its_last_line(tmp_path, capsys):
    def step():
        raise RuntimeError("Traceback ...\nImportError: no module named mmcv\n")

    findings = doctor.examine(tmp_path, step)
    assert doctor.report(findings, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found[-1]["text"] == "ImportError: no module named mmcv"
    assert found[-1]["level"] == "problem"


def test_here_a_tiny_model_trains():
    assert doctor.training_step().startswith("done")


def test_command_starts_without_the_package():
    code = "from cli.main import main; import sys; main(['doctor', '--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--json" in done.stdout
    assert not re.search(r"\| *(torch|mim_plugins|mmengine)$", done.stderr, re.M)
