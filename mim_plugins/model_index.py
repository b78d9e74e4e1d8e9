"""The model index: names for mmpretrain's ``list_models`` and ``get_model``.

``import mim_plugins`` registers every entry of ``model-index.yml``, which is at the top
of a checkout and in ``.mim`` of an installed package. A config is read when its model
is asked for, and not before.
"""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import CheckpointLoader

from . import compat

# The weights of an entry whose weights are not released.
NOT_RELEASED = "not-released://"

INDEX = "model-index.yml"

PACKAGE = Path(__file__).resolve().parent


def find_index(package: Path = PACKAGE) -> Path | None:
    """The model index of an installed package, or of the checkout it is in.

    Args:
        package: Folder of the package.

    Returns:
        Its path, next to the configs; None if there is none.
    """
    installed = package / ".mim" / INDEX
    if installed.is_file():
        return installed
    checkout = package.parent
    # What is next to an installed package may be anybody's.
    if (checkout / "setup.py").is_file() and (checkout / INDEX).is_file():
        return checkout / INDEX
    return None


def config_folder() -> Path:
    """The folder of the configs, of a checkout or an installed package.

    Raises:
        FileNotFoundError: If there is none.
    """
    index = find_index()
    if index is None:
        raise FileNotFoundError(
            f"there are no configs next to {PACKAGE}: install mim_plugins with pip"
        )
    return index.parent / "configs"


def offer_configs() -> None:
    """Lets configs inherit with ``_base_ = "mim_plugins::deepmim/mae_vitb_300e.py"``.

    mmengine looks such names up in a table of packages, finds their folder, and the
    config in its ``.mim``. Named by a module, the folder is found in an editable
    installation, too, where mmengine looks in site-packages for one named by its
    distribution.
    """
    MODULE2PACKAGE.setdefault(__package__, __name__)


def register() -> None:
    """Registers the names; what goes wrong is a warning, not an error."""
    hub, index = compat.model_hub(), find_index()
    if hub is None or index is None:
        return
    try:
        known = set(getattr(hub, "_models_dict", ()))
        hub.register_model_index(index, config_prefix=index.parent)
        for name, entry in getattr(hub, "_models_dict", {}).items():
            if name not in known and entry.weights is None:
                # get_model(name, pretrained=True) only warns where there is nothing.
                entry.weights = f"{NOT_RELEASED}{name}"
    except Exception as error:  # a damaged index must not take the package with it
        warnings.warn(
            f"mmpretrain's list_models and get_model do not know all names of {index}: "
            f"{error}. Paths of config files work as always.",
            stacklevel=2,
        )


@CheckpointLoader.register_scheme(prefixes=NOT_RELEASED)
def refuse(filename: str, map_location: Any = None) -> None:
    """Called by ``get_model(name, pretrained=True)`` where there are no weights.

    Args:
        filename: The name of the model, after :data:`NOT_RELEASED`.
        map_location: Not used.

    Raises:
        ValueError: Always; it says what to give.
    """
    name = filename.removeprefix(NOT_RELEASED)
    raise ValueError(
        f"no weights of {name} are released: train it, or give a file, as in "
        f"get_model({name!r}, pretrained='epoch_300.pth')"
    )


def find(name: str) -> tuple[Any, str | None]:
    """The config of a model by its name, and where its released weights are.

    Args:
        name: A name of ``mmpretrain.list_models()``.

    Returns:
        The config, or its path if it is not an mmengine config, and an address or None.

    Raises:
        ValueError: If the name is not known; it says which are similar.
    """
    hub = compat.model_hub()
    if hub is None:
        raise ValueError(
            f"this mmpretrain knows no names of models: give a config file, not {name}"
        )
    try:
        entry = hub.get(name)
    except ValueError as error:
        names = list(getattr(hub, "_models_dict", ()))
        close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        raise ValueError(
            f"no model is named {name!r}"
            + (f"; similar names: {', '.join(close)}" if close else "")
            + ". mmpretrain.list_models() lists all; a config file ends in .py"
        ) from error
    weights = entry.weights
    if weights and weights.startswith(NOT_RELEASED):
        weights = None
    return entry.config, weights


def sha256_of(url: str) -> str | None:
    """The SHA-256 of a released file, if an entry of the index with it says so.

    Args:
        url: Address of the file, the entry's ``Weights``; its ``Metadata`` may have
            ``SHA-256``.
    """
    hub = compat.model_hub()
    for entry in getattr(hub, "_models_dict", {}).values():
        if entry.weights == url and entry.metadata is not None:
            return entry.metadata.data.get("SHA-256")
    return None
