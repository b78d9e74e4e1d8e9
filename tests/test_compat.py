import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch

from mim_plugins import compat


def test_torchvision__imports_in_a_fresh_process_after_compat():
    # From its file, so that nothing else of the package has a part in it.
    code = (
        "import runpy\n"
        f"keep = runpy.run_path({compat.__file__!r})\n"
        "import torchvision, torchvision.ops, torchvision.transforms\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import__advises_to_install_no_other_mmcv():
    code = (
        "import runpy, sys\n"
        "sys.modules['mmcv.ops'] = None\n"  # as without its compiled operators
        f"runpy.run_path({compat.__file__!r})\n"
        "import mmcv.cnn.bricks.transformer\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "install" not in done.stdout + done.stderr


@pytest.fixture
def torchvision_not_imported(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.delitem(sys.modules, "torchvision")
    # The name torch gives the operators lives on torch.ops, once asked for.
    monkeypatch.setattr(torch, "ops", type("NoOperators", (), {"torchvision": None}))


def test_schemas__are_left_alone_after_torchvision_was_imported():
    pytest.importorskip("torchvision")
    assert compat.define_torchvision_schemas() is None


def test_schemas__are_left_to_torchvision_where_its_operators_load(
    monkeypatch, torchvision_not_imported
):
    # Defined by hand, they would stop the library from defining its own.
    monkeypatch.setattr(compat, "_torchvision_ops_load", lambda: True)
    monkeypatch.setattr(torch.library, "Library", None)
    assert compat.define_torchvision_schemas() is None


@pytest.mark.parametrize("name", ["_C.so", "_C_stable.so"])
def test_schemas__torchvision_s_library_is_found(tmp_path, monkeypatch, name):
    (tmp_path / name).touch()
    (tmp_path / "image.so").touch()
    found = []

    class Operators:
        torchvision = type("Namespace", (), {})()

        def load_library(self, path):
            found.append(path)
            self.torchvision.nms = "an operator"

    monkeypatch.setattr(torch, "ops", Operators())
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(compat, "find_spec", lambda name: spec)
    assert compat._torchvision_ops_load()
    assert found == [str(tmp_path / name)]


def test_schemas__are_defined_where_the_operators_do_not_load(
    monkeypatch, torchvision_not_imported
):
    defined = []

    class Library:
        def __init__(self, namespace, kind):
            self.namespace = namespace

        def define(self, schema):
            defined.append(f"{self.namespace}::{schema.split('(')[0]}")

    monkeypatch.setattr(compat, "_torchvision_ops_load", lambda: False)
    monkeypatch.setattr(torch.library, "Library", Library)
    assert compat.define_torchvision_schemas() is not None
    assert defined == ["torchvision::nms", "torchvision::qnms"]


def test_schemas__need_no_torchvision(monkeypatch, torchvision_not_imported):
    monkeypatch.setattr(compat, "find_spec", lambda name: None)
    assert compat.define_torchvision_schemas() is None


def test_warn_unsupported__is_silent_in_the_tested_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compat.warn_unsupported()


def test_warn_unsupported__names_an_old_release(monkeypatch):
    monkeypatch.setitem(compat.MINIMUM_VERSIONS, "torch", "99.0")
    with pytest.warns(UserWarning, match=r"torch \d.*oldest tried release is 99.0"):
        compat.warn_unsupported()


def test_warn_unsupported__names_two_distributions_of_one_module(monkeypatch):
    monkeypatch.setattr(compat, "DISTRIBUTIONS", {"mmdet": ("torch", "numpy")})
    with pytest.warns(UserWarning, match=r"torch \S+ and numpy \S+ are both installed"):
        compat.warn_unsupported()


def test_warn_unsupported__says_what_to_install(monkeypatch):
    def find_spec(name):
        return None if name == "mmpretrain" else importlib.util.find_spec(name)

    monkeypatch.setattr(compat, "find_spec", find_spec)
    with pytest.raises(ModuleNotFoundError, match=r"mmpretrain.*mim_plugins\[onedl\]"):
        compat.warn_unsupported()


def test_import__names_a_transformers_release_that_mmpretrain_cannot_stand(monkeypatch):
    def import_module(name):
        raise TypeError("NoneType takes no arguments")

    monkeypatch.setattr(compat.importlib, "import_module", import_module)
    monkeypatch.setattr(compat, "version", lambda name: "5.0.1")
    with pytest.raises(ImportError, match=r"transformers 5\.0\.1 .*'transformers<5'"):
        compat.import_mmpretrain()
    monkeypatch.setattr(compat, "version", lambda name: "4.57.6")
    with pytest.raises(TypeError, match="NoneType"):
        compat.import_mmpretrain()


@pytest.mark.parametrize(
    ("version", "supported"),
    [("2.1.2+cu121", False), ("2.3.1", False), ("2.4.0a0", True), ("2.13.0", True)],
)
def test_fused_optimizer__on_the_cpu_from_torch_2_4(monkeypatch, version, supported):
    monkeypatch.setattr(torch, "__version__", version)
    assert compat.supports_fused_optimizer("cpu") is supported
    assert compat.supports_fused_optimizer("cuda")
    assert not compat.supports_fused_optimizer("meta")


def test_fused_optimizer__answer_holds_for_this_torch():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    try:
        torch.optim.AdamW([weight], lr=0.1, fused=True).step()
    except RuntimeError:
        works = False
    else:
        works = True
    assert compat.supports_fused_optimizer("cpu") is works
