"""Converts official checkpoints while mmengine loads them.

``init_cfg=dict(type='Pretrained', checkpoint=FILE)``, ``load_from``, ``get_model``,
``init_detector`` and the like end in one function of mmengine, which is handed the
model and the tensors. It is wrapped here, once, when the package is imported: there
alone is it known what the model's keys are, so that a model that wants official keys
still gets them. A prefix is taken off before that, which is why ``Pretrained`` is
extended, too. What is in our layout passes through untouched, and so does every
checkpoint that is resumed, which is always ours.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn

from .arrival import check_arrival, watch_runs
from .detect import OURS, detect, norm_follows_pooling_or_not, strip_wrappers
from .fit import Target, check_heads, convert_for
from .loading import tensors_of
from .local_files import source_of
from .noted_heads import noted_heads
from .own_layout import account_of


def install() -> None:
    """Wraps the function that every way of loading ends in, if it is not yet."""
    original = mmengine_checkpoint.load_state_dict
    if getattr(original, "converts_official", False):
        return

    @functools.wraps(original)
    def load_state_dict(
        module: nn.Module, state_dict: Any, *args: Any, **kwargs: Any
    ) -> Any:
        source = source_of(state_dict)
        fitted = converted_for(module, state_dict, source)
        if fitted is None:
            report = account_of(module, state_dict, source)
            if report is not None:
                print_log(f"loaded\n{report}", logger="current")
        state = state_dict if fitted is None else fitted
        check_arrival(module, state, source)
        return original(module, state, *args, **kwargs)

    load_state_dict.converts_official = True  # type: ignore[attr-defined]
    mmengine_checkpoint.load_state_dict = load_state_dict
    watch_runs()


def converted_for(
    module: nn.Module,
    content: Mapping[str, Any],
    source: str = "checkpoint",
    merge_order: str = "trained",
    antialias: bool = False,
    exact: bool = False,
    prefix: str | None = None,
) -> OrderedDict[str, Tensor] | None:
    """What a model is to load of an official checkpoint, under the model's keys.

    Args:
        module: The model, or an encoder alone.
        content: What the file holds, with its wrappers or without.
        source: Where it is from, for messages.
        merge_order: As of :func:`.convert.convert`.
        antialias: As of :func:`.resize.resize_position_embedding`.
        exact: As of :func:`.fit.convert_for`.
        prefix: Of the part that is to be loaded of a file in our layout, if not all.

    Returns:
        The state dict, or None if the checkpoint is none of the known official ones, or
        the model has official keys itself. An encoder alone in our layout, for a model
        that has one, gets the prefix it has there.

    Raises:
        ValueError: If the checkpoint is an official one that does not fit the model.
    """
    tensors = strip_wrappers(tensors_of(content, source))
    layout = detect(tensors)
    target = Target.of(module)
    if layout is None or layout == OURS:
        metadata = getattr(content.get("state_dict", content), "_metadata", {})
        check_heads(target, noted_heads(content, prefix), source)
        alone = layout == OURS and not any(k.startswith("backbone.") for k in tensors)
        return _of_encoder(tensors, metadata) if alone and target.prefix else None
    shared = sum(key in target.shapes for key in tensors)
    if not target.has_our_keys or 2 * shared > len(tensors):
        return None
    if layout == "timm" and norm_follows_pooling_or_not(tensors):
        # The model decides what no tensor tells.
        layout = "localmim" if "neck.norm.weight" in target.shapes else "timm"
    state, report = convert_for(
        target,
        tensors,
        layout,
        source,
        merge_order=merge_order,
        antialias=antialias,
        exact=exact,
    )
    print_log(f"converted on load\n{report}", logger="current")
    return state


def _of_encoder(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> OrderedDict[str, Tensor]:
    """An encoder's tensors under the keys they have in a model."""
    state = OrderedDict((f"backbone.{key}", x) for key, x in tensors.items())
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (f"backbone.{name}".rstrip("."), entry) for name, entry in metadata.items()
    )
    return state


@WEIGHT_INITIALIZERS.register_module(name="Pretrained", force=True)
class ConvertingPretrainedInit(PretrainedInit):
    """mmengine's ``Pretrained``, which knows official checkpoints.

    Args:
        checkpoint: The file, ours or an official one.
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
        checkpoint: str,
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
            ValueError: If there is no checkpoint, nothing below the prefix, or an
                official file does not fit the module.
        """
        if not self.checkpoint:
            raise ValueError(
                "init_cfg of type Pretrained has no checkpoint; init_cfg=None starts "
                "from random numbers."
            )
        print_log(
            f"load {self.prefix or 'model'} from: {self.checkpoint}", logger="current"
        )
        content = mmengine_checkpoint._load_checkpoint(
            self.checkpoint, map_location=self.map_location
        )
        state: Mapping[str, Any] | None = converted_for(
            module,
            content,
            self.checkpoint,
            self.merge_order,
            self.antialias,
            prefix=self.prefix,
        )
        if state is None:
            state = content.get("state_dict", content)
            if self.prefix is not None:
                state = _below(self.prefix, state, self.checkpoint)
        mmengine_checkpoint._load_checkpoint_to_model(
            module, {"state_dict": state}, logger="current"
        )
        if hasattr(module, "_params_init_info"):
            update_init_info(module, init_info=self._get_init_info())


def _below(
    prefix: str, state: Mapping[str, Any], checkpoint: str
) -> OrderedDict[str, Any]:
    """The tensors below a prefix, without it.

    Raises:
        ValueError: If there are none.
    """
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    found = OrderedDict(
        (k[len(prefix) :], x) for k, x in state.items() if k.startswith(prefix)
    )
    if not found:
        some = ", ".join(sorted(map(str, state))[:6])
        raise ValueError(
            f"init_cfg: no key of {checkpoint} starts with prefix={prefix!r}; it has "
            f"{some} ... If this is an encoder alone in our layout, leave prefix out"
        )
    metadata = getattr(state, "_metadata", {})
    found._metadata = OrderedDict(  # type: ignore[attr-defined]
        (key[len(prefix) :], entry)
        for key, entry in metadata.items()
        if f"{key}.".startswith(prefix)
    )
    return found
