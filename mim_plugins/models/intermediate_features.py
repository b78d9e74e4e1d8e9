"""Intermediate features of an encoder, for distillation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from torch import Tensor, nn

from .masking import PatchMask
from .protocols import BlockwiseEncoder


class IntermediateFeatures(nn.Module):
    """Computes the intermediate features of an encoder that distillation compares.

    Nothing is hooked into the encoder, and nothing of it is changed: a feature of a
    block is a function of the tokens that enter it, so only the blocks asked for
    compute it, and the others keep their fused attention.

    - ``"attention"`` of block i: the logits before the softmax, (N, heads, L, L).
    - ``"hidden"`` of block i: the normed tokens that enter it, (N, L, C); the index
      after the last block denotes the final norm of the tokens that leave it.

    Args:
        encoder: The encoder.
        layers: Zero-based layers of each feature.
        extra_block: A block after the last one, which has attention logits only; its
            index is the one after the last block's.
        name: What to call the encoder in messages.

    Raises:
        ValueError: If the encoder cannot be read block by block.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: Mapping[str, Sequence[int]],
        extra_block: nn.Module | None = None,
        name: str = "encoder",
    ) -> None:
        super().__init__()
        if not isinstance(encoder, BlockwiseEncoder):
            raise ValueError(
                f"the {name}, a {type(encoder).__name__}, cannot be read block by "
                "block: take MIMVisionTransformer, MIMHiera or SimMIMSwin, or subclass "
                "mim_plugins.models.protocols.BlockwiseEncoder"
            )
        self.encoder = encoder
        self.layers = dict(layers)
        self.extra_block = extra_block
        self.name = name

    def forward(self, inputs: Tensor, mask: PatchMask) -> dict[str, list[Tensor]]:
        """Encodes the visible patches of images (N, C, H, W) as far as is needed."""
        return self.from_stream(self.encoder.stream(inputs, mask))

    def from_stream(self, stream: Iterable[Tensor]) -> dict[str, list[Tensor]]:
        """Computes the features, and iterates the stream no further than they need.

        Args:
            stream: The tokens that enter block 0, 1, ... and leave the last.

        Returns:
            One tensor per layer of each feature, in the order of ``layers``.
        """
        encoder, blocks = self.encoder, [*self.encoder.blocks, self.extra_block]
        last = max(max(layers) for layers in self.layers.values())
        found: dict[tuple[str, int], Tensor] = {}
        for index, tokens in enumerate(islice(stream, last + 1)):
            if index in self.layers.get("attention", ()):
                logits = encoder.attention_logits(blocks[index], tokens)
                found["attention", index] = logits
            if index in self.layers.get("hidden", ()):
                found["hidden", index] = encoder.norms[index](tokens)
        return {
            feature: [found[feature, index] for index in layers]
            for feature, layers in self.layers.items()
        }

    def shape(self, feature: str, index: int) -> tuple[int, ...]:
        """Shape of a feature on complete images: heads or width first.

        Raises:
            ValueError: If there is no such layer.
        """
        blocks = len(self.encoder.blocks)
        ends = {
            "attention": blocks + (self.extra_block is not None),
            "hidden": len(self.encoder.norms),
        }
        if index not in range(ends[feature]):
            hint = (
                f"; extra_block=True adds layer {blocks}"
                if feature == "attention" and index == blocks and self.name == "student"
                else ""
            )
            raise ValueError(
                f"the {self.name} has no layer {index!r} to read {feature} from: it "
                f"has layers 0 to {ends[feature] - 1} (zero-based){hint}"
            )
        if feature == "attention":
            return self.encoder.attention_shape(index)
        tokens, width = self.encoder.hidden_shape(index)
        return width, tokens
