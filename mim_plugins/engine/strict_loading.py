"""Strict loading for tests: a checkpoint has the complete model, in finite numbers."""

from __future__ import annotations

import re
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from ..checkpoints.files.state_dicts import refuse_non_finite
from ..checkpoints.layouts.key_rules import listed

# Counters and computed buffers, which are not weights.
_COMPUTED = re.compile(r".*(num_batches_tracked|_index|attn_mask|_step|steps)$")


def require_strict_loading(model: nn.Module, checkpoint: str) -> None:
    """Makes loading raise if tensors are missing, of other sizes or not finite.

    mmengine only warns, and would then evaluate a model that is partly randomly
    initialised, such as a head on a pre-trained encoder.

    Args:
        model: The model, with or without distributed wrapper; hooks are added to it,
            which raise a ``ValueError``.
        checkpoint: Path of the checkpoint, for the message.
    """
    if is_model_wrapper(model):
        model = model.module  # type: ignore[assignment]
    problems: list[str] = []

    def before(*arguments: Any) -> None:
        nonlocal problems
        refuse_non_finite(arguments[0], checkpoint)
        problems = arguments[-1]  # modules append their size mismatches to it

    def after(module: nn.Module, keys: Any) -> None:
        missing = [key for key in keys.missing_keys if not _COMPUTED.match(key)]
        sizes = re.findall(r"size mismatch for (\S+):", "\n".join(problems))
        if missing or sizes:
            what = (
                f"{len(missing)} tensors are missing, {listed(missing, 4)}"
                if missing
                else f"{len(sizes)} tensors have other sizes, {listed(sizes, 4)}"
            )
            raise ValueError(
                f"{checkpoint} lacks part of the {type(module).__name__} that is to be "
                f"tested: {what}. They would be randomly initialised, and the score "
                "meaningless. Use a checkpoint of a run of this config"
            )

    model._register_load_state_dict_pre_hook(before)
    model.register_load_state_dict_post_hook(after)
