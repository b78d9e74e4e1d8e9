"""Refuses to judge a model of which a checkpoint holds only some."""

from __future__ import annotations

import re
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from ..checkpoints.layouts.key_rules import listed

# What is counted or computed, and no weight.
_COMPUTED = re.compile(r".*(num_batches_tracked|_index|attn_mask|_step|steps)$")


def require_all(model: nn.Module, checkpoint: str) -> None:
    """Has a model raise when a checkpoint is loaded that lacks some of it.

    mmengine only warns, and what is scored then has weights from chance, such as a head
    on an encoder that was pre-trained alone.

    Args:
        model: The model, wrapped for parallel computation or not; it is changed in
            place. Loading raises a ``ValueError``.
        checkpoint: Where it is from, for the message.
    """
    if is_model_wrapper(model):
        model = model.module  # type: ignore[assignment]
    problems: list[str] = []

    def before(*arguments: Any) -> None:
        nonlocal problems
        problems = arguments[-1]  # to which modules add what has another size

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
                f"{checkpoint} does not hold the whole {type(module).__name__} that "
                f"is to be tested: {what}. They would be random, and the score with "
                "them. Give the checkpoint of a run of this config"
            )

    model._register_load_state_dict_pre_hook(before)
    model.register_load_state_dict_post_hook(after)
