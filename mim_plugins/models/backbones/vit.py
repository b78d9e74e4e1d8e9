"""Vision Transformer that embeds and encodes visible patches only."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import resize_pos_embed, to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.metadata import RecordsGeometry
from ..activation_checkpointing import checkpoint_activations
from ..attention import self_attention_logits, use_attention_dispatch
from ..initialisation import is_pretrained
from ..masking import PatchMask, as_patch_mask
from ..patches import patch_grid, patchify, projection_weights
from ..position import sincos_position_embedding
from ..protocols import BlockwiseEncoder
from .taps import check_final_block, check_taps


@MODELS.register_module()
class MIMVisionTransformer(RecordsGeometry, VisionTransformer, BlockwiseEncoder):
    """mmpretrain's Vision Transformer with a masked forward pass and taps.

    Without a mask it is mmpretrain's ``VisionTransformer``: same parameters, same
    keys, same output. With a mask it returns the latents of the visible tokens after
    the tapped blocks and after the last block.

    References:
        - Masked Autoencoders Are Scalable Vision Learners, 2021,
          https://arxiv.org/abs/2111.06377, section 3
        - DeepMIM: Deep Supervision for Masked Image Modeling, 2023,
          https://arxiv.org/abs/2303.08817

    Args:
        arch: Name in mmpretrain's ``arch_zoo`` or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads``, ``feedforward_channels``.
        img_size: Input height and width in pixels, multiples of ``patch_size``.
        patch_size: Patch height and width in pixels.
        taps: Zero-based indices, increasing, of the blocks whose un-normed residual
            stream is returned before the final latent. The final latent, after the
            last block and its norm, always comes last. (The official DeepMIM counts
            blocks from one: its 6, 8, 10 are ``(5, 7, 9)``.)
        tap_embedding: Also return the embedded tokens as they enter the first block,
            before all others (MIRL's low feature).
        final_block: Zero-based index of the block whose output is normed and returned
            last; by default the last block. The blocks after it stay in the encoder and
            are trained by distillation alone (D2-MAE, which decodes after block 8: 7);
            without it they are frozen.
        with_cp: Recompute every block in the backward pass instead of keeping its
            activations: less memory for about a third more time.
        fixed_pos_embed: Initialise the position embedding as the fixed sine-cosine
            table and leave it out of training, as the papers' pre-training does.
        **kwargs: Further arguments of mmpretrain's ``VisionTransformer``, such as
            ``out_type``, what the forward pass without a mask returns.

    Raises:
        ValueError: If a tap or ``final_block`` is out of range, repeated or out of
            order, or the image size is not a multiple of the patch size.
    """

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        taps: Sequence[int] = (),
        tap_embedding: bool = False,
        final_block: int | None = None,
        fixed_pos_embed: bool = True,
        with_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        self.patch_size = self.mask_patch_size = tuple(to_2tuple(patch_size))
        self.grid = patch_grid(tuple(to_2tuple(img_size)), self.patch_size)
        super().__init__(arch=arch, img_size=img_size, patch_size=patch_size, **kwargs)
        self.in_channels = self.patch_embed.projection.in_channels
        self.taps = check_taps(taps, self.num_layers)
        self.final_block = check_final_block(final_block, self.taps, self.num_layers)
        self.tap_embedding = tap_embedding
        self.level_dims = [self.embed_dims] * (tap_embedding + len(self.taps) + 1)
        self.fixed_pos_embed = fixed_pos_embed
        if fixed_pos_embed:
            self.pos_embed.requires_grad = False
        use_attention_dispatch(self)
        if with_cp:
            for layer in self.layers:
                checkpoint_activations(layer)

    @property
    def level_names(self) -> list[str]:
        """Encoder blocks, counted from 1."""
        if self.tap_embedding:
            return super().level_names
        return [f"block {block + 1}" for block in (*self.taps, self.final_block)]

    def init_weights(self) -> None:
        """Initialises as the official MAE does (DeepMIM, section 3 of its code).

        Weights loaded through ``init_cfg=dict(type='Pretrained')`` stay untouched.
        """
        init_cfg: Any = self.init_cfg  # type: ignore[has-type]
        if isinstance(init_cfg, list) and len(init_cfg) == 1:
            # mmpretrain re-draws pos_embed unless a Pretrained init_cfg is a dict.
            self.init_cfg = init_cfg = init_cfg[0]
        super().init_weights()
        if is_pretrained(init_cfg):
            return
        self.init_layers(self)
        # The patch embedding as a linear layer; its bias keeps the default of conv.
        weight = self.patch_embed.projection.weight.data
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        if self.fixed_pos_embed:
            table = sincos_position_embedding(
                self.grid, self.embed_dims, cls_token=self.cls_token is not None
            )
            self.pos_embed.data.copy_(table)

    def forward(
        self, x: Tensor, mask: PatchMask | Tensor | None = None
    ) -> tuple[Tensor, ...] | list[Tensor]:
        """Encodes images, all of them or their visible patches only.

        Args:
            x: Images, (N, C, H, W).
            mask: ``None`` for plain features; a ``PatchMask`` or a tensor (N, L) with
                1 = removed for the masked pass.

        Returns:
            Without a mask, mmpretrain's tuple of features. With one, a list of
            latents (N, 1 + L_vis, D), shallow to deep: class token first, visible
            patches in shuffled order; only the last one is normed.

        Raises:
            TypeError: If ``mask`` is a bool: encoders never draw masks.
            ValueError: If the image or the mask does not fit the patch grid.
        """
        if mask is None:
            return VisionTransformer.forward(self, x)
        return self.latents(self.stream(x, mask))

    def stream(self, x: Tensor, mask: PatchMask | Tensor) -> Iterator[Tensor]:
        """Encodes visible patches block by block, as far as it is iterated.

        Args:
            x: Images, (N, C, H, W).
            mask: As in :meth:`forward`.

        Yields:
            The tokens as they enter block 0, 1, ... and, at last, as they leave the
            last block, (N, 1 + L_vis, D), un-normed.
        """
        mask = as_patch_mask(mask, x, self.image_grid(x))
        tokens = self.embed_visible(x, mask)
        for layer in self.layers:
            yield tokens
            tokens = layer(tokens)
        yield tokens

    def latents(self, stream: Iterable[Tensor]) -> list[Tensor]:
        """Picks the latents of the levels out of :meth:`stream`, shallow to deep."""
        tapped = {tap + 1 for tap in self.taps} | ({0} if self.tap_embedding else set())
        latents = []
        for index, tokens in enumerate(stream):
            if index in tapped:
                latents.append(tokens)
            if index == self.final_block + 1:
                break
        latents.append(self.ln1(tokens) if self.final_norm else tokens)
        return latents

    def last_tokens(self, stream: Iterable[Tensor]) -> Tensor:
        """The tokens that leave the last block, un-normed."""
        *_, tokens = stream
        return tokens

    @property
    def blocks(self) -> Sequence[Any]:
        """The transformer blocks, shallow to deep."""
        return self.layers

    @property
    def norms(self) -> list[nn.Module]:
        """The norm of the tokens that enter each block, and the final norm."""
        return [layer.ln1 for layer in self.layers] + (
            [self.ln1] if self.final_norm else []
        )

    def attention_shape(self, block: int) -> tuple[int, int, int]:
        """Heads, queries and keys of a block, on complete images of ``img_size``.

        The index after the last block denotes an :meth:`attention_only_block`.
        """
        tokens = self.pos_embed.shape[1]
        like = self.layers[min(block, self.num_layers - 1)]
        return like.attn.num_heads, tokens, tokens

    def hidden_shape(self, block: int) -> tuple[int, int]:
        """Number and width of the tokens that enter a block, on complete images.

        The index after the last block denotes the tokens that leave it.
        """
        return self.pos_embed.shape[1], self.embed_dims

    def attention_logits(
        self, block: TransformerEncoderLayer, tokens: Tensor
    ) -> Tensor:
        """Attention of a block before the softmax, (N, heads, queries, keys).

        Args:
            block: One of the encoder's, or an :meth:`attention_only_block`.
            tokens: The tokens that enter it, of :meth:`stream`.
        """
        return self_attention_logits(block.attn, block.ln1(tokens))

    def attention_only_block(self) -> nn.Module:
        """One more block like the last, reduced to what its attention logits need.

        D2-MAE's, of which only the norm and the queries, keys and values exist.
        """
        block = copy.deepcopy(self.layers[-1])
        block.attn.proj = block.ln2 = block.ffn = nn.Identity()
        return block

    def embed_visible(self, x: Tensor, mask: PatchMask) -> Tensor:
        """Embeds visible patches and adds positions: (N, 1 + L_vis, D)."""
        pos_embed = resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            mask.grid,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        cls_pos, patch_pos = pos_embed.split(
            [self.num_extra_tokens, mask.num_patches], dim=1
        )
        patches = mask.visible(patchify(x, mask.grid))  # (N, L_vis, p*q*C)
        tokens = F.linear(patches, *projection_weights(self.patch_embed.projection))
        tokens = tokens + F.embedding(mask.ids_keep, patch_pos[0])
        if self.cls_token is not None:
            cls = (self.cls_token + cls_pos).expand(len(x), -1, -1)
            tokens = torch.cat([cls, tokens], dim=1)
        return self.pre_norm(self.drop_after_pos(tokens))
