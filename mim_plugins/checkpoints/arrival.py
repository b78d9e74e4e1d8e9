"""Refuses checkpoints of which nothing would arrive, or not what a run needs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from .fit import Target
from .loading import tensors_of
from .report import listed

# Whether what is loaded is what a run starts or goes on from.
_IN_A_RUN: ContextVar[bool] = ContextVar("in_a_run", default=False)


def watch_runs() -> None:
    """Wraps the way in which a run loads its checkpoint, if it is not yet."""
    original = Runner.load_checkpoint
    if getattr(original, "is_watched", False):
        return

    @functools.wraps(original)
    def load_checkpoint(self: Runner, *args: Any, **kwargs: Any) -> Any:
        token = _IN_A_RUN.set(True)
        try:
            return original(self, *args, **kwargs)
        finally:
            _IN_A_RUN.reset(token)

    load_checkpoint.is_watched = True  # type: ignore[attr-defined]
    Runner.load_checkpoint = load_checkpoint


def check_arrival(module: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Makes sure that a model gets something of a checkpoint, and a run all it needs.

    torch passes over what does not fit; mmengine says so in warnings.

    Args:
        module: The model that is to load it. One with other keys than our encoders'
            is left to mmengine.
        state: What is handed to torch.
        source: Where it is from, for messages.

    Raises:
        ValueError: If the encoder would get nothing, or the decoders of a pre-training
            that a run is to train, validate or test.
    """
    everything, target = tensors_of(state, source), Target.of(module)
    if not everything or not target.has_our_keys:
        return
    names = [key for key, value in state.items() if isinstance(value, Tensor)]
    fitting = [key for key in names if key in target.shapes]
    of_encoder = [key for key in fitting if key.startswith(target.prefix)]
    # A part without encoder, such as a head, may be meant.
    meant = any(key.startswith(target.prefix) for key in names)
    if not of_encoder and (meant or not fitting):
        raise ValueError(
            f"{source} has nothing for the {type(target.encoder).__name__} that is to "
            f"load it: no key of the model is in it, which has {listed(everything, 4)}."
            " Give a checkpoint of this architecture; Hugging Face's layout, and that "
            "of other networks, does not come in"
        )
    if of_encoder:
        _check_decoders(module, target, fitting, source)


def _check_decoders(
    module: nn.Module, target: Target, fitting: list[str], source: str
) -> None:
    """Refuses, in a run, a pre-trained encoder without its decoders; else warns.

    Raises:
        ValueError: If a run would go on with fresh decoders.
    """
    from mim_plugins.models.selfsup.base import MaskedImageModel

    model = module.module if is_model_wrapper(module) else module
    decoders = [key for key in target.shapes if key.startswith("neck.")]
    arrive = any(key.startswith("neck.") for key in fitting)
    if not isinstance(model, MaskedImageModel) or not decoders or arrive:
        return
    if _IN_A_RUN.get():
        raise ValueError(
            f"{source} holds an encoder without the decoders of the "
            f"{type(model).__name__} that is to load it ({listed(decoders, 2)}): they "
            "would start from chance. To pre-train anew from this encoder, give it in "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE) rather "
            "than in load_from; else give the checkpoint of the pre-training"
        )
    print_log(
        f"{source} holds an encoder without decoders: features are as they should be, "
        "reconstructions and losses are not",
        logger="current",
        level=logging.WARNING,
    )
