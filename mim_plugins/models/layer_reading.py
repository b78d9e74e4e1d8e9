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
    "init_layers",
)


class LayerReader(nn.Module):
    """Reads what distillation compares out of an encoder's residual stream.

    Nothing is hooked into the encoder, and nothing of it is changed: a quantity of a
    layer is a function of the tokens that enter it, so only the layers that are read
    compute it, and the others keep their fused attention.

    - ``"attention"`` of block i: the logits before the softmax, (N, heads, L, L).
    - ``"hidden"`` of block i: the normed tokens that enter it, (N, L, C); the index
      after the last block stands for the final norm of what leaves it.

    Args:
        encoder: An encoder of this package.
        wanted: Zero-based layers of each quantity.
        extra_block: A block behind the last one, of which there is no more than
            attention logits; its index is the one after the last block's.
        name: What to call the encoder in messages.

    Raises:
        ValueError: If the encoder cannot be read.
    """

    def __init__(
        self,
        encoder: Any,
        wanted: Mapping[str, Sequence[int]],
        extra_block: nn.Module | None = None,
        name: str = "encoder",
    ) -> None:
        super().__init__()
        lacking = [part for part in PROTOCOL if not hasattr(encoder, part)]
        if lacking:
            raise ValueError(
                f"the {name}, a {type(encoder).__name__}, cannot be read block by "
                f"block (it has no {', '.join(lacking)}): take MIMVisionTransformer, "
                "or another encoder of this package with these"
            )
        self.encoder = encoder
        self.wanted = dict(wanted)
        self.extra_block = extra_block
        self.name = name

    def forward(self, inputs: Tensor, mask: PatchMask) -> dict[str, list[Tensor]]:
        """Encodes the visible patches of images (N, C, H, W) as far as is read."""
        return self.read(self.encoder.stream(inputs, mask))

    def read(self, stream: Iterable[Tensor]) -> dict[str, list[Tensor]]:
        """Reads the layers, and asks the stream for no more tokens than they need.

        Args:
            stream: The tokens that enter block 0, 1, ... and leave the last.

        Returns:
            One tensor per layer of each quantity, in the order they were asked for.
        """
        encoder, blocks = self.encoder, [*self.encoder.blocks, self.extra_block]
        last = max(max(layers) for layers in self.wanted.values())
        found: dict[tuple[str, int], Tensor] = {}
        for index, tokens in enumerate(islice(stream, last + 1)):
            if index in self.wanted.get("attention", ()):
                logits = encoder.attention_logits(blocks[index], tokens)
                found["attention", index] = logits
            if index in self.wanted.get("hidden", ()):
                found["hidden", index] = encoder.norms[index](tokens)
        return {
            quantity: [found[quantity, index] for index in layers]
            for quantity, layers in self.wanted.items()
        }

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
        if index not in range(ends[quantity]):
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
        if quantity == "attention":
            return self.encoder.attention_shape(index)
        tokens, width = self.encoder.hidden_shape(index)
        return width, tokens
