"""``init_cfg=dict(type='Pretrained')`` for checkpoints in any layout."""

from __future__ import annotations

import os

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from ..files import read
from .adapt import state_for
from .target import Target


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
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        prefix: str | None = None,
        map_location: str = "cpu",
        merge_order: str = "trained",
        antialias: bool = False,
    ) -> None:
        super().__init__(checkpoint, prefix, map_location)
        self.merge_order = merge_order
        self.antialias = antialias

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
            read(self.checkpoint, self.map_location),
            merge_order=self.merge_order,
            antialias=self.antialias,
            prefix=self.prefix,
        )
        load_state_dict(module, state, strict=False, logger="current")
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())
