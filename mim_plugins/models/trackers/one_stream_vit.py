"""Vision Transformer that encodes a template and a search region together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...checkpoints.metadata import RecordsGeometry
from ..attention import use_attention_dispatch
from ..initialisation import is_pretrained
from ..patches import patch_grid
from .elimination import attend_and_score, central_token, eliminate, restore


class Encoded(NamedTuple):
    """What :class:`OneStreamVisionTransformer` returns.

    Args:
        template: Tokens of the template, (N, L_t, C).
        search: Tokens of the search region in raster order, zeros where they were
            eliminated, (N, L_s, C).
        removed: Places in the search region of the tokens that each elimination
            removed, (N, n).
    """

    template: Tensor
    search: Tensor
    removed: list[Tensor]


@MODELS.register_module()
class OneStreamVisionTransformer(RecordsGeometry, VisionTransformer):
    """mmpretrain's Vision Transformer on a template and a search region at once.

    Both are cut into patches by the same convolution, get a position embedding each,
    and pass through the blocks as one sequence, template first, without class token.
    Some blocks eliminate search tokens between attention and MLP.

    A checkpoint of pre-training or of a classifier gives the two position embeddings,
    too: its own is resized to both grids. Its class token and position embedding have
    no part in the computation; they stay in the state dict, as in OSTrack's.

    References:
        - Joint Feature Learning and Relation Modeling for Tracking: A One-Stream
          Framework (OSTrack), 2022, https://arxiv.org/abs/2203.11991
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        arch: As mmpretrain's ``VisionTransformer``. (Its ``'deit-tiny'`` has 3 heads;
            MAE-Lite's ViT-Tiny has 12.)
        img_size: Height and width in pixels of the images of pre-training.
        patch_size: Patch height and width in pixels.
        template_size: Side of the template in pixels.
        search_size: Side of the search region in pixels.
        elimination_blocks: Zero-based indices of the blocks that eliminate search
            tokens; ``()`` for none.
        keep_ratios: Share of the search tokens that each of them keeps, in (0, 1].
        **kwargs: Further arguments of mmpretrain's ``VisionTransformer``, such as
            ``drop_path_rate``.

    Raises:
        ValueError: If a block in ``elimination_blocks`` does not exist, there is not
            one ratio for each, a ratio is outside (0, 1], or a size is no multiple of
            the patch size.
    """

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        template_size: int = 128,
        search_size: int = 256,
        elimination_blocks: Sequence[int] = (3, 6, 9),
        keep_ratios: Sequence[float] = (0.7, 0.7, 0.7),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            out_type="raw",
            **kwargs,
        )
        if len(elimination_blocks) != len(keep_ratios):
            raise ValueError(
                f"elimination_blocks={elimination_blocks} and keep_ratios="
                f"{keep_ratios} need one value per eliminating block each"
            )
        if not all(0 <= x < self.num_layers for x in elimination_blocks):
            raise ValueError(
                f"elimination_blocks={elimination_blocks} are zero-based indices of "
                f"the {self.num_layers} blocks"
            )
        if not all(0 < ratio <= 1 for ratio in keep_ratios):
            raise ValueError(
                f"keep_ratios are shares of the search tokens, in (0, 1]; got "
                f"{keep_ratios}"
            )
        self.patch_size = patch_size
        self.template_size, self.search_size = template_size, search_size
        patch = (patch_size, patch_size)
        self.template_grid = patch_grid((template_size, template_size), patch)
        self.search_grid = patch_grid((search_size, search_size), patch)
        self.keep_ratios = dict(zip(elimination_blocks, keep_ratios, strict=True))
        for name, (rows, cols) in self.position_tables.items():
            table = torch.zeros(1, rows * cols, self.embed_dims)
            setattr(self, name, nn.Parameter(table))
        # Of pre-training; a parameter without gradient would stop parallel training.
        self.pos_embed.requires_grad = False
        if self.cls_token is not None:
            self.cls_token.requires_grad = False
        use_attention_dispatch(self)

    @property
    def position_tables(self) -> dict[str, tuple[int, int]]:
        """Position embeddings that are made from that of pre-training: their grids."""
        return {
            "template_pos_embed": self.template_grid,
            "search_pos_embed": self.search_grid,
        }

    def init_weights(self) -> None:
        """Initialises as mmpretrain does, and the two position embeddings likewise."""
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        for name, grid in self.position_tables.items():
            table = resize_pos_embed(
                self.pos_embed.data,
                self.patch_resolution,
                grid,
                mode=self.interpolate_mode,
                num_extra_tokens=self.num_extra_tokens,
            )
            getattr(self, name).data.copy_(table[:, self.num_extra_tokens :])

    def embed_template(self, template: Tensor) -> Tensor:
        """Template tokens as they enter the first block, (N, L_t, C)."""
        return self.patch_embed(template)[0] + self.template_pos_embed

    def embed_search(self, search: Tensor) -> Tensor:
        """Search tokens as they enter the first block, (N, L_s, C)."""
        return self.patch_embed(search)[0] + self.search_pos_embed

    def forward(
        self, template: Tensor, search: Tensor, keep_rate: float | None = None
    ) -> Encoded:
        """Encodes pairs of images.

        Args:
            template: (N, C, template_size, template_size).
            search: (N, C, search_size, search_size).
            keep_rate: Replaces the ratio of every block that eliminates.

        Raises:
            ValueError: If the images have another size.
        """
        for name, image, size in (
            ("template", template, self.template_size),
            ("search region", search, self.search_size),
        ):
            if image.shape[-2:] != (size, size):
                raise ValueError(
                    f"the {name} is {image.shape[-2]}x{image.shape[-1]} pixels, the "
                    f"tracker is made for {size}x{size}"
                )
        return self.encode(
            self.embed_template(template), self.embed_search(search), keep_rate
        )

    def encode(
        self, template: Tensor, search: Tensor, keep_rate: float | None = None
    ) -> Encoded:
        """Encodes embedded tokens, see :meth:`forward`."""
        num_template, num_search = template.shape[1], search.shape[1]
        query = central_token(self.template_grid)
        places = torch.arange(num_search, device=search.device)
        places = places.expand(search.shape[0], -1)
        tokens = torch.cat([template, search], dim=1)
        removed = []
        for index, layer in enumerate(self.layers):
            ratio = self.keep_ratios.get(index, 1.0)
            if ratio == 1:
                tokens = layer(tokens)
                continue
            ratio = ratio if keep_rate is None else keep_rate
            attended, scores = attend_and_score(
                layer.attn, layer.ln1(tokens), query, num_template
            )
            tokens = tokens + attended
            template, search = tokens[:, :num_template], tokens[:, num_template:]
            search, places, gone = eliminate(search, places, scores, ratio)
            removed.append(gone)
            tokens = torch.cat([template, search], dim=1)
            tokens = layer.ffn(layer.ln2(tokens), identity=tokens)
        tokens = self.ln1(tokens)
        template, search = tokens[:, :num_template], tokens[:, num_template:]
        if search.shape[1] < num_search:
            search = restore(search, places, num_search)
        return Encoded(template, search, removed)
