"""Reading the blocks of an encoder while it encodes images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmpretrain.models.utils import MultiheadAttention, WindowMSA
from torch import Tensor, nn

from ..models.attention import (
    attention_logits,
    self_attention_logits,
    split_heads,
)
from ..models.backbones.grid_attention import GridAttention
from ..models.backbones.hiera_block import MaskUnitAttention, unroll
from ..models.backbones.rel_pos_vit import RelPosAttention
from .attention import grid_distances


class BlockReading(NamedTuple):
    """What a block computed for a batch of images, class tokens left out.

    Args:
        normed: The normed tokens that enter its attention, (N, ...).
        tokens: The tokens that leave it, (N, L, C), in an order that is the same for
            all images.
        logits: Its attention before the softmax, (M, heads, L_q, L_k); M counts images,
            or the windows of all images.
        distances: Between the queries and keys, in pixels, (L_q, L_k).
        stride: Height in pixels of a token that enters.
    """

    normed: Tensor
    tokens: Tensor
    logits: Tensor
    distances: Tensor
    stride: float


class _Geometry(NamedTuple):
    """Height and width of images, patches, and the number of class tokens."""

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    extra: int


class BlockReader:
    """Reads every block of an encoder in one pass, one after the other.

    Encoders of this package and of mmpretrain are known, if they are built of plain or
    relative-position ViT blocks, of Swin's or of Hiera's; of timm's, the plain ViTs. A
    block's readings are given to a function as soon as it is computed, and forgotten.
    Nothing of the encoder is changed: hooks are there only while it is read.

    Args:
        encoder: The encoder.

    Raises:
        ValueError: If there is no attention in it that can be read.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = getattr(encoder, "timm_model", encoder)
        modules = dict(self.encoder.named_modules())
        self._attentions = [
            (name, module) for name, module in modules.items() if _is_readable(module)
        ]
        # Swin's window attention is a part of what shifts the windows.
        self._blocks = [
            modules[name.removesuffix(".w_msa").rpartition(".")[0]]
            for name, _ in self._attentions
        ]
        if not self._blocks:
            raise ValueError(
                f"a {type(encoder).__name__} has no attention that can be read: take a "
                "ViT, a relative-position ViT, a Swin Transformer or a Hiera"
            )

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @contextmanager
    def means(self, indices: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """Context in which a forward pass leaves the mean patch token of some blocks.

        Nothing of their attention is computed twice, unlike in :meth:`reading`.

        Args:
            indices: Zero-based blocks.

        Yields:
            The means by block, (N, C), once the encoder has run.
        """
        extra = getattr(self.encoder, "num_extra_tokens", 0)
        found: dict[int, Tensor] = {}

        def watch(index: int) -> Any:
            def on_leave(module: nn.Module, args: tuple, output: Tensor) -> None:
                found[index] = output.flatten(1, -2)[:, extra:].mean(dim=1)

            return self._blocks[index].register_forward_hook(on_leave)

        handles = [watch(index) for index in indices]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def reading(
        self, image_size: tuple[int, int], visit: Callable[[int, BlockReading], None]
    ) -> Iterator[None]:
        """Context in which a forward pass of the encoder is read.

        Args:
            image_size: Height and width of the images in pixels.
            visit: Called with the index of each block and what it computed.
        """
        geometry = self._geometry(image_size)
        entered: dict[int, tuple[Any, ...]] = {}
        handles = []

        def watch(index: int, attn: Any, block: nn.Module) -> None:
            def on_enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
                entered[index] = (*args, *kwargs.values())

            def on_leave(module: nn.Module, args: tuple, output: Tensor) -> None:
                inputs = entered.pop(index)
                visit(index, _read(attn, inputs, args, output, geometry))

            handles.append(attn.register_forward_pre_hook(on_enter, with_kwargs=True))
            handles.append(block.register_forward_hook(on_leave))

        for index, (_, attn) in enumerate(self._attentions):
            watch(index, attn, self._blocks[index])
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _geometry(self, image_size: tuple[int, int]) -> _Geometry:
        encoder: Any = self.encoder
        embed = encoder.patch_embed
        projection = getattr(embed, "projection", None) or embed.proj
        prefix = getattr(encoder, "num_prefix_tokens", 0)  # timm's name
        extra = getattr(encoder, "num_extra_tokens", prefix)
        return _Geometry(image_size, tuple(projection.stride), extra)


def _is_readable(module: nn.Module) -> bool:
    kinds = (MultiheadAttention, WindowMSA, RelPosAttention)
    if isinstance(module, kinds):
        return not isinstance(module, GridAttention)
    return _is_timms(module)


def _is_timms(module: Any) -> bool:
    """Whether a module is the attention of timm's plain ViT; timm is optional."""
    parts = ("qkv", "q_norm", "k_norm", "num_heads", "scale")
    return all(hasattr(module, name) for name in parts)


def _read(
    attn: Any,
    inputs: tuple[Any, ...],
    block_inputs: tuple[Any, ...],
    output: Tensor,
    geometry: _Geometry,
) -> BlockReading:
    """Reads a block after its forward pass.

    Args:
        attn: The attention.
        inputs: What it was given: the normed tokens first.
        block_inputs: What the block was given.
        output: The tokens that leave the block.
        geometry: Of images and patches.
    """
    normed = inputs[0]
    height, width = geometry.image_size
    if isinstance(attn, MaskUnitAttention):
        tokens = output.flatten(1, 2)
        stride = (height * width / normed.shape[1] / normed.shape[2]) ** 0.5
        distances = _unit_distances(attn, normed, geometry.image_size, stride)
        return BlockReading(normed, tokens, attn.logits(normed), distances, stride)
    if isinstance(attn, WindowMSA):
        rows, cols = block_inputs[1]
        size = (height // rows, width // cols)
        logits = window_logits(attn, *inputs)
        windows = normed.unflatten(0, (len(output), -1)).flatten(1, 2)
        distances = grid_distances(attn.window_size, size)
        return BlockReading(windows, output, logits, distances, size[0])
    extra, patch = geometry.extra, geometry.patch_size
    if isinstance(attn, RelPosAttention):
        logits = attn.logits(*inputs)
    elif _is_timms(attn):
        logits = timm_logits(attn, normed)
    else:
        logits = self_attention_logits(attn, normed)
    distances = grid_distances((height // patch[0], width // patch[1]), patch)
    logits = logits[..., extra:, extra:]
    return BlockReading(
        normed[:, extra:], output[:, extra:], logits, distances, patch[0]
    )


def window_logits(attn: WindowMSA, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of mmpretrain's window attention with their bias, (N * windows, ...).

    Args:
        attn: The attention.
        x: Tokens of the windows, (N * windows, L, C).
        mask: What keeps the regions of shifted windows apart, (windows, L, L).
    """
    table, index = attn.relative_position_bias_table, attn.relative_position_index
    bias = nn.functional.embedding(index, table).permute(2, 0, 1)
    logits = self_attention_logits(attn, x, attn.scale) + bias
    if mask is None:
        return logits
    return logits + mask[:, None].repeat(len(x) // len(mask), 1, 1, 1)


def timm_logits(attn: Any, x: Tensor) -> Tensor:
    """Logits of timm's attention, (N, L, C) -> (N, heads, L, L)."""
    query, key, _ = attn.qkv(x).chunk(3, dim=-1)
    query = attn.q_norm(split_heads(query, attn.num_heads))
    key = attn.k_norm(split_heads(key, attn.num_heads))
    return attention_logits(query, key, attn.scale)


def _unit_distances(
    attn: MaskUnitAttention,
    normed: Tensor,
    image_size: tuple[int, int],
    stride: float,
) -> Tensor:
    """Distances in pixels between what attends to each other in Hiera's mask units.

    Pooled queries are at the centre of the tokens they were pooled of.
    """
    side = round(normed.shape[2] ** 0.5)
    at = torch.arange(side, dtype=torch.float64) * stride
    keys = unroll(torch.cartesian_prod(at, at)[None, None])
    if not attn.local:
        unit = side * stride
        rows, cols = (round(pixels / unit) for pixels in image_size)
        corners = torch.cartesian_prod(
            torch.arange(rows, dtype=torch.float64) * unit,
            torch.arange(cols, dtype=torch.float64) * unit,
        )
        keys = keys + corners[None, :, None]
    queries = keys.unflatten(2, (4, -1)).mean(dim=2) if attn.pool else keys
    return torch.cdist(
        queries.flatten(0, 2),
        keys.flatten(0, 2),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
