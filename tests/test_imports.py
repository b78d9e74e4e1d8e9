"""What importing the package does to others, and who imports whom in it."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from samples import ROOT

# Imports every module of the host, then the package, and lists what has changed.
# Torchvision may need its schemas first, which `compat` defines.
COMPARE = """
import importlib, importlib.util, pkgutil, sys, types, warnings
warnings.simplefilter("ignore")
spec = importlib.util.spec_from_file_location("compat", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))

HOSTS = ("mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg")
for host in HOSTS:
    try:
        package = importlib.import_module(host)
    except ImportError:
        continue
    for module in pkgutil.walk_packages(package.__path__, f"{host}.", onerror=id):
        try:
            importlib.import_module(module.name)
        except Exception:  # of packages that are optional for the host
            pass

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in HOSTS and isinstance(module, types.ModuleType):
            for key, value in vars(module).items():
                if key.startswith("__"):
                    continue
                found[f"{name}.{key}"] = value
                if isinstance(value, type):
                    for member, inner in list(vars(value).items()):
                        if member not in ("__doc__", "__dict__", "__weakref__"):
                            found[f"{name}.{key}.{member}"] = inner
    return found

from mmengine.runner import CheckpointLoader

before, loaders = attributes(), dict(CheckpointLoader._schemes)
import mim_plugins
after = attributes()
# mmengine's registry of addresses sorts itself anew when one is added.
assert all(CheckpointLoader._schemes[x] is loader for x, loader in loaders.items())
changed = [
    key for key, value in before.items()
    if after.get(key) is not value and not key.endswith("CheckpointLoader._schemes")
]
print(len(before))
print("\\n".join(key for key in changed if not key.endswith("._abc_impl")))
"""


def test_import__changes_no_function_and_no_class_of_the_host():
    compat = ROOT / "mim_plugins" / "compat.py"
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(compat)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    number = next(index for index, line in enumerate(lines) if line.isdigit())
    assert int(lines[number]) > 20000
    assert lines[number + 1 :] in ([], [""])


# Packages and modules below mim_plugins, each of which imports only what is above it.
LAYERS = (
    "compat", "model_index", "checkpoints", "models", "visualization", "datasets",
    "engine", "evaluation", "analysis", "simple", "demo",
)  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in sorted((ROOT / "mim_plugins").rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module imports, inside functions too."""
    path, found = MODULES[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")
            base = base[: len(base) - node.level + 1] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= {x if x in MODULES else start for x in names}
    return {x for x in found if x in MODULES and x != name}


GRAPH = {name: imports_of(name) for name in MODULES}


def layer_of(name: str) -> int:
    return LAYERS.index(name.split(".")[1])


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_module__imports_only_what_is_below_it(name):
    upwards = {x for x in GRAPH[name] if "." not in x or layer_of(x) > layer_of(name)}
    assert not upwards


def test_modules__import_each_other_in_no_circle():
    depths: dict[str, int] = defaultdict(int)

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if depths[name] >= len(path) + 1:
            return
        depths[name] = len(path) + 1
        for other in GRAPH[name]:
            # A package's __init__ imports its modules, which may name the package.
            visit(other, (*path, name))

    for name in MODULES:
        visit(name, ())


def test_wings_of_checkpoints__import_one_way():
    """Loading knows layouts and files, files know layouts; layouts know neither."""
    wings = ("layouts", "files", "loading")
    for name, imported in GRAPH.items():
        for wing, above in (("layouts", wings[1:]), ("files", wings[2:])):
            if name.startswith(f"mim_plugins.checkpoints.{wing}"):
                others = {x.split(".")[2] for x in imported if x.count(".") > 1}
                assert not others & set(above), name
