"""The Swin Transformer of SimMIM, which encodes mask tokens along with the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_, trunc_normal_init
from mmpretrain.models import SwinTransformer
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import WindowMSA, resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..attention import WindowAttention
from ..initialisation import is_pretrained
from ..masking import PatchMask, as_patch_mask
from ..protocols import BlockwiseEncoder
from .swin import MIMSwinTransformer, window_shift
from .taps import check_final_stage


@MODELS.register_module()
class SimMIMSwin(MIMSwinTransformer, BlockwiseEncoder):
    """Swin Transformer that reads a mask token instead of every removed one.

    Nothing is dropped: after the patch embedding and its norm, the tokens of removed
    cells are replaced by one learned token, and the complete map is encoded, as in
    mmpretrain's ``SimMIMSwinTransformer``, whose parameters, under their names, these
    are. Here the encoder can also be read block by block, for distillation, and end its
    latent before the last stage.

    References:
        - SimMIM: A Simple Framework for Masked Image Modeling, 2021,
          https://arxiv.org/abs/2111.09886, section 3
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        arch: As :class:`MIMSwinTransformer`. The "Swin-Tiny" of the second paper has
            ``embed_dims`` 48; its teacher, "Swin-Small", is mmpretrain's ``'tiny'``.
        final_stage: Zero-based index of the stage whose output is the latent, after its
            patch merging; by default the last, whose output is normed. D2-MAE has 1, so
            that the encoder has no norm of its own, as nothing would train it.
        **kwargs: Further arguments of :class:`MIMSwinTransformer`. The official code
            leaves ``drop_path_rate`` at 0.1 in pre-training.

    Raises:
        ValueError: If there is no such stage; see also :class:`MIMSwinTransformer`.
    """

    takes_absolute_positions = True
    keeps_masked_tokens = True

    def __init__(
        self, arch: str | dict = "tiny", final_stage: int | None = None, **kwargs: Any
    ) -> None:
        num_stages = len(arch["depths"]) if isinstance(arch, dict) else 4
        final_stage = check_final_stage(final_stage, num_stages)
        if final_stage < num_stages - 1:
            kwargs = {"norm_cfg": None, **kwargs}
        super().__init__(arch=arch, taps=(), merge_coordinates="correct", **kwargs)
        self.final_stage = final_stage
        self.final_block = sum(self.depths[: final_stage + 1]) - 1
        # Otherwise the norm is the decoder's.
        self.latent_is_normed = final_stage == num_stages - 1
        self._set_levels((final_stage,))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))

    def init_weights(self) -> None:
        """Initialises as mmpretrain's SimMIM, unless weights were loaded.

        Linear layers, tables of relative positions and the mask token: std 0.02.
        """
        super(SwinTransformer, self).init_weights()
        if is_pretrained(self.init_cfg):
            return
        if self.use_abs_pos_embed:
            trunc_normal_(self.absolute_pos_embed, std=0.02)
        trunc_normal_(self.mask_token, std=0.02)
        self.init_layers(self)

    @staticmethod
    def init_layers(module: nn.Module) -> None:
        """Initialises linear layers and tables of relative positions: std 0.02."""
        for child in module.modules():
            if isinstance(child, nn.Linear):
                trunc_normal_init(child, std=0.02, bias=0)
            elif isinstance(child, WindowMSA):
                trunc_normal_(child.relative_position_bias_table, std=0.02)

    def forward(
        self, x: Tensor, mask: PatchMask | Tensor | None = None
    ) -> tuple[Tensor, ...] | list[Tensor]:
        """Encodes images, as they are or with mask tokens in their removed cells.

        Args:
            x: Images, (N, C, H, W).
            mask: ``None`` for plain features; a ``PatchMask`` or a tensor (N, L) with
                1 = removed for the masked pass, L counting cells.

        Returns:
            Without a mask, mmpretrain's tuple of feature maps. With one, a list of one
            latent, (N, rows * t * cols * t, C): all tokens in raster order, t x t of
            them per cell (``level_scales``).

        Raises:
            TypeError: If ``mask`` is a bool: encoders never draw masks.
            ValueError: If the image or the mask does not fit the cells or windows.
        """
        if mask is None:
            return SwinTransformer.forward(self, x)
        return self.latents(self.stream(x, mask))

    def stream(self, x: Tensor, mask: PatchMask | Tensor) -> Iterator[Tensor]:
        """Encodes block by block, as far as it is iterated.

        Args:
            x: Images, (N, C, H, W).
            mask: As in :meth:`forward`.

        Yields:
            The map of tokens as it enters block 0, 1, ... of all stages and, at last,
            as it leaves the last block, (N, rows, columns, C).
        """
        mask = as_patch_mask(mask, x, self.image_grid(x))
        tokens, size = self.patch_embed(x)
        removed = mask.at_scale(self._cell_side(0)).unsqueeze(-1) > 0
        tokens = torch.where(removed, self.mask_token.to(tokens.dtype), tokens)
        if self.use_abs_pos_embed:
            tokens = tokens + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                size,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        tokens = self.drop_after_pos(tokens)
        for stage in self.stages:
            for block in stage.blocks:
                yield tokens.unflatten(1, size)
                tokens = block(tokens, size)
            if stage.downsample is not None:
                tokens, size = stage.downsample(tokens, size)
        yield tokens.unflatten(1, size)

    def latents(self, stream: Iterable[Tensor]) -> list[Tensor]:
        """Picks the latent out of :meth:`stream`, iterating no further than needed."""
        tokens = next(islice(stream, self.final_block + 1, None))
        if self.latent_is_normed:
            tokens = self.stage_norm(self.final_stage)(tokens)
        return [tokens.flatten(1, 2)]

    def last_tokens(self, stream: Iterable[Tensor]) -> Tensor:
        """The tokens that leave the last block, laid out as latents are, un-normed."""
        *_, tokens = stream
        return tokens.flatten(1, 2)

    @property
    def blocks(self) -> Sequence[Any]:
        """The transformer blocks of all stages, shallow to deep."""
        return [block for stage in self.stages for block in stage.blocks]

    @property
    def norms(self) -> list[nn.Module]:
        """The norm of the tokens that enter each block, and the final norm if any."""
        norms = [block.norm1 for block in self.blocks]
        final = self.stage_norm(len(self.stages) - 1)
        return norms + ([] if isinstance(final, nn.Identity) else [final])

    def attention_shape(self, block: int) -> tuple[int, int, int, int]:
        """Heads, queries, keys of each, and shift of a block's windows.

        On complete images of ``img_size``; only blocks that agree in all but the heads
        have the same windows. The index after the last block denotes an
        :meth:`attention_only_block`.
        """
        blocks, size = self.blocks, self._map_size(block)
        like = blocks[min(block, len(blocks) - 1)]
        window, shift = like.attn.window_size, window_shift(like, size)
        if block == len(blocks) and min(size) > window:
            # Every second block of a stage is shifted, this one if the last is not.
            shift = window // 2 - shift
        return like.attn.w_msa.num_heads, size[0] * size[1], window**2, shift

    def hidden_shape(self, block: int) -> tuple[int, int]:
        """Number and width of the tokens that enter a block, on complete images.

        The index after the last block denotes the tokens that leave it.
        """
        rows, cols = self._map_size(block)
        stage = self._stage_of(block)
        return rows * cols, self.stages[stage].embed_dims

    def attention_logits(self, block: SwinBlock, tokens: Tensor) -> Tensor:
        """Attention of a block's windows before the softmax.

        Relative position biases are added; what keeps the regions of a shifted window
        apart is not (the released code).

        Args:
            block: One of the encoder's, or an :meth:`attention_only_block`.
            tokens: The map that enters it, of :meth:`stream`.

        Returns:
            (N * windows, heads, window_size**2, window_size**2).
        """
        attn, normed = block.attn, block.norm1(tokens)
        if shift := window_shift(block, tokens.shape[1:3]):
            normed = normed.roll((-shift, -shift), (1, 2))
        windows = attn.window_partition(normed, attn.window_size).flatten(1, 2)
        return attn.w_msa.logits(windows)

    def attention_only_block(self) -> nn.Module:
        """One more block of the last stage, reduced to what its logits need.

        D2-MAE's, of which only the norm and the queries, keys and values exist, and
        the table of relative positions.
        """
        last = self.stages[-1].blocks[-1]
        block = SwinBlock(
            last.attn.w_msa.embed_dims,
            last.attn.w_msa.num_heads,
            window_size=last.attn.window_size,
            shift=self.depths[-1] % 2 == 1,
            attn_cfgs=dict(
                qkv_bias=last.attn.w_msa.qkv.bias is not None,
                qk_scale=last.attn.w_msa.scale,
                window_msa=WindowAttention,
            ),
        )
        block.norm1.eps = last.norm1.eps
        block.attn.w_msa.proj = block.norm2 = block.ffn = nn.Identity()
        return block

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Depth of a parameter, and number of depths, for layer-wise learning rates."""
        depth, num_depths = super().get_layer_depth(param_name, prefix)
        embedding = (f"{prefix}mask_token", f"{prefix}absolute_pos_embed")
        return 0 if param_name.startswith(embedding) else depth, num_depths

    def _stage_of(self, block: int) -> int:
        """The stage of a block; the last one's for the index after the last block."""
        ends = [sum(self.depths[: k + 1]) for k in range(len(self.depths))]
        return next((k for k, end in enumerate(ends) if block < end), len(ends) - 1)

    def _map_size(self, block: int) -> tuple[int, int]:
        """Rows and columns of tokens in a block, on images of ``img_size``."""
        return self._map_sizes(self.grid)[self._stage_of(block)]
