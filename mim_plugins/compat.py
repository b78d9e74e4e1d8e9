"""Every difference between the supported stacks, and nothing else.

Two families of packages provide ``mmengine``, ``mmcv``, ``mmpretrain``, ``mmdet``
and ``mmseg``: the maintained ``onedl-*`` packages and the classic OpenMMLab ones.
Both import under the same names, so the rest of the package does not care; what does
differ between them, or between torch releases, is handled here.

Importing this module makes torchvision importable with a torch whose build it does
not match, so it has to be imported before anything that imports torchvision.
"""

import importlib
import io
import sys
import warnings
from contextlib import redirect_stdout, suppress
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

# The oldest release of each package the code was run with. There are no upper bounds:
# the maintained packages count on from where the classic ones stopped.
MINIMUM_VERSIONS = {
    "torch": "2.1.0",
    "mmengine": "0.10.7",
    "mmcv": "2.1.0",
    "mmpretrain": "1.2.0",
}

# Import name -> names of the distributions that provide it.
DISTRIBUTIONS = {
    "mmengine": ("mmengine", "onedl-mmengine"),
    "mmcv": ("mmcv", "onedl-mmcv"),
    "mmpretrain": ("mmpretrain", "onedl-mmpretrain"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
}

# The operators torchvision attaches shape functions to when it is imported.
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _torchvision_ops_load() -> bool:
    """Return whether torchvision's compiled operators can be loaded by this torch.

    The library, ``_C`` or from torchvision 0.29 on ``_C_stable``, is loaded the way
    torchvision itself does it on import; loading it twice is harmless, while guessing
    from version strings would not be: once the schemas are defined by hand, the library
    can no longer define its own.
    """
    spec = find_spec("torchvision")
    for folder in list(spec.submodule_search_locations or ()) if spec else []:
        for library in sorted(Path(folder).glob("_C*")):
            if library.name.endswith(tuple(EXTENSION_SUFFIXES)):
                with suppress(ImportError, OSError):
                    torch.ops.load_library(str(library))
    return hasattr(torch.ops.torchvision, "nms")


def define_torchvision_schemas() -> "torch.library.Library | None":
    """Define torchvision's operator schemas where its compiled part cannot load.

    A torchvision wheel built for CUDA cannot load its operators with a CPU build
    of torch, and ``import torchvision`` then stops because ``torchvision::nms`` does
    not exist. With the schemas defined, everything but those operators works, and
    calling one of them still ends in torchvision's own explanation.

    Returns:
        The library fragment that owns the schemas, to be kept alive by the caller,
        or None where nothing was to be done: torchvision is not installed, is
        imported already, or comes with working operators.
    """
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return None
    if hasattr(torch.ops.torchvision, "nms") or _torchvision_ops_load():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in TORCHVISION_SCHEMAS:
        library.define(schema)
    return library


def _installed_distributions(module: str) -> dict[str, str]:
    """Return the version of every installed distribution that provides a module."""
    found = {}
    for name in DISTRIBUTIONS.get(module, (module,)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree on the path has no metadata
            continue
    return found


def warn_unsupported() -> None:
    """Warn about versions the package was never run with.

    Older releases than those in ``MINIMUM_VERSIONS`` are named, and so is an
    environment that holds the classic and the maintained distribution of one module:
    both write the same files, and which of them won depends on the order of
    installation. Nothing is imported to find out but mmengine.

    Raises:
        ModuleNotFoundError: If mmengine, mmcv or mmpretrain is not installed.
    """
    for module in MINIMUM_VERSIONS:
        if find_spec(module) is None:
            raise ModuleNotFoundError(
                f"mim_plugins needs {module}, which is not installed. Install one of "
                "the two stacks: pip install 'mim_plugins[onedl]' (maintained "
                "packages) or pip install 'mim_plugins[openmmlab]' (classic packages, "
                "for torch 2.1).",
                name=module,
            )
    from mmengine.utils import digit_version

    for module, minimum in MINIMUM_VERSIONS.items():
        for name, found in _installed_distributions(module).items():
            if digit_version(found) < digit_version(minimum):
                warnings.warn(
                    f"mim_plugins was never run with {name} {found}; the oldest tried "
                    f"release is {minimum}.",
                    stacklevel=2,
                )
    for module in DISTRIBUTIONS:
        both = [" ".join(item) for item in _installed_distributions(module).items()]
        if len(both) > 1:
            warnings.warn(
                f"{' and '.join(both)} are both installed and write the same files of "
                f"{module}. Uninstall both, then install one again.",
                stacklevel=2,
            )


def supports_fused_optimizer(device_type: str) -> bool:
    """Return whether torch's fused AdamW and SGD run on a kind of device.

    Args:
        device_type: Kind of device, such as ``"cpu"`` or ``"cuda"``.

    Returns:
        True on CUDA, and on the CPU from torch 2.4 on.
    """
    if device_type == "cpu":
        return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4)
    return device_type == "cuda"


def model_hub() -> Any:
    """The class behind mmpretrain's ``list_models`` and ``get_model``.

    Returns:
        It, or None if the stack has none that takes further model indices.
    """
    try:
        from mmpretrain.apis.model import ModelHub
    except ImportError:
        return None
    wanted = ("register_model_index", "get")
    return ModelHub if all(hasattr(ModelHub, name) for name in wanted) else None


def import_mmpretrain() -> None:
    """Imports the part of mmpretrain that all modules need, without its messages.

    The maintained package prints a line about an optional package when it is imported,
    which would mix with the JSON that the tools print, and mmcv without its compiled
    operators advises to install another mmcv, for a module that none of ours uses.

    Raises:
        ImportError: If it cannot be imported with the installed transformers.
    """
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            advice = "Fail to import ``MultiScaleDeformableAttention``"
            warnings.filterwarnings("ignore", message=advice)
            importlib.import_module("mmcv.cnn.bricks.transformer")
            importlib.import_module("mmpretrain.datasets")
    except Exception as error:
        found = _installed_distributions("transformers").get("transformers", "0")
        if int(found.split(".")[0]) < 5:
            raise
        raise ImportError(
            f"mmpretrain cannot be imported with transformers {found} ({error!r}): "
            "it was written for releases before 5. Run pip install 'transformers<5', "
            "or remove transformers, which training does not need"
        ) from error


# A library fragment drops its schemas when it is garbage-collected: keep it.
_TORCHVISION_LIBRARY = define_torchvision_schemas()
warn_unsupported()
import_mmpretrain()
