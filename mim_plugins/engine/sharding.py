"""Which modules are FSDP units of their own, and going on with their optimiser."""

from __future__ import annotations

from typing import Any

from mmengine._strategy import FSDPStrategy
from mmengine.registry import FUNCTIONS, STRATEGIES
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel


@FUNCTIONS.register_module()
def shard_transformer_blocks(
    module: nn.Module, recurse: bool, nonwrapped_numel: int
) -> bool:
    """Whether a module is an FSDP unit of its own, as ``auto_wrap_policy``.

    Blocks of Vision Transformers are: they run through ``forward``, in which shards are
    gathered. Heads of detectors and segmentors do not, so that a rule by size alone
    would break them.

    Args:
        module: A part of a model.
        recurse: Whether it is asked if parts of it may be sharded: they may.
        nonwrapped_numel: Not used; numbers in the module outside such parts.
    """
    return recurse or isinstance(module, TransformerEncoderLayer)


@STRATEGIES.register_module()
class ResumableFSDPStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, which also goes on with an optimiser's state.

    mmengine 0.10 gives the arguments of ``FSDP.optim_state_dict_to_load`` in the order
    of torch 2.0. With ``state_dict_cfg="full"``, a run goes on with any number of
    shards. Arguments as mmengine's.
    """

    def load_checkpoint(self, filename: str, **kwargs: Any) -> dict:
        """Load weights, after FSDP has learnt which module is the outermost.

        Hooks look at parts of the model, which would be taken for it.

        Args:
            filename: As mmengine's.
            **kwargs: As mmengine's.
        """
        self.model.check_is_root()
        return super().load_checkpoint(filename, **kwargs)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the state of the optimiser, in shards.

        Args:
            state_dict: As :meth:`optim_state_dict` returns it.
        """
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model,
            optim=self.optim_wrapper.optimizer,
            optim_state_dict=state_dict,
        )
        self.optim_wrapper.load_state_dict(sharded)
