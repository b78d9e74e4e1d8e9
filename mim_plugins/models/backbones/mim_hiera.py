"""Hiera that embeds and encodes visible mask units only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..initialisation import is_pretrained
from ..masking import PatchMask, as_patch_mask
from ..protocols import BlockwiseEncoder
from .hiera import Hiera
from .hiera_block import HieraBlock, reroll
from .taps import check_final_stage, check_taps


@MODELS.register_module()
class MIMHiera(Hiera, BlockwiseEncoder):
    """Hiera with a masked forward pass and taps; without a mask it is :class:`Hiera`.

    References:
        - Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles,
          2023, https://arxiv.org/abs/2306.00989, section 3 and appendix
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        arch: As :class:`Hiera`.
        taps: Zero-based indices, increasing, of the stages whose output is returned
            before the last one's; by default those that a pooling follows, which MAE's
            decoder fuses with the last one (stages 0 and 1 at ``q_pool=2``).
        q_pool: How many stages begin with pooling; MAE pre-training has 2, so that a
            mask unit ends as 2x2 tokens.
        final_stage: Zero-based index of the stage whose output is the last latent; by
            default the last. An earlier one decouples reconstruction from distillation,
            as D2-MAE does on a ViT.
        out_type: What the forward pass without a mask returns, see :class:`Hiera`.
        **kwargs: Further arguments of :class:`Hiera`.

    Raises:
        ValueError: If a tap is out of range, repeated or out of order; see also
            :class:`Hiera`.
    """

    latent_is_normed = False

    def __init__(
        self,
        arch: str | dict = "base",
        taps: Sequence[int] | None = None,
        q_pool: int = 2,
        final_stage: int | None = None,
        out_type: str = "featmap",
        **kwargs: Any,
    ) -> None:
        super().__init__(arch=arch, q_pool=q_pool, out_type=out_type, **kwargs)
        stages = len(self.depths)
        self.final_stage = check_final_stage(final_stage, stages)
        if taps is None:
            taps = range(min(q_pool, self.final_stage))
        self.taps = check_taps(taps, stages, unit="stage")
        check_final_stage(final_stage, stages, self.taps)
        self.final_block = sum(self.depths[: self.final_stage + 1]) - 1
        levels = self._levels = (*self.taps, self.final_stage)
        self.level_dims = [self.stage_dims[stage] for stage in levels]
        self.level_scales = [self.unit_side // 2 ** min(k, q_pool) for k in levels]

    @property
    def level_names(self) -> list[str]:
        """Encoder stages, counted from 1."""
        return [f"stage {stage + 1}" for stage in self._levels]

    def init_weights(self) -> None:
        """Initialises as the official MAE, unless weights were loaded."""
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        self.init_layers(self)
        # The patch embedding as the linear layer it is; its bias keeps conv's default.
        weight = self.patch_embed.projection.weight.data
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: PatchMask | Tensor | None = None
    ) -> tuple[Tensor, ...] | list[Tensor]:
        """Encodes images, all of them or their visible units only.

        Args:
            x: Images, (N, C, H, W).
            mask: ``None`` for plain features; a ``PatchMask`` or a tensor (N, L) with
                1 = removed for the masked pass, L counting mask units.

        Returns:
            Without a mask, see ``out_type``. With one, a list of latents
            (N, L_vis * t**2, C), shallow to deep: visible units in the order of
            ``mask.ids_keep``, a unit's t x t tokens (``level_scales``) row by row, none
            of them normed.

        Raises:
            TypeError: If ``mask`` is a bool: encoders never draw masks.
            ValueError: If the image or the mask does not fit the mask units.
        """
        if mask is None:
            return super().forward(x)
        return self.latents(self.stream(x, mask))

    def stream(self, x: Tensor, mask: PatchMask | Tensor) -> Iterator[Tensor]:
        """Encodes visible units block by block, as far as it is iterated.

        Args:
            x: Images, (N, C, H, W).
            mask: As in :meth:`forward`.

        Yields:
            The tokens as they enter block 0, 1, ... and, at last, as they leave the
            last block, (N, L_vis, T, C); a unit's tokens are unrolled.
        """
        mask = as_patch_mask(mask, x, self.image_grid(x))
        yield from self.run_blocks(self.embed(x, mask))

    def latents(self, stream: Iterable[Tensor]) -> list[Tensor]:
        """Picks the latents of the levels out of :meth:`stream`, shallow to deep."""
        stages = self.stage_outputs(stream)
        return [reroll(stages[level]).flatten(1, 2) for level in self._levels]

    def last_tokens(self, stream: Iterable[Tensor]) -> Tensor:
        """The tokens that leave the last block, laid out as latents are."""
        return reroll(self.stage_outputs(stream)[-1]).flatten(1, 2)

    @property
    def blocks(self) -> Sequence[Any]:
        """The transformer blocks of all stages, shallow to deep."""
        return self.layers

    @property
    def norms(self) -> list[nn.Module]:
        """The norm of the tokens that enter each block."""
        return [layer.ln1 for layer in self.layers]

    def attention_shape(self, block: int) -> tuple[int, int, int]:
        """Heads, queries and keys of a block, on complete images of ``img_size``.

        A block whose attention is local has those of one unit. The index after the last
        block denotes an :meth:`attention_only_block`.
        """
        keys, _ = self.hidden_shape(block)
        if block == self.num_layers:
            return self.layers[-1].attn.num_heads, keys, keys
        attn = self.layers[block].attn
        keys //= self.grid[0] * self.grid[1] if attn.local else 1
        return attn.num_heads, keys // 4 if attn.pool else keys, keys

    def hidden_shape(self, block: int) -> tuple[int, int]:
        """Number and width of the tokens that enter a block, on complete images.

        The index after the last block denotes the tokens that leave it.
        """
        tokens, dims = self.pos_embed.shape[1], self.stage_dims[0]
        for layer in self.layers[:block]:
            tokens //= 4 if layer.attn.pool else 1
            dims = layer.attn.embed_dims
        return tokens, dims

    def attention_logits(self, block: HieraBlock, tokens: Tensor) -> Tensor:
        """Attention of a block before the softmax, (N, heads, queries, keys).

        Where attention is local, every unit counts as an image. (The official
        distillation reads blocks of the last stage, which attend to all tokens.)

        Args:
            block: One of the encoder's, or an :meth:`attention_only_block`.
            tokens: The tokens that enter it, of :meth:`stream`.
        """
        return block.attn.logits(block.ln1(tokens))

    def attention_only_block(self) -> nn.Module:
        """One more block of the last stage, reduced to what its logits need.

        D2-MAE's, of which only the norm and the queries, keys and values exist. It
        attends to all tokens, and pools none.
        """
        dims, heads = self.stage_dims[-1], self.layers[-1].attn.num_heads
        block = HieraBlock(dims, dims, heads, dims, norm_cfg=self.norm_cfg)
        block.attn.proj = block.ln2 = block.ffn = nn.Identity()
        return block
