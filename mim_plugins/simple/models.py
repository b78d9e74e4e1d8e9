"""Names of models, a method and an encoder, and the configs they start from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..model_index import find_index

_TINY = dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768)
_LARGE = dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096)
# Decoders as narrow as those of the lightweight studies: the recipes', for ViT-B, are
# larger than small encoders.
_FOR_TINY = dict(embed_dims=96, depth=1, num_heads=3)
_FOR_SMALL = dict(embed_dims=192, depth=1, num_heads=6)


class Recipe(NamedTuple):
    """What a model starts from.

    Args:
        config: The config file, below ``configs/``.
        changes: What differs from it, as a config has it.
        teacher: What the method learns from, for a message; empty if from nothing.
    """

    config: str
    changes: Mapping[str, Any] = {}
    teacher: str = ""


def _vit(arch: Any, **neck: Any) -> dict[str, Any]:
    return dict(backbone=dict(arch=arch), **(dict(neck=neck) if neck else {}))


_MAE = "a trained MAE on ViT-B/16 (configs/mae/vitb_1600e.py, or the authors' file)"
_MIRL_TINY = dict(embed_dims=192, depth=1, num_heads=6)
_MIRL_SMALL = dict(embed_dims=384, depth=1, num_heads=12)

RECIPES = {
    "mae_vitt": Recipe("distilled/mae_vitt_400e.py"),
    "mae_vits": Recipe("distilled/mae_vits_400e.py"),
    "mae_vitb": Recipe("mae/vitb_1600e.py"),
    "mae_vitl": Recipe("mae/vitl_1600e.py"),
    "mae_hierat": Recipe("distilled/mae_hierat_400e.py"),
    "deepmim_vitt": Recipe("deepmim/mae_vits_300e.py", _vit("deit-tiny", **_FOR_TINY)),
    "deepmim_vits": Recipe("deepmim/mae_vits_300e.py", dict(neck=_FOR_SMALL)),
    "deepmim_vitb": Recipe("deepmim/mae_vitb_300e.py"),
    "deepmim_vitl": Recipe("deepmim/mae_vitl_300e.py"),
    "deepmim-hybrid_vitb": Recipe("deepmim/mae-hybrid_vitb_300e.py", teacher=_MAE),
    "deepmim-clip_vitb": Recipe(
        "deepmim/mae-clip_vitb_300e.py", teacher="CLIP's ViT-B/16 (ViT-B-16.pt)"
    ),
    "localmim_vitt": Recipe("localmim/vits_hog_1600e.py", _vit("deit-tiny")),
    "localmim_vits": Recipe("localmim/vits_hog_1600e.py"),
    "localmim_vitb": Recipe("localmim/vitb_hog_1600e.py"),
    "localmim_vitl": Recipe("localmim/vitl_hog_800e.py"),
    "localmim_swinb": Recipe("localmim/swinb_hog_400e.py"),
    "localmim_swinl": Recipe("localmim/swinl_hog_800e.py"),
    "mirl_vitt": Recipe("mirl/vitb_300e.py", _vit(_TINY, **_MIRL_TINY)),
    "mirl_vits": Recipe(
        "mirl/vitb_300e.py",
        _vit(
            dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
            **_MIRL_SMALL,
        ),
    ),
    "mirl_vitb": Recipe("mirl/vitb_300e.py"),
    "mirl_vitl": Recipe("mirl/vitb24_300e.py", _vit(_LARGE)),
    "mirl_vits54": Recipe("mirl/vits54_300e.py"),
    "mirl_vitb24": Recipe("mirl/vitb24_300e.py"),
    "mirl_vitb48": Recipe("mirl/vitb48_300e.py"),
    "simmim_swint": Recipe("distilled/simmim_swint_400e.py"),
    "mae-lite_vitt": Recipe("distilled/mae-lite_vitt_400e.py", teacher=_MAE),
    "mae-lite_vits": Recipe("distilled/mae-lite_vits_400e.py", teacher=_MAE),
    "d2-mae_vitt": Recipe("distilled/d2-mae_vitt_400e.py", teacher=_MAE),
    "d2-mae_vits": Recipe("distilled/d2-mae_vits_400e.py", teacher=_MAE),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a model.

    Args:
        name: A method and an encoder, such as ``deepmim_vits``.

    Raises:
        ValueError: With similar names, if there is none of this name.
    """
    key = name.strip().lower()
    if key in RECIPES:
        return RECIPES[key]
    close = difflib.get_close_matches(key.replace("-", "_"), RECIPES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
        f"there is no model {name!r}: {hint}Known are {', '.join(sorted(RECIPES))}"
    )


def config_path(name: str) -> Path:
    """Path of a config file of the package.

    Args:
        name: Path below ``configs/``.

    Raises:
        FileNotFoundError: If the installation has no configs.
    """
    index = find_index()
    if index is None:
        raise FileNotFoundError(
            "this installation has no configs: install the package from a wheel, or "
            "with pip install -e from a checkout"
        )
    return (index.parent / "configs" / name).resolve()
