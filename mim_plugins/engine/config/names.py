"""The top-level names of a config: what is read, and what may be misspelt."""

from __future__ import annotations

import difflib
import re
from typing import Any

from mmengine.config import Config

from .image_size import takes_image_size
from .overrides import READ, copies, top_name

# What tools read besides those of a runner: the toolboxes' tests with augmentation, and
# our configs' data for the k-NN accuracy, which an inheriting config gives to a hook.
_READ_BY_TOOLS = frozenset(
    {"tta_cfg", "tta_model", "tta_pipeline"}
    | {"knn_train_dataloader", "knn_val_dataloader"}
)

# Of pre-training and classification; elsewhere they may be variables of the file.
_SIZES = frozenset({"img_size", "patch_size", "arch"})

# Names of mmcv's runner of before 2022, which look right to whoever knew that one.
_OF_OLD = {
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper",
    "lr_config": "param_scheduler",
    "momentum_config": "param_scheduler",
    "data": "train_dataloader",
    "runner": "train_cfg",
    "total_epochs": "train_cfg.max_epochs",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger",
    "evaluation": "val_evaluator",
    "workflow": "train_cfg",
    "resume_from": "resume",
    "seed": "randomness.seed",
}

# mmengine's own hooks, which every run has.
_DEFAULT_HOOKS = (
    *("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler"),
    "checkpoint",
)


def check_names(cfg: Config) -> list[str]:
    """Refuse misspelt names, which would leave what they are to set at its default.

    Any name may be a variable of the config file. One that the file, or one that
    inherits from it, does not use is refused if it resembles a name that is read, and
    returned otherwise.

    Args:
        cfg: The config as it was read.

    Returns:
        The names that nothing uses and the file sets itself, in its order.

    Raises:
        ValueError: Naming the key and the one that may be meant.
    """
    own = _own_text(cfg)
    unused = []
    read = READ | _READ_BY_TOOLS | (_SIZES if takes_image_size(cfg) else set())
    for name in cfg:
        if name in read or _is_used(cfg, name):
            continue
        meant = _OF_OLD.get(name) or _resembled(name, READ)
        if meant:
            raise ValueError(
                f"nothing reads {name} of this config. Did you mean {meant!r}?"
            )
        if re.search(rf"^{name}\s*=", own, re.MULTILINE):
            unused.append(name)
    hooks = cfg.get("default_hooks")
    for name in hooks if isinstance(hooks, dict) else ():
        if name not in _DEFAULT_HOOKS and (meant := _resembled(name, _DEFAULT_HOOKS)):
            raise ValueError(
                f"default_hooks.{name} would be one more hook. Did you mean "
                f"default_hooks.{meant}?"
            )
    return unused


def _is_used(cfg: Config, name: str) -> bool:
    """Whether something else has the value of a name, or the text reads it."""
    if any(top_name(place) in READ for place in copies(cfg, name)):
        return True
    # Not its assignment, nor a keyword argument.
    read = rf"(?<![\w\"'])(_base_\.)?{re.escape(name)}\b(?!\s*=(?!=))(?![\"'])"
    return re.search(read, _code(cfg.text)) is not None


def _code(text: str) -> str:
    return re.sub(r"#.*", "", text)


def _own_text(cfg: Config) -> str:
    """The text of the file itself: mmengine puts those of its bases before it."""
    return cfg.text.rpartition(f"{cfg.filename}\n")[2]


def _resembled(name: str, known: Any) -> str | None:
    """The name that another one looks like a misspelling of."""
    # An addition is no slip: my_train_dataloader.
    if any(f"_{other}_" in f"_{name}_" for other in known):
        return None
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.8)
    return close[0] if close else None
