"""Self-attention decoders of pre-training, one per supervised level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..activation_checkpointing import checkpoint_activations
from ..attention import attention, split_heads, use_attention_dispatch
from ..initialisation import init_transformer, is_pretrained
from ..masking import PatchMask
from ..position import sincos_position_embedding
from ..protocols import LevelNeck


class DecoderBlock(TransformerEncoderLayer):
    """mmpretrain's transformer layer that can be asked for its last tokens only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        use_attention_dispatch(self)

    def forward_last(self, x: Tensor, num_last: int) -> Tensor:
        """Computes the last ``num_last`` tokens: (N, L, C) -> (N, num_last, C).

        Equal to ``self(x)[:, -num_last:]``: keys and values come from every token,
        queries, output projection and MLP are computed for the last ones only.
        """
        out = self.attend_last(x, num_last)
        return self.ffn(self.ln2(out), identity=out)

    def attend_last(self, x: Tensor, num_last: int) -> Tensor:
        """Adds self-attention to the last tokens: (N, L, C) -> (N, num_last, C)."""
        attn = self.attn
        normed = self.ln1(x)
        dims = attn.embed_dims
        q_bias, kv_bias = (
            (None, None)
            if attn.qkv.bias is None
            else attn.qkv.bias.split([dims, 2 * dims])
        )
        q_weight, kv_weight = attn.qkv.weight.split([dims, 2 * dims])
        query = F.linear(normed[:, -num_last:], q_weight, q_bias)
        key, value = F.linear(normed, kv_weight, kv_bias).chunk(2, dim=-1)
        heads = attn.num_heads
        out = attention(
            split_heads(query, heads),
            split_heads(key, heads),
            split_heads(value, heads),
        )
        out = attn.proj(out.transpose(1, 2).flatten(2))
        # The layer's layer scale and drop path, identities in the papers' decoders.
        return x[:, -num_last:] + attn.out_drop(attn.gamma1(attn.proj_drop(out)))


class LevelDecoder(BaseModule):
    """The decoder of one level: embed, blocks, norm, predict (DeepMIM, figure 2).

    Args:
        in_dims: Width of the encoder's latent.
        embed_dims: Width of the decoder.
        depth: Number of blocks, at least 1.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        out_dims: Width of the prediction of a patch.
        norm_cfg: Norm layer; every paper has LayerNorm with eps 1e-6.
    """

    block_type: type[nn.Module] = DecoderBlock

    def __init__(
        self,
        in_dims: int,
        embed_dims: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        out_dims: int,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.decoder_embed = nn.Linear(in_dims, embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.decoder_blocks: Any = nn.ModuleList(
            self.block_type(
                embed_dims, num_heads, int(mlp_ratio * embed_dims), norm_cfg=norm_cfg
            )
            for _ in range(depth)
        )
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.decoder_pred: nn.Module = nn.Linear(embed_dims, out_dims)

    def forward(self, latent: Tensor, positions: Tensor, num_out: int) -> Tensor:
        """Predicts the last ``num_out`` tokens of the shuffled sequence.

        Args:
            latent: (N, 1 + L_vis, in_dims).
            positions: Position embedding of each token in shuffled order, class
                token first, (N, 1 + L, embed_dims).
            num_out: Number of tokens from the end to predict.

        Returns:
            (N, num_out, out_dims).
        """
        return self.decoder_pred(self.decode(latent, positions, num_out))

    def decode(self, latent: Tensor, positions: Tensor, num_out: int) -> Tensor:
        """What the prediction is made of, (N, num_out, embed_dims); see forward."""
        tokens = self.add_mask_tokens(self.decoder_embed(latent), positions)
        for block in self.decoder_blocks[:-1]:
            tokens = block(tokens)
        return self.ln1(self.decoder_blocks[-1].forward_last(tokens, num_out))

    def add_mask_tokens(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Completes the sequence: (N, 1 + L_vis, C) -> (N, 1 + L, C), positioned."""
        num_removed = positions.shape[1] - tokens.shape[1]
        mask_tokens = self.mask_token.expand(len(tokens), num_removed, -1)
        return torch.cat([tokens, mask_tokens], dim=1) + positions


class LevelDecoders(LevelNeck):
    """Any neck that holds one decoder with a mask token for each level."""

    decoders: Any

    def init_weights(self) -> None:
        """Initialises as the official code, unless weights were loaded.

        Convolutions keep torch's default.
        """
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        init_transformer(self)
        for decoder in self.decoders:
            nn.init.normal_(decoder.mask_token, std=0.02)


@MODELS.register_module()
class MIMDecoder(LevelDecoders):
    """Independent self-attention decoders on one or many encoder levels.

    With one level this is MAE's decoder, with several DeepMIM's (section 3.2 of
    https://arxiv.org/abs/2303.08817). Decoders run in shuffled order (class token,
    visible patches, removed patches): attention does not depend on the order of its
    tokens, so nothing is unshuffled, the masked tokens come last and are contiguous,
    and the last block and the prediction are computed for them only.

    ``grid``, ``in_dims`` and ``out_dims`` are filled in by the algorithm from its
    encoder and its targets when they are not given.

    Args:
        grid: Rows and columns of the encoder's patch grid.
        in_dims: Width of each level's latent, shallow to deep.
        out_dims: Width of the prediction of a patch: one for all levels, or one each.
        embed_dims: Width of the decoders, a multiple of 4 and of ``num_heads``.
        depth: Blocks of each decoder.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over ``embed_dims``.
        norm_cfg: Norm layer.
        with_cp: Recompute every decoder in the backward pass instead of keeping its
            activations: less memory for about a third more time.
        init_cfg: As mmengine's.

    Raises:
        ValueError: If ``depth`` is below 1, ``embed_dims`` does not divide by
            ``num_heads``, or ``out_dims`` does not match the number of levels.
    """

    decoder_type: type[LevelDecoder] = LevelDecoder
    needs_cls_token = True

    def __init__(
        self,
        grid: tuple[int, int],
        in_dims: Sequence[int],
        out_dims: int | Sequence[int],
        embed_dims: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_cfg: dict | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)
        self.grid = (grid[0], grid[1])
        self.in_dims = list(in_dims)
        self.num_levels = len(self.in_dims)
        if isinstance(out_dims, int):
            out_dims = [out_dims] * len(self.in_dims)
        self.out_dims = list(out_dims)
        if len(self.out_dims) != len(self.in_dims):
            raise ValueError(
                f"out_dims has {len(self.out_dims)} entries for {len(self.in_dims)} "
                "levels: give one width per level, or one for all"
            )
        if depth < 1:
            raise ValueError(f"a decoder needs at least one block, got depth={depth}")
        if embed_dims % num_heads:
            raise ValueError(
                f"embed_dims={embed_dims} does not divide by num_heads={num_heads}"
            )
        self.decoders: Any = nn.ModuleList(
            self.decoder_type(
                width, embed_dims, depth, num_heads, mlp_ratio, out, norm_cfg
            )
            for width, out in zip(self.in_dims, self.out_dims, strict=True)
        )
        if with_cp:
            for decoder in self.decoders:
                checkpoint_activations(decoder)
        # Fixed and shared by all levels; in the checkpoint, as the official code.
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(self.grid, embed_dims), requires_grad=False
        )

    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts patches from each level's latent.

        Args:
            latents: One (N, 1 + L_vis, C) per level.
            mask: The mask the encoder saw.
            masked_only: Predict removed patches alone, in the order of
                ``mask.ids_masked``; otherwise every patch in raster order.

        Returns:
            One (N, L_mask or L, out_dims) per level.
        """
        positions = shuffled_positions(self.decoder_pos_embed, self.grid, mask)
        num_out = mask.num_masked if masked_only else mask.num_patches
        predictions = [
            decoder(latent, positions, num_out)
            for decoder, latent in zip(self.decoders, latents, strict=True)
        ]
        return predictions if masked_only else [mask.restore(p) for p in predictions]


def shuffled_positions(table: Tensor, grid: tuple[int, int], mask: PatchMask) -> Tensor:
    """Position embeddings in shuffled order, class token first.

    Args:
        table: Position embedding of a grid, class token first, (1, 1 + L', C).
        grid: Rows and columns of that grid.
        mask: The mask, perhaps on another grid.

    Returns:
        (N, 1 + L, C).
    """
    table = resize_pos_embed(table, grid, mask.grid, num_extra_tokens=1)
    cls, patches = table.split([1, mask.num_patches], dim=1)
    shuffled = F.embedding(mask.ids_shuffle, patches[0])
    return torch.cat([cls.expand(len(shuffled), -1, -1), shuffled], dim=1)
