"""Reads single layers of an encoder while it encodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn

from .masking import PatchMask

# What an encoder has if it can be read: see MIMVisionTransformer, where they are short.
PROTOCOL = (
    "stream",
    "latents",
    "blocks",
    "norms",
    "attention_shape",
    "hidden_shape",
    "attention_logits",
    "attention_only_block",
)


class LayerReader:
    """Reads what distillation compares out of an encoder's residual stream.

    Nothing is hooked into the encoder, and nothing of it is changed: a quantity of a
    layer is a function of the tokens that enter it, so only the layers that are read
    compute it, and the others keep their fused attention.

    - ``"attention"`` of block i: the logits before the softmax, (N, heads, L, L).
    - ``"hidden"`` of block i: the normed tokens that enter it, (N, L, C); the index
      after the last block stands for the final norm of what leaves it.

    Args:
        encoder: An encoder of this package.
        extra_block: A block behind the last one, of which there is no more than
            attention logits; its index is the one after the last block's.
        name: What to call it in messages.

    Raises:
        ValueError: If the encoder cannot be read.
    """

    def __init__(
        self, encoder: Any, extra_block: nn.Module | None = None, name: str = "encoder"
    ) -> None:
        lacking = [part for part in PROTOCOL if not hasattr(encoder, part)]
        if lacking:
            raise ValueError(
                f"the {name}, a {type(encoder).__name__}, cannot be read block by "
                f"block (it has no {', '.join(lacking)}): take MIMVisionTransformer, "
                "or another encoder of this package with these"
            )
        self.encoder = encoder
        self.extra_block = extra_block
        self.name = name

    def read(
        self, stream: Iterable[Tensor], wanted: Mapping[str, Sequence[int]]
    ) -> dict[str, list[Tensor]]:
        """Reads layers, and asks the stream for no more tokens than they need.

        Args:
            stream: The tokens that enter block 0, 1, ... and leave the last.
            wanted: Zero-based layers of each quantity.

        Returns:
            One tensor per layer of each quantity, in the order of ``wanted``.
        """
        last = max(max(layers) for layers in wanted.values())
        found: dict[tuple[str, int], Tensor] = {}
        for index, tokens in enumerate(islice(stream, last + 1)):
            for quantity, layers in wanted.items():
                if index in layers:
                    read = getattr(self, quantity)
                    found[quantity, index] = read(index, tokens)
        return {
            quantity: [found[quantity, index] for index in layers]
            for quantity, layers in wanted.items()
        }

    def attention(self, index: int, tokens: Tensor) -> Tensor:
        """Attention logits of a block from the tokens that enter it."""
        blocks = self.encoder.blocks
        block = self.extra_block if index == len(blocks) else blocks[index]
        return self.encoder.attention_logits(block, tokens)

    def hidden(self, index: int, tokens: Tensor) -> Tensor:
        """Normed tokens from those that enter a block, or leave the last."""
        return self.encoder.norms[index](tokens)

    def shape(self, quantity: str, index: int) -> tuple[int, ...]:
        """Shape of a quantity on whole images: heads or width first.

        Raises:
            ValueError: If there is no such layer.
        """
        blocks = len(self.encoder.blocks)
        ends = {
            "attention": blocks + (self.extra_block is not None),
            "hidden": len(self.encoder.norms),
        }
        if isinstance(index, bool) or index not in range(ends[quantity]):
            hint = (
                f"; extra_block=True adds layer {blocks}"
                if quantity == "attention"
                and index == blocks
                and self.name == "student"
                else ""
            )
            raise ValueError(
                f"the {self.name} has no layer {index!r} to read {quantity} from: it "
                f"has layers 0 to {ends[quantity] - 1} (zero-based){hint}"
            )
        if quantity == "hidden":
            tokens, width = self.encoder.hidden_shape(index)
            return width, tokens
        # An extra block is like the last one.
        return self.encoder.attention_shape(min(index, blocks - 1))


class TeacherLayers(nn.Module):
    """An encoder that runs no further than the deepest layer that is read.

    Args:
        encoder: The trained encoder.
        wanted: Zero-based layers of each quantity, see :class:`LayerReader`.
    """

    def __init__(self, encoder: Any, wanted: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.encoder = encoder
        self.wanted = dict(wanted)

    def forward(self, inputs: Tensor, mask: PatchMask) -> dict[str, list[Tensor]]:
        """Reads the layers on the visible patches of images (N, C, H, W)."""
        reader = LayerReader(self.encoder)
        return reader.read(self.encoder.stream(inputs, mask), self.wanted)
