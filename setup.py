"""Build the package, its extras, and the ``.mim`` folder OpenMMLab's tools look for."""

import os
import re
from pathlib import Path

from setuptools import Distribution, find_packages, setup

ROOT = Path(__file__).resolve().parent

# Versions are those the code was run with. The two stacks write the same import names
# (mmengine, mmcv, ...), so neither is required by itself: whoever has one keeps it.
EXTRAS = {
    # The maintained packages; [det] and [seg] add to them.
    "onedl": [
        "numpy>=2,<2.3",
        "onedl-mmengine==0.10.12",
        "onedl-mmcv==2.3.6",
        "onedl-mmpretrain==1.3.6",
        "opencv-python<5",  # mmcv names no bound; the code was run with OpenCV 4
    ],
    "det": ["onedl-mmdetection==3.5.1"],
    "seg": ["onedl-mmsegmentation==1.4.2"],
    # The classic packages, for torch 2.1 and Python below 3.12, detection and
    # segmentation included. mmengine 0.10.7 needs pkg_resources, which newer setuptools
    # lack; mmsegmentation imports ftfy and regex without requiring them.
    "openmmlab": [
        "numpy>=1.26,<2",
        "setuptools<70",
        "mmengine==0.10.7",
        "mmcv==2.1.0",
        "mmpretrain==1.2.0",
        "mmdet==3.3.0",
        "mmsegmentation==1.2.2",
        "opencv-python<5",
        "ftfy",
        "regex",
    ],
    # What tools/demo.py reads its data from and draws with.
    "demo": ["matplotlib", "scikit-learn>=1.3"],
    # What frozen teachers come from: networks of timm, files of safetensors.
    "teachers": ["safetensors>=0.4", "timm>=1.0"],
    # What reads the folders that `convert_checkpoint.py --to hf` writes; mmpretrain
    # cannot be imported with newer releases.
    "hf": ["transformers>=4.40,<5"],
    # What exports encoders, classifiers and trackers, and runs them without torch.
    "onnx": ["onnx>=1.15", "onnxruntime>=1.17"],
    # ruff, mypy and codespell: the same versions as in .pre-commit-config.yaml.
    "dev": [
        "codespell==2.4.3",
        "matplotlib",
        "mypy==2.4.1",
        "pytest>=8",
        "pytest-xdist>=3.5",
        "ruff==0.17.5",
        "safetensors>=0.4",
        "scikit-learn>=1.3",
        "tensorboard>=2.14",
        "tifffile>=2023.1",
        "timm>=1.0",
    ],
}


def read_version() -> str:
    """Read the version from the package without importing it."""
    text = (ROOT / "mim_plugins" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("mim_plugins/__init__.py holds no __version__")
    return match.group(1)


def add_mim_extension() -> None:
    """Put configs, tools and the model index where ``mim`` looks for them.

    ``mim_plugins/.mim`` holds relative links, so that an editable installation follows
    the repository; sdist and wheel get what the links point to. An unpacked sdist
    already has files there, and keeps them.
    """
    folder = ROOT / "mim_plugins" / ".mim"
    folder.mkdir(exist_ok=True)
    for name in ("configs", "tools", "model-index.yml"):
        link = folder / name
        if (ROOT / name).exists() and not os.path.lexists(link):
            link.symlink_to(Path("..", "..", name))


# Tools that need `dev`, which is not shipped; MANIFEST.in leaves them out, too.
DEV_TOOLS = ("parity.py", "benchmark.py", "chaos.py")

# Of setuptools, or of wheel where setuptools has none.
bdist_wheel = Distribution().get_command_class("bdist_wheel")


# Sorts before ../../../bin/mim-plugins, the path of the installed command.
FIRST_FOLDER = "+mim_plugins"
# From there to what the package has.
TO_PACKAGE = "../../mim_plugins/.mim/"
FORWARDED = '''"""Runs the tool of the package."""
import runpy
from pathlib import Path

tools = Path(__file__).resolve().parents[3] / "mim_plugins" / ".mim" / "tools"
runpy.run_path(str(tools / Path(__file__).name), run_name="__main__")
'''


class WheelWithIndex(bdist_wheel):  # type: ignore[valid-type, misc]
    """Makes a wheel with a further folder, for onedl-mim.

    It takes the folder of the first installed file, in the order of names, for that of
    the package, and looks there for index and tools: here are an index that leads to
    the package's configs, and scripts that run its tools.
    """

    def write_wheelfile(self, wheelfile_base: str, *args: str) -> None:
        """Writes a file of the metadata, and that folder next to them."""
        super().write_wheelfile(wheelfile_base, *args)
        folder = Path(wheelfile_base).parent / FIRST_FOLDER / ".mim"
        (folder / "tools").mkdir(parents=True, exist_ok=True)
        index = (ROOT / "model-index.yml").read_text(encoding="utf-8")
        for name in re.findall(r"- (configs/\S+/metafile\.yml)", index):
            text = (ROOT / name).read_text(encoding="utf-8")
            short = f"{Path(name).parent.name}.yml"
            text = text.replace("Config: configs/", f"Config: {TO_PACKAGE}configs/")
            (folder / short).write_text(text, encoding="utf-8")
            index = index.replace(name, short)
        (folder / "model-index.yml").write_text(index, encoding="utf-8")
        for tool in (ROOT / "tools").glob("*.py"):
            if tool.name not in DEV_TOOLS:
                (folder / "tools" / tool.name).write_text(FORWARDED, encoding="utf-8")


add_mim_extension()
readme = ROOT / "README.md"
setup(
    name="mim_plugins",
    version=read_version(),
    description="Masked-image-modelling pre-training as registered OpenMMLab modules",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="self-supervised learning, masked image modelling, mmpretrain",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    # The command line is a package of its own, to start, and to find what is missing,
    # without importing mim_plugins.
    packages=[
        *find_packages(include=["mim_plugins", "mim_plugins.*"]),
        "mim_plugins_cli",
    ],
    package_dir={"mim_plugins_cli": "tools/cli"},
    entry_points={"console_scripts": ["mim-plugins = mim_plugins_cli.main:main"]},
    include_package_data=True,
    python_requires=">=3.10",
    install_requires=["torch>=2.1", "torchvision>=0.16"],
    extras_require=EXTRAS,
    cmdclass={"bdist_wheel": WheelWithIndex},
    zip_safe=False,
)
