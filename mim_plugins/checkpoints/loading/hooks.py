"""Where mmengine and torch load: the initialiser, a run's hook, and our own models'."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import HOOKS, WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from ..files import Checkpoint, read, read_content
from ..layouts.key_rules import listed
from ..layouts.native import LAYOUT as NATIVE
from .adapt import state_for
from .target import PREFIX, Target

# An address with it is read by `read_content`: without running code, in any format.
SCHEME = "mim_plugins://"

# Encoders that load files without mmengine's function for state dicts.
_OTHER_READERS = ("mmdet.models.backbones.", "mmseg.models.backbones.")


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def _read_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    return read_content(filename.removeprefix(SCHEME), map_location)


@WEIGHT_INITIALIZERS.register_module(name="Pretrained", force=True)
class ConvertingPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, which converts official checkpoints for our keys.

    A model without mmpretrain's transformer keys is left to mmengine.

    Args:
        checkpoint: The file, ours or an official one, or its address.
        prefix: Of the part to be loaded, in our layout: ``'backbone.'`` for an encoder,
            whether or not the file has it before its keys.
        map_location: Where tensors go.
        merge_order: Of pre-trained LocalMIM Swin Transformers: ``'trained'`` keeps what
            patch merging was trained to do, ``'official_transfer'`` is what the
            official fine-tuning makes of it.
        antialias: Whether position embeddings that become smaller are averaged.
        pretrain_img_size: Side, or height and width, in pixels of the images that the
            position embedding is of, where the file does not record its grid; by
            default they are taken to be square.
        partial: Whether less than 95 % of an encoder's elements may be loaded.
        key: Of several networks in a file the one to take, such as ``'student'``.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        prefix: str | None = None,
        map_location: str = "cpu",
        merge_order: str = "trained",
        antialias: bool = False,
        pretrain_img_size: int | Sequence[int] | None = None,
        partial: bool = False,
        key: str | None = None,
    ) -> None:
        super().__init__(checkpoint, prefix, map_location)
        self.merge_order = merge_order
        self.antialias = antialias
        self.pretrain_img_size = pretrain_img_size
        self.partial = partial
        self.key = key

    def __call__(self, module: nn.Module) -> None:
        """Loads the checkpoint, converted if need be, into a module.

        Raises:
            ValueError: If there is no checkpoint, nothing below the prefix, or the
                checkpoint does not fit the module.
        """
        if not self.checkpoint:
            raise ValueError(
                "init_cfg of type Pretrained has no checkpoint; init_cfg=None starts "
                "from random numbers."
            )
        target = Target.of(module)
        if not target.has_native_keys:
            super().__call__(module)
            return
        print_log(
            f"load {self.prefix or 'model'} from: {self.checkpoint}", logger="current"
        )
        state = state_for(
            target,
            read(self.checkpoint, self.map_location, key=self.key),
            merge_order=self.merge_order,
            antialias=self.antialias,
            prefix=self.prefix,
            pretrain_img_size=self.pretrain_img_size,
            partial=self.partial,
        )
        load_state_dict(module, state, strict=False, logger="current")
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())


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
            if not found or found[0] is NATIVE:
                continue
            if found[0].name == "timm" and getattr(encoder, "convert_weights", False):
                continue  # of Swin, which mmdet's converts
            kind = f"{type(encoder).__module__.split('.')[0]}.{type(encoder).__name__}"
            _warn(
                f"{path} is in {found[0].title}, which {kind} does not convert and may "
                "load nothing of: take a backbone of mmpretrain or of mim_plugins, "
                "such as type='mmpretrain.VisionTransformer' or "
                "'mmpretrain.SwinTransformer'"
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replaces the checkpoint's ``state_dict`` by the model's, or refuses it.

        Raises:
            ValueError: If it does not fit the model, or lacks the decoders that a
                pre-training trains.
        """
        target = Target.of(runner.model)
        if target.has_native_keys:
            source = str(runner.cfg.get("load_from") or "the checkpoint")
            found = Checkpoint.of(checkpoint, source.removeprefix(SCHEME))
            state = state_for(target, found)
            _check_decoders(target, state, found.path, in_run=True)
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
    sizes = {key: x.shape for key, x in given.tensors.items()}
    made = any(f"{target.prefix}{x}" not in sizes for x in target.position_tables)
    is_native = given.candidates in ([], [NATIVE]) and not made
    if (
        is_native
        and any(key.startswith(PREFIX) for key in state_dict)
        and (
            all(target.shapes.get(key, shape) == shape for key, shape in sizes.items())
        )
    ):
        target.check_heads(given.num_heads(), given.path)
    else:
        state = state_for(target, given)
        state_dict.clear()
        state_dict.update(state)
    _check_decoders(target, state_dict, given.path)


def _check_decoders(
    target: Target, keys: Iterable[str], source: str, in_run: bool = False
) -> None:
    """Refuses, in a run, a pre-trained encoder without its decoders; else warns."""
    parts = {key.partition(".")[0] for key in keys if key in target.shapes}
    decoders = [key for key in target.shapes if key.startswith("neck.")]
    if not decoders or "target_generator" not in dict(target.module.named_children()):
        return  # no pre-training
    if "neck" in parts or "backbone" not in parts:
        return
    if in_run:
        raise ValueError(
            f"{source} holds an encoder without the decoders of the "
            f"{type(target.module).__name__} that is to load it "
            f"({listed(decoders, 2)}): they would be randomly initialised. To "
            "pre-train anew from this encoder, give it in "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE) rather "
            "than in load_from; else give the checkpoint of the pre-training"
        )
    _warn(
        f"{source} holds an encoder without decoders: features are as they should be, "
        "reconstructions and losses are not"
    )


def _other_readers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Encoders of mmdet and mmseg that load for themselves, and what they load."""
    model = model.module if is_model_wrapper(model) else model  # type: ignore
    for module in model.modules():
        if type(module).__module__.startswith(_OTHER_READERS):
            cfg: Any = module.init_cfg or {}
            if isinstance(cfg, dict) and cfg.get("type") == "Pretrained":
                yield module, cfg["checkpoint"]


def _warn(message: str) -> None:
    print_log(message, logger="current", level=logging.WARNING)
