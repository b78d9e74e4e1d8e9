"""One optimiser constructor for pre-training, fine-tuning and transfer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mim_plugins.compat import supports_fused_optimizer

PARAMWISE_KEYS = (
    "layer_decay_rate",
    "top_lr_mult",
    "flat_decay_mult",
    "bias_decay_mult",
    "custom_keys",
)
FUSED_OPTIMIZERS = ("Adam", "AdamW", "SGD")

# Wrappers of sharding, activation checkpointing and compilation in names.
_WRAPPERS = re.compile(
    r"(?<![^.])(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\."
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning rates and weight-decay rules, in as few groups as possible.

    It asks the encoder for each parameter's depth (``get_layer_depth``), whether the
    encoder is in a pre-training algorithm, a classifier, a detector or a
    segmentor. Parameters with equal settings share a group, since one group per
    parameter costs a launch and Python time each. The optimiser runs fused where
    torch supports it, unless its config says otherwise.

    ``paramwise_cfg`` may hold:

    - ``layer_decay_rate``: lr of a parameter at depth i of n is scaled by
      ``rate ** (n - 1 - i)``; everything outside the encoder keeps the full lr
      (BEiT, https://arxiv.org/abs/2106.08254; DeepMIM's fine-tuning). Default 1.
    - ``top_lr_mult``: factor on the lr of what comes after the encoder's blocks: its
      final norm, heads, decoders; needs a layer decay. MAE-Lite's released fine-tuning
      of Swin has the square of its layer decay here. Default 1.
    - ``flat_decay_mult``: factor on the weight decay of one-dimensional parameters
      (norms, biases, scales). Default 1.
    - ``bias_decay_mult``: factor on the weight decay of parameters named ``bias``,
      of any shape. Default 1.
    - ``custom_keys``: ``{substring of the name: dict(lr_mult=..., decay_mult=...)}``;
      the longest matching substring wins over the two factors above and multiplies
      with the layer decay.

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, the weight decay is missing,
            or a layer decay is asked of an encoder without ``get_layer_depth``.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - set(PARAMWISE_KEYS))
        if unknown:
            raise ValueError(
                f"paramwise_cfg has unknown keys {unknown}; "
                f"{type(self).__name__} knows {list(PARAMWISE_KEYS)}"
            )
        if self.paramwise_cfg and self.base_wd is None:
            raise ValueError(
                "set weight_decay in the optimizer, 0 for none: paramwise_cfg scales it"
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Builds the optimiser over a model, wrapped or not."""
        device_type = next(model.parameters()).device.type
        cfg = dict(self.optimizer_cfg)  # type: ignore[has-type]
        choosable = not {"fused", "foreach"} & set(cfg)
        if (
            choosable
            and cfg["type"] in FUSED_OPTIMIZERS
            and supports_fused_optimizer(device_type)
        ):
            self.optimizer_cfg = dict(cfg, fused=True)
        self._dims = dims_before_sharding(model)
        return super().__call__(model)

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = "", **_: object
    ) -> None:
        """Adds the trainable parameters of a model, merged into groups.

        Args:
            params: The list of groups to fill.
            module: The model.
            prefix: Unused; mmengine's constructor recurses, this one does not.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        lr_scale = self._lr_scale_of(module)
        for wrapped_name, param in module.named_parameters():
            if param.requires_grad:
                name = _WRAPPERS.sub("", wrapped_name)
                lr_mult, decay_mult = self._multipliers(name, param)
                groups[lr_scale(name) * lr_mult, decay_mult].append(param)
        for (lr_mult, decay_mult), members in groups.items():
            params.append(
                {
                    "params": members,
                    "lr": self.base_lr * lr_mult,
                    "weight_decay": self.base_wd * decay_mult,
                }
            )
        print_log(
            f"optimiser: {len(groups)} parameter groups, (lr, weight decay, tensors): "
            + ", ".join(
                f"({g['lr']:.3g}, {g['weight_decay']:.3g}, {len(g['params'])})"
                for g in params
            ),
            logger="current",
        )

    def _multipliers(self, name: str, param: nn.Parameter) -> tuple[float, float]:
        """Factors on lr and weight decay from the name and shape of a parameter."""
        custom_keys = self.paramwise_cfg.get("custom_keys", {})
        matches = [key for key in custom_keys if key in name]
        if matches:
            rule = custom_keys[max(matches, key=len)]
            return rule.get("lr_mult", 1.0), rule.get("decay_mult", 1.0)
        if self._dims.get(name, param.ndim) == 1:
            return 1.0, self.paramwise_cfg.get("flat_decay_mult", 1.0)
        if name.endswith(".bias"):
            return 1.0, self.paramwise_cfg.get("bias_decay_mult", 1.0)
        return 1.0, 1.0

    def _lr_scale_of(self, model: nn.Module) -> Callable[[str], float]:
        """A function from a parameter's name to its layer-wise factor on the lr."""
        rate = self.paramwise_cfg.get("layer_decay_rate", 1.0)
        top = self.paramwise_cfg.get("top_lr_mult", 1.0)
        backbone = getattr(model, "backbone", None)
        if rate == 1.0:
            if top != 1.0:
                raise ValueError(
                    f"top_lr_mult={top} goes with a layer decay, which is off: set "
                    "layer_decay_rate, or use custom_keys"
                )
            return lambda name: 1.0
        if backbone is None or not hasattr(backbone, "get_layer_depth"):
            raise ValueError(
                f"layer_decay_rate={rate} needs an encoder that knows its depth "
                f"(get_layer_depth); {type(model).__name__}.backbone is "
                f"{type(backbone).__name__}: set layer_decay_rate=1"
            )

        def scale(name: str) -> float:
            depth, num_depths = backbone.get_layer_depth(name, "backbone.")
            return top if depth == num_depths - 1 else rate ** (num_depths - 1 - depth)

        return scale


def dims_before_sharding(model: nn.Module) -> dict[str, int]:
    """Numbers of dimensions by name of the parameters that are sharded, if any.

    A shard is a slice of many flattened parameters: all of them look like vectors.

    Args:
        model: The model, wrapped for fully sharded data parallel or not.

    Raises:
        ValueError: If the shards replace the parameters.
    """
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, FullyShardedDataParallel):
            continue
        flat = getattr(module._handle, "flat_param", None)
        if flat is None:
            continue  # all its parameters are those of the units inside it
        if not module._use_orig_params:
            raise ValueError(
                "settings by parameter need the parameters, which this sharding "
                "replaces: set strategy.model_wrapper.use_orig_params=True"
            )
        for own, shape in zip(flat._fqns, flat._shapes, strict=True):
            key = f"{name}.{own}" if name else own
            found[_WRAPPERS.sub("", f"{key}.").rstrip(".")] = len(shape)
    return found
