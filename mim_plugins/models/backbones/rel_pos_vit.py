"""The ViT with relative positions, of MAE-Lite's fine-tuning and of segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmpretrain.models import BEiTViT
from mmpretrain.models.utils import BEiTAttention
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ...checkpoints.layouts.resize import resize_offset_table
from ...checkpoints.metadata import RecordsGeometry
from ..activation_checkpointing import checkpoint_activations
from ..attention import attention, attention_logits, split_heads
from ..initialisation import is_pretrained

TABLE = "relative_position_bias_table"


class RelPosAttention(BEiTAttention):
    """mmpretrain's ``BEiTAttention``, fused where torch can."""

    def init_weights(self) -> None:
        """Initialises the table with zeros, where mmpretrain draws it.

        A pre-training checkpoint, which has no table, is loaded afterwards.
        """
        super().init_weights()
        if self.relative_position_bias_table is not None:
            nn.init.zeros_(self.relative_position_bias_table)

    def forward(self, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        """Self-attention, (N, L, C) -> (N, L, C).

        Args:
            x: Tokens.
            rel_pos_bias: Bias that all blocks share, (heads, L, L).
        """
        query, key, value = self.query_key_value(x)
        bias = self.position_bias(rel_pos_bias)
        dropout = self.attn_drop.p if self.training else 0.0
        out = attention(query, key, value, dropout, bias)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def logits(self, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        """Logits with their bias before the softmax, (N, heads, L, L)."""
        query, key, _ = self.query_key_value(x)
        bias = self.position_bias(rel_pos_bias)
        logits = attention_logits(query, key)
        return logits if bias is None else logits + bias

    def query_key_value(self, x: Tensor) -> list[Tensor]:
        """Query, key and value of every head, each (N, heads, L, C / heads)."""
        bias = self.qkv.bias
        if self.bias == "qv_bias":
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        return [split_heads(tokens, self.num_heads) for tokens in qkv.chunk(3, dim=-1)]

    def position_bias(self, shared: Tensor | None) -> Tensor | None:
        """The bias of the logits, (heads, L, L), or None without relative positions."""
        if self.relative_position_bias_table is None:
            return shared
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.permute(2, 0, 1)


@MODELS.register_module()
class RelPosVisionTransformer(RecordsGeometry, BEiTViT):
    """Vision Transformer with a learned bias for the relative position of patches.

    mmpretrain's ``BEiTViT`` with MAE-Lite's settings and fused attention: a table per
    block, or one that all share, is initialised with zeros and added to the attention
    logits; the absolute position embedding stays. For segmentation, as in DeepMIM,
    LocalMIM and MAE-Lite, ``out_type='featmap'`` gives un-normed maps of the blocks in
    ``out_indices``; it has ``bias=True`` and ``layer_scale_init_value=1.0`` there.

    References:
        - BEiT: BERT Pre-Training of Image Transformers, 2021,
          https://arxiv.org/abs/2106.08254
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        arch: A dict with ``embed_dims``, ``num_layers``, ``num_heads``,
            ``feedforward_channels``, or a name in mmpretrain's ``arch_zoo``. (Its
            ``'deit-tiny'`` has 3 heads; MAE-Lite's ViT-Tiny has 12.)
        img_size: Input height and width in pixels. Tables and the position embedding of
            a checkpoint of another size are resized on load.
        bias: ``'qv_bias'``: queries and values have a bias (the released code's
            default, the layout of the 79.0 model); True: keys too (the 79.4 model).
            Checkpoints of one layout load into the other, exactly: a bias of the keys
            changes no attention.
        keep_bias: False leaves the biases of queries and values at zero when a
            checkpoint with biases of all three is loaded into ``bias='qv_bias'``, as
            the official fine-tuning does.
        use_abs_pos_emb: Add the position embedding of pre-training.
        use_rel_pos_bias: A table in every block.
        use_shared_rel_pos_bias: One table for all blocks.
        layer_scale_init_value: Initial value of the layer scale on both branches of a
            block; 0 for no layer scale.
        out_indices: Zero-based indices, increasing, of the blocks whose output is
            returned; -1 is the last.
        with_cp: Recompute every block in the backward pass instead of keeping its
            activations: less memory for about a third more time.
        **kwargs: Further arguments of mmpretrain's ``BEiTViT``.

    Raises:
        ValueError: If a block in ``out_indices`` does not exist; on load, if a table is
            of other heads or of no square grid.

    Note:
        According to its code, the released 79.0 model was initialised without the
        pre-trained biases: ``bias='qv_bias', keep_bias=False``.
    """

    # Loading turns `qkv.bias` into `q_bias` and `v_bias`, or back, as the model has it.
    converts_biases = True

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 224,
        bias: bool | str = "qv_bias",
        keep_bias: bool = True,
        use_abs_pos_emb: bool = True,
        use_rel_pos_bias: bool = True,
        use_shared_rel_pos_bias: bool = False,
        layer_scale_init_value: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        with_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            arch=arch,
            img_size=img_size,
            bias=bias,
            use_abs_pos_emb=use_abs_pos_emb,
            use_rel_pos_bias=use_rel_pos_bias,
            use_shared_rel_pos_bias=use_shared_rel_pos_bias,
            layer_scale_init_value=layer_scale_init_value,
            # mmpretrain writes into the sequence; a tuple cannot be written into.
            out_indices=out_indices
            if isinstance(out_indices, int)
            else list(out_indices),
            **kwargs,
        )
        self._check_out_indices()
        self.keep_bias = keep_bias
        for layer in self.layers:
            layer.attn = RelPosAttention(
                self.embed_dims,
                self.arch_settings["num_heads"],
                self.patch_resolution,
                use_rel_pos_bias,
                bias=bias,
                proj_drop_rate=kwargs.get("drop_rate", 0.0),
            )
            if with_cp:
                checkpoint_activations(layer)
        if self.frozen_stages > 0:
            # mmpretrain froze the attention that was here before.
            self._freeze_stages()
        self._register_load_state_dict_pre_hook(self._convert_biases)
        if self.required_size is not None:
            self.patch_embed.register_forward_hook(self._check_grid)

    @property
    def required_size(self) -> tuple[int, int] | None:
        """The one image size there are relative positions for, or None without them."""
        if self.use_rel_pos_bias or self.rel_pos_bias is not None:
            height, width = self.img_size
            return height, width
        return None

    def _freeze_stages(self) -> None:
        """Freezes the first blocks and what enters them, shared positions included."""
        super()._freeze_stages()
        if self.rel_pos_bias is not None:
            self.rel_pos_bias.requires_grad_(False)

    def _check_grid(
        self,
        embed: nn.Module,
        images: tuple[Tensor],
        output: tuple[Tensor, tuple[int, int]],
    ) -> None:
        """Refuses images whose grid has no relative positions.

        A forward hook of the patch embedding: another grid with the same number of
        patches, such as that of the rotated image, would get the wrong positions.

        Raises:
            ValueError: If images have another grid than the one of ``img_size``.
        """
        grid, own = tuple(output[1]), tuple(self.patch_resolution)
        if grid != own:
            raise ValueError(
                f"images of {grid[0]}x{grid[1]} patches (height x width), but relative "
                f"positions of {own[0]}x{own[1]}: they have another size than "
                f"img_size={tuple(self.img_size)}, which this backbone was built for; "
                "set img_size, tables of checkpoints are resized on load"
            )

    def _check_out_indices(self) -> None:
        """Refuses blocks that do not exist, for which mmpretrain returns fewer maps."""
        asked = list(self.out_indices)
        if sorted(set(asked)) != asked or asked[-1] >= self.num_layers:
            raise ValueError(
                f"out_indices={asked} must increase, from 0 to {self.num_layers - 1}: "
                f"zero-based indices of the {self.num_layers} blocks"
            )

    def init_weights(self) -> None:
        """Initialises as the official code (BEiT's), unless weights were loaded."""
        super().init_weights()
        if is_pretrained(self.init_cfg):
            return
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        for number, layer in enumerate(self.layers, 1):
            for linear in (layer.attn.proj, layer.ffn.layers[1]):
                linear.weight.data.div_((2 * number) ** 0.5)

    def _convert_biases(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Turns the biases of queries, keys and values into this model's layout.

        Raises:
            ValueError: If the checkpoint has them and the model has none.
        """
        converted = 0
        for index in range(self.num_layers):
            key = f"{prefix}layers.{index}.attn."
            q_bias, v_bias = key + "q_bias", key + "v_bias"
            qkv_bias = key + "qkv.bias"
            if not self.layers[index].attn.bias and {q_bias, qkv_bias} & {*state_dict}:
                raise ValueError(
                    f"the checkpoint's attention has biases ({key}...), this backbone "
                    "has none and would compute something else: set bias=True, or "
                    "bias='qv_bias'"
                )
            if self.layers[index].attn.bias == "qv_bias" and qkv_bias in state_dict:
                of_query, _, of_value = state_dict.pop(qkv_bias).chunk(3)
                if self.keep_bias:
                    state_dict |= {q_bias: of_query, v_bias: of_value}
                converted += 1
            elif self.layers[index].attn.bias is True and q_bias in state_dict:
                both = [state_dict.pop(q_bias), state_dict.pop(v_bias)]
                both.insert(1, torch.zeros_like(both[0]))
                state_dict[qkv_bias] = torch.cat(both)
                converted += 1
        if converted:
            done = "converted to" if self.keep_bias else "left out for"
            MMLogger.get_current_instance().info(
                f"the attention biases of {converted} blocks of the checkpoint were "
                f"{done} this model's layout, bias={self.layers[0].attn.bias!r}"
            )

    def _prepare_relative_position_bias_table(
        self, state_dict: dict[str, Tensor], prefix: str, *_: Any
    ) -> None:
        """Called by mmpretrain before weights are loaded: fits the tables.

        Raises:
            ValueError: If a table is of other heads or of no square grid, or there are
                several for one.
        """
        shared = f"{prefix}rel_pos_bias.{TABLE}"
        if self.use_rel_pos_bias and shared in state_dict:
            table = state_dict.pop(shared)
            state_dict.pop(shared.replace("bias_table", "index"), None)
            for index in range(self.num_layers):
                state_dict[f"{prefix}layers.{index}.attn.{TABLE}"] = table.clone()
        own_table = f"{prefix}layers.0.attn.{TABLE}"
        if self.rel_pos_bias is not None and own_table in state_dict:
            raise ValueError(
                f"the checkpoint has relative positions in every block ({own_table}), "
                "this backbone one table for all: set use_rel_pos_bias=True and "
                "use_shared_rel_pos_bias=False"
            )
        for name, own in self.named_parameters():
            key = prefix + name
            if not name.endswith(TABLE) or key not in state_dict:
                continue
            table = state_dict[key]
            if table.shape[1] != own.shape[1]:
                raise ValueError(
                    f"{key} was trained with {table.shape[1]} attention heads, this "
                    f"backbone has {own.shape[1]}: its other tensors would fit and "
                    f"its output be wrong; set num_heads={table.shape[1]} in arch"
                )
            if len(table) != len(own):
                state_dict[key] = resize_offset_table(table, self.patch_resolution)
            # It follows from the grid.
            index_name = name.replace("bias_table", "index")
            state_dict[prefix + index_name] = self.get_buffer(index_name)
