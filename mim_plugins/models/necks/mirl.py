"""MIRL's decoders: one per segment of the encoder, fed by all shallower segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..attention import attention, split_heads
from ..initialisation import is_pretrained
from ..masking import PatchMask
from ..position import sincos_position_embedding
from ..protocols import BlockwiseEncoder, MaskedEncoder, NeckPlan
from .decoder import DecoderBlock, LevelDecoder, MIMDecoder, shuffled_positions


class CrossAttention(nn.Module):
    """Attention of one sequence to another.

    Args:
        embed_dims: Width of both sequences, a multiple of ``num_heads``.
        num_heads: Attention heads.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dims, embed_dims)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Attends to the memory.

        Args:
            x: (N, L, C).
            memory: Token by token, (M, N, C).

        Returns:
            (N, L, C).
        """
        query = split_heads(self.q(x), self.num_heads)
        kv = self.kv(memory).unflatten(-1, (2, self.num_heads, -1))
        key, value = kv.permute(2, 1, 3, 0, 4)  # each (N, heads, M, C / heads)
        out = attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))


class CrossBlock(DecoderBlock):
    """Self-attention, cross-attention to a memory, MLP, each on normed inputs."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__(embed_dims, num_heads, feedforward_channels, norm_cfg=norm_cfg)
        self.ln_query = build_norm_layer(norm_cfg, embed_dims)
        self.ln_memory = build_norm_layer(norm_cfg, embed_dims)
        self.cross_attn = CrossAttention(embed_dims, num_heads)

    def forward(self, x: Tensor, memory: Tensor, num_last: int | None = None) -> Tensor:
        """Computes all tokens or the last ones.

        Args:
            x: (N, L, C).
            memory: Token by token, (M, N, C).
            num_last: How many tokens from the end to compute; all when None.

        Returns:
            (N, L or num_last, C).
        """
        if num_last is None:
            x = x + self.attn(self.ln1(x))
        else:
            x = self.attend_last(x, num_last)
        x = x + self.cross_attn(self.ln_query(x), self.ln_memory(memory))
        return self.ffn(self.ln2(x), identity=x)


class SegmentDecoder(LevelDecoder):
    """The decoder of one segment; arguments as :class:`LevelDecoder`."""

    block_type = CrossBlock

    def add_positions(self, grid: tuple[int, int], weight_norm: bool) -> None:
        """Adds a position table, and weight normalisation of the predictor.

        Args:
            grid: Rows and columns of the patch grid, for a fixed position table of
                its own.
            weight_norm: Whether to normalise the predictor's weight over its outputs.
        """
        self.grid = grid
        width = self.decoder_embed.out_features
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(grid, width), requires_grad=False
        )
        if weight_norm:
            parametrizations.weight_norm(self.decoder_pred, dim=1)
            magnitude, _ = weight_norm_of(self.decoder_pred)
            magnitude.requires_grad = False

    def forward(  # type: ignore[override]
        self, tokens: Tensor, memory: Tensor, mask: PatchMask, num_out: int
    ) -> Tensor:
        """Predicts the last ``num_out`` tokens of the shuffled sequence.

        Args:
            tokens: The segment's latent, embedded, (N, 1 + L_vis, embed_dims).
            memory: The embedded latents of all shallower segments, token by token,
                (M, N, embed_dims).
            mask: The mask the encoder saw.
            num_out: Number of tokens from the end to predict.

        Returns:
            (N, num_out, out_dims).
        """
        positions = shuffled_positions(self.decoder_pos_embed, self.grid, mask)
        tokens = self.add_mask_tokens(tokens, positions)
        for block in self.decoder_blocks[:-1]:
            tokens = block(tokens, memory)
        tokens = self.decoder_blocks[-1](tokens, memory, num_out)
        return self.decoder_pred(self.ln1(tokens))


@MODELS.register_module()
class MIRLDecoder(MIMDecoder):
    """Cross-attention decoders, one per segment of the encoder (MIRL, section 3).

    The decoder of segment g sees its own segment's tokens and mask tokens as the
    sequence, and the encoder's embedding and segments 1 to g - 1 as the memory; the
    memories are prefixes of one tensor. The shallow decoder g and the deep decoder
    G + 1 - g are a pair: both predict a target of the same width, and the head adds
    them up.

    Args:
        grid: Rows and columns of the encoder's patch grid.
        in_dims: Width of the encoder's embedding and of each segment's latent, G + 1
            numbers, G even.
        out_dims: Width of the prediction of a patch: one for all pairs, or one for
            each, shallowest decoder first.
        embed_dims: Width of the decoders, a multiple of 4 and of ``num_heads``; a
            list, as in the official code, holds the same width G times.
        depth: Blocks of each decoder.
        num_heads: Attention heads, of self-attention and cross-attention alike.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        weight_norm: Normalise the predictors' weights per input channel, over the
            outputs, as all released models do: every channel contributes a unit
            vector times its magnitude, which is 1 and not trained.
        norm_cfg: Norm layer.
        with_cp: Recompute every decoder in the backward pass instead of keeping its
            activations.
        init_cfg: As mmengine's.

    References:
        - Masked Image Residual Learning for Scaling Deeper Vision Transformers, 2023,
          https://arxiv.org/abs/2309.14136
    """

    decoder_type = SegmentDecoder
    predictions_per_target = 2

    def __init__(
        self,
        grid: tuple[int, int],
        in_dims: Sequence[int],
        out_dims: int | Sequence[int],
        embed_dims: int | Sequence[int] = 512,
        depth: int = 2,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        weight_norm: bool = True,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)
        low_dims, *segment_dims = in_dims
        num_pairs = count_pairs(len(segment_dims))
        pair_dims = [out_dims] * num_pairs if isinstance(out_dims, int) else out_dims
        if len(pair_dims) != num_pairs:
            raise ValueError(
                f"out_dims has {len(pair_dims)} entries for {num_pairs} pair(s) of "
                "decoders: give one width per pair, or one for all"
            )
        width = one_width(embed_dims, len(segment_dims))
        super().__init__(
            grid=grid,
            in_dims=segment_dims,
            out_dims=[*pair_dims, *reversed(pair_dims)],
            embed_dims=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            norm_cfg=norm_cfg,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.in_dims = list(in_dims)
        self.num_levels = len(self.in_dims)
        self.out_dims = list(pair_dims)
        # Of the embedding and of every latent but the last, which is normed.
        self.norms: Any = nn.ModuleList(
            build_norm_layer(norm_cfg, dims) for dims in self.in_dims[:-1]
        )
        self.low_embed = nn.Linear(low_dims, width)
        self.weight_norm = weight_norm
        # Every decoder has a table of its own, as in the official code.
        del self.decoder_pos_embed
        for decoder in self.decoders:
            decoder.add_positions(self.grid, weight_norm)

    @classmethod
    def plan(cls, encoder: MaskedEncoder) -> NeckPlan:
        """One target for each pair that the segments of an encoder make.

        Raises:
            ValueError: If they cannot be paired, or the low feature is missing.
        """
        if not isinstance(encoder, BlockwiseEncoder) or not encoder.tap_embedding:
            raise ValueError(
                "MIRLDecoder attends to the embedding before the first "
                "block: set backbone.tap_embedding=True, of a MIMVisionTransformer"
            )
        ends = [*encoder.taps, encoder.final_block]
        if encoder.final_block in encoder.taps:
            raise ValueError(
                f"the segment ends {ends} do not increase: leave the deepest block out "
                "of backbone.taps, it ends the last segment by itself"
            )
        return replace(super().plan(encoder), num_targets=count_pairs(len(ends)))

    def init_weights(self) -> None:
        """Initialises as the official code, unless weights were loaded."""
        super().init_weights()
        if not self.weight_norm or is_pretrained(self.init_cfg):
            return
        for decoder in self.decoders:
            magnitude, direction = weight_norm_of(decoder.decoder_pred)
            nn.init.ones_(magnitude)
            nn.init.xavier_uniform_(direction)

    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts patches from each segment.

        Args:
            latents: The embedding and one latent per segment, each (N, 1 + L_vis, C),
                the last one normed.
            mask: The mask the encoder saw.
            masked_only: Predict removed patches alone, in the order of
                ``mask.ids_masked``; otherwise every patch in raster order.

        Returns:
            One (N, L_mask or L, out_dims) per segment, shallow to deep.
        """
        num_out = mask.num_masked if masked_only else mask.num_patches
        low, *embedded = self.embed(latents)
        # Token by token, so that the memory of the decoders, which grows by one
        # segment from each to the next, is always a contiguous prefix: (G * M, N, C).
        memory = torch.cat([e.transpose(0, 1) for e in (low, *embedded[:-1])])
        predictions = [
            decoder(tokens, memory[: (g + 1) * low.shape[1]], mask, num_out)
            for g, (decoder, tokens) in enumerate(
                zip(self.decoders, embedded, strict=True)
            )
        ]
        return predictions if masked_only else [mask.restore(p) for p in predictions]

    def embed(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Norms and projects the latents to the decoders' width, each (N, M, C)."""
        layers = [self.low_embed, *(d.decoder_embed for d in self.decoders)]
        norms = [*self.norms, nn.Identity()]
        return [
            layer(norm(latent))
            for layer, norm, latent in zip(layers, norms, latents, strict=True)
        ]


def count_pairs(num_segments: int) -> int:
    """Number of decoder pairs.

    Raises:
        ValueError: If the number of segments is odd or zero.
    """
    if num_segments < 2 or num_segments % 2:
        raise ValueError(
            f"MIRL pairs shallow segments with deep ones, so their number must be even "
            f"and at least 2, got {num_segments}: the encoder's taps name the last "
            "block of every segment but the last one, an odd number of blocks"
        )
    return num_segments // 2


def one_width(embed_dims: int | Sequence[int], num_segments: int) -> int:
    """The width that all decoders share.

    Raises:
        ValueError: If there are several, or not one per segment.
    """
    if isinstance(embed_dims, int):
        return embed_dims
    if len(set(embed_dims)) != 1 or len(embed_dims) != num_segments:
        raise ValueError(
            f"embed_dims={list(embed_dims)}: the {num_segments} decoders must share "
            "one width, since their tokens are joined to one memory: give one number"
        )
    return embed_dims[0]


def weight_norm_of(linear: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Magnitude (1, in) and direction (out, in) of a weight-normed linear layer."""
    parts = linear.parametrizations.weight
    return parts.original0, parts.original1
