"""Converts what a run loads, and what our own models are given."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from ..files import Checkpoint, read, read_content
from ..layouts import native
from .adapt import state_for
from .loaded_keys import check_decoders
from .target import PREFIX, Target

# An address with it is read by `read_content`: without running code, in any format.
SCHEME = "mim_plugins://"

# Encoders that load files without mmengine's function for state dicts.
_OTHER_READERS = ("mmdet.models.backbones.", "mmseg.models.backbones.")


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_mim_plugins(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Reads a checkpoint for mmengine, under an address that asks for it.

    Args:
        filename: :data:`SCHEME`, and a path or another address behind it.
        map_location: As ``torch.load``'s.

    Raises:
        ValueError: As :func:`.read_content`.
    """
    return read_content(filename.removeprefix(SCHEME), map_location)


@HOOKS.register_module()
class ConvertCheckpointHook(Hook):
    """Converts the checkpoint of ``load_from`` for models with our keys.

    ``load_from`` takes files of torch as mmengine reads them; tools/train.py and
    tools/test.py have them read without running code, in any format.
    """

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Warns of encoders that read official files by themselves.

        Those of mmdet and mmseg pass over what they do not know, most of them without
        a word.
        """
        for encoder, path in _other_readers(runner.model):
            found = read(path).candidates
            if not found or found[0] is native():
                continue
            if found[0].name == "timm" and getattr(encoder, "convert_weights", False):
                continue  # of Swin, which mmdet's converts
            kind = f"{type(encoder).__module__.split('.')[0]}.{type(encoder).__name__}"
            print_log(
                f"{path} is in {found[0].title}, which {kind} does not convert and may "
                "load nothing of: take a backbone of mmpretrain or of mim_plugins, "
                "such as type='mmpretrain.VisionTransformer' or "
                "'mmpretrain.SwinTransformer'",
                logger="current",
                level=logging.WARNING,
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Converts the checkpoint, or refuses it.

        Args:
            runner: The runner of the training or test process.
            checkpoint: What was read; its ``state_dict`` is replaced.

        Raises:
            ValueError: If it does not fit the model, or lacks the decoders that a
                pre-training trains.
        """
        target = Target.of(runner.model)
        if target.has_native_keys:
            source = str(runner.cfg.get("load_from") or "the checkpoint")
            found = Checkpoint.of(checkpoint, source.removeprefix(SCHEME))
            state = state_for(target, found)
            check_decoders(target, state, found.path, in_run=True)
            checkpoint["state_dict"] = state


def convert_when_loaded(model: nn.Module) -> None:
    """Has a model of ours convert any state dict that it is given.

    ``get_model(..., pretrained=FILE)``, ``load_checkpoint`` and ``load_state_dict``
    hand what they read to the model.

    Args:
        model: The model; keys with ``backbone.`` it takes as they are, once checked.
    """
    model._register_load_state_dict_pre_hook(_convert_loaded, with_module=True)


def _convert_loaded(
    model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    if prefix or not state_dict:
        return
    target, given = Target.of(model), Checkpoint.of(state_dict, "the checkpoint")
    if any(key.startswith(PREFIX) for key in state_dict):
        target.check_heads(given.num_heads(), given.path)
    else:
        state = state_for(target, given)
        state_dict.clear()
        state_dict.update(state)
    check_decoders(target, state_dict, given.path)


def _other_readers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Encoders of mmdet and mmseg that load for themselves, and what they load."""
    model = model.module if is_model_wrapper(model) else model  # type: ignore
    for module in model.modules():
        if type(module).__module__.startswith(_OTHER_READERS):
            cfg = module.init_cfg or {}
            if isinstance(cfg, dict) and cfg.get("type") == "Pretrained":
                yield module, cfg["checkpoint"]
