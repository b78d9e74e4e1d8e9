"""The model that a checkpoint is loaded into."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Size, Tensor, nn

from ..layouts.native import LAYOUT as NATIVE

PREFIX = "backbone."


@dataclass(frozen=True)
class Target:
    """A model, or an encoder alone, that loads a checkpoint.

    Args:
        module: It, without what wraps it for parallel training.
        encoder: Its encoder.
        prefix: What comes before the encoder's keys, ``'backbone.'`` or nothing.
        shapes: Shapes of all its tensors by key.
        encoder_shapes: Shapes of the encoder's tensors, by key without prefix.
        has_native_keys: Whether its keys are those of mmpretrain's transformers.
        grid: Rows and columns of its patches; None if it has no plain grid.
        num_extra_tokens: Leading rows of its position embedding that are of no patch.
        converts_biases: Whether it turns one form of attention biases into another.
    """

    module: nn.Module
    encoder: Any
    prefix: str
    shapes: dict[str, Size]
    encoder_shapes: dict[str, Size]
    has_native_keys: bool
    grid: tuple[int, int] | None
    num_extra_tokens: int
    converts_biases: bool

    @classmethod
    def of(cls, module: nn.Module) -> Target:
        """Looks at a model, wrapped for parallel training or not."""
        if is_model_wrapper(module):
            module = module.module  # type: ignore[assignment]
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        children = dict(module.named_children())
        encoder: Any = children.get("backbone", module)
        prefix = PREFIX if "backbone" in children else ""
        own = below(prefix, shapes)
        return cls(
            module,
            encoder,
            prefix,
            shapes,
            encoder_shapes=own,
            has_native_keys=NATIVE.detects(own),
            grid=getattr(encoder, "patch_resolution", None),
            num_extra_tokens=int(getattr(encoder, "num_extra_tokens", 1)),
            converts_biases=getattr(encoder, "converts_biases", False),
        )

    @property
    def name(self) -> str:
        """Name of the encoder's class."""
        return type(self.encoder).__name__

    def is_other_grid(self, table: Tensor) -> bool:
        """Whether positions of a square grid are as many as an oblong encoder has.

        Official files are of square images; the table is (1, extra + positions, C).
        """
        rows, cols = self.grid or (0, 0)
        positions = table.shape[1] - self.num_extra_tokens
        square = math.isqrt(max(positions, 0)) ** 2 == positions
        return rows != cols and positions == rows * cols and square

    def check_heads(self, heads: int | None, source: str) -> None:
        """Refuses weights that were trained with another number of attention heads.

        Raises:
            ValueError: If they were.
        """
        layers = dict(self.encoder.named_children()).get("layers")
        if heads is None or not layers:
            return
        attention = dict(layers[0].named_children()).get("attn")
        own = getattr(attention, "num_heads", None)
        if own is not None and own != heads:
            raise ValueError(
                f"{source} was trained with {heads} attention heads, the model has "
                f"{own}: every tensor would fit and every output be wrong. Give the "
                f"backbone an arch with num_heads={heads} (MAE-Lite's ViT-Tiny and "
                "ViT-Small have 12; mmpretrain's 'deit-tiny' has 3, 'deit-small' 6; "
                "of Hiera it is the first stage's number)"
            )


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """What is below a prefix, without it."""
    return {k[len(prefix) :]: x for k, x in state.items() if k.startswith(prefix)}
