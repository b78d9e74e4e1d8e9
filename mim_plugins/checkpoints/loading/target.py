"""The model that a checkpoint is loaded into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        grid: Rows and columns that its position embedding is of; None if it has no
            plain grid.
        num_extra_tokens: Leading rows of its position embedding that are of no patch.
        converts_biases: Whether it turns one form of attention biases into another.
        position_tables: Further position embeddings without rows of extra tokens, which
            are made from that of a checkpoint without them: their grids.
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
    position_tables: Mapping[str, tuple[int, int]]

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
            grid=getattr(encoder, "position_grid", None)
            or getattr(encoder, "patch_resolution", None),
            num_extra_tokens=int(getattr(encoder, "num_extra_tokens", 1)),
            converts_biases=getattr(encoder, "converts_biases", False),
            position_tables=getattr(encoder, "position_tables", {}),
        )

    def grid_of_size(self, size: int | Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the encoder's patches in images of another size.

        Args:
            size: Side, or height and width, in pixels.

        Raises:
            ValueError: If they do not divide into patches.
        """
        height, width = (size, size) if isinstance(size, int) else size
        rows, cols = self.encoder.patch_embed.projection.stride
        if height % rows or width % cols:
            raise ValueError(
                f"pretrain_img_size: images of {height}x{width} pixels do not divide "
                f"into patches of {rows}x{cols}"
            )
        return height // rows, width // cols

    @property
    def name(self) -> str:
        """Name of the encoder's class."""
        return type(self.encoder).__name__

    def grid_of(
        self,
        table: Tensor,
        recorded: tuple[int, int] | None,
        is_official: bool,
        source: str,
    ) -> tuple[tuple[int, int] | None, str]:
        """The grid that a checkpoint's position embedding is of.

        Args:
            table: Position embedding, (1, extra + positions, C).
            recorded: Rows and columns, if the file or the config gives them.
            is_official: Whether it is an official file's, which are of square images.
            source: Where it is from, for messages.

        Returns:
            Rows and columns, None to infer them from the model's proportions; and a
            note for the user if they were assumed.

        Raises:
            ValueError: If the recorded grid has another number of positions.
        """
        positions = table.shape[1] - self.num_extra_tokens
        if recorded is not None:
            if math.prod(recorded) != positions:
                raise ValueError(
                    f"{source}: its position embedding has {positions} positions, not "
                    "those of the {}x{} patches it is said to be of".format(*recorded)
                )
            return recorded, ""
        rows, cols = self.grid or (0, 0)
        side = math.isqrt(max(positions, 0))
        is_square = side**2 == positions
        how = (
            "if not, give the image size of pre-training as pretrain_img_size=(HEIGHT, "
            "WIDTH) in init_cfg"
        )
        if positions == rows * cols and not (is_official and is_square):
            note = f"the positions are taken to be of {rows}x{cols} patches, as the "
            return (rows, cols), f"{note}model's; {how}" if rows != cols else ""
        if not is_square:
            return None, ""
        note = f"the positions are taken to be of a square image's {side}x{side} "
        return (side, side), f"{note}patches; {how}" if not is_official else ""

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
