"""The names of the model index, for mmpretrain's ``list_models`` and ``get_model``.

``import mim_plugins`` tells mmpretrain of every entry of ``model-index.yml``, in a
checkout at the top, in an installed package in ``.mim``. A config is read when its
model is asked for, and not before.

A model got by name is there to be used: the teachers of some configs, whose files not
everybody has, are left out of it where they are absent. It then makes features, loads
its own checkpoints and official ones, and refuses to be trained.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mim_plugins import compat

INDEX = "model-index.yml"

PACKAGE = Path(__file__).resolve().parents[1]


def find_index(package: Path = PACKAGE) -> Path | None:
    """The model index of an installed package, or of the checkout it is in.

    Args:
        package: Folder of the package.

    Returns:
        Its path, beside which the configs lie; None if there is none.
    """
    installed = package / ".mim" / INDEX
    if installed.is_file():
        return installed
    checkout = package.parent
    # What lies beside an installed package may be anybody's.
    if (checkout / "setup.py").is_file() and (checkout / INDEX).is_file():
        return checkout / INDEX
    return None


def install() -> None:
    """Tells mmpretrain the names, once; what goes wrong is a warning, not an error."""
    hub = compat.model_hub()
    index = find_index()
    if hub is None or index is None or getattr(hub.get, "knows_mim_plugins", False):
        return
    try:
        hub.register_model_index(index, config_prefix=index.parent)
    except Exception as error:  # a damaged index must not take the package with it
        warnings.warn(
            f"mmpretrain's list_models and get_model do not know all names of {index}: "
            f"{error}. Paths of config files work as always.",
            stacklevel=2,
        )
    original = hub.get.__func__

    @functools.wraps(original)
    def get(cls: Any, model_name: str) -> Any:
        entry = original(cls, model_name)
        if isinstance(entry.config, Config):
            leave_out_absent_teachers(entry.config)
        return entry

    get.knows_mim_plugins = True  # type: ignore[attr-defined]
    hub.get = classmethod(get)


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


def leave_out_absent_teachers(cfg: Config) -> None:
    """Lets the model of a config be built where the files of its teachers are not.

    A teacher whose file is there stays. Files of teachers that would be downloaded are
    not: they are needed in training alone.

    Args:
        cfg: A config, which is changed.
    """
    model = cfg.get("model", {})
    target = model.get("target_generator")
    if isinstance(target, dict):
        model["target_generator"] = _target_or_absent(target, cfg)
    elif isinstance(target, (list, tuple)):
        model["target_generator"] = [_target_or_absent(part, cfg) for part in target]
    if _type(model) in ("DistilledMIM", "DistilledClassifier"):
        path = model.get("teacher_checkpoint")
        if path is None or not Path(path).is_file():
            model.setdefault("without_teacher", True)


def _target_or_absent(target: dict, cfg: Config) -> dict:
    """A target, or what stands for it where its teacher's file is absent."""
    path = target.get("checkpoint")
    if path is None or Path(path).exists():
        return target
    if _type(target) == "CLIPTarget" and "clip_dims" in cfg:
        return dict(type="AbsentTarget", checkpoint=path, dims=cfg.clip_dims)
    if _type(target) == "HybridTarget":
        shape = target["teacher"]["target_generator"]
        return dict(type="AbsentTarget", checkpoint=path, like=shape)
    return target


def _type(part: dict) -> str:
    """A type's name without the scope before it."""
    return str(part.get("type")).rpartition(".")[-1]
