"""The plain Vision Transformer as the backbone of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed, to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from ...checkpoints.metadata import RecordsGeometry
from ..activation_checkpointing import checkpoint_activations
from ..attention import use_attention_dispatch
from ..initialisation import init_transformer, is_pretrained
from .grid_attention import GridAttention

# What a pre-trained encoder has and a detector's has no use for.
_UNUSED = ("cls_token", "ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias")


@MODELS.register_module()
class ViTDet(RecordsGeometry, VisionTransformer):
    """mmpretrain's Vision Transformer, made affordable at the image sizes of detection.

    Most blocks attend inside windows, a few across the complete map; attention has
    relative positions, decomposed into rows and columns and initialised with zeros.
    There is no class token and no final norm. All other parameters have the names of
    mmpretrain's ``VisionTransformer``, so any pre-training checkpoint loads; the
    position embedding keeps the size of pre-training and is interpolated as needed.

    References:
        - Exploring Plain Vision Transformer Backbones for Object Detection, 2022,
          https://arxiv.org/abs/2203.16527, section 3
        - MViTv2: Improved Multiscale Vision Transformers, 2021,
          https://arxiv.org/abs/2112.01526, section 4.1

    Args:
        arch: Name in mmpretrain's ``arch_zoo`` or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads``, ``feedforward_channels``.
        img_size: Height and width in pixels of the detector's images, for which the
            global blocks have relative positions. Images of other sizes, non-square
            ones too, interpolate them.
        patch_size: Patch height and width in pixels.
        pretrain_img_size: Height and width in pixels that the position embedding is of.
        window_size: Side of the windows in tokens.
        global_blocks: Zero-based indices of the blocks that attend across the map; by
            default the last of each quarter of the blocks, as the paper has it.
        out_indices: Zero-based indices, increasing, of the blocks whose map is
            returned; the last block by default.
        use_rel_pos: Whether attention has relative positions.
        with_cp: Recompute every block in the backward pass instead of keeping its
            activations: less memory for about a third more time.
        **kwargs: Further arguments of mmpretrain's ``VisionTransformer``, such as
            ``drop_path_rate``.

    Raises:
        ValueError: If a global block or an output is none of the blocks, the window is
            not positive, or the depth has no quarters to place global blocks in.
    """

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | tuple[int, int] = 1024,
        patch_size: int = 16,
        pretrain_img_size: int | tuple[int, int] = 224,
        window_size: int = 14,
        global_blocks: Sequence[int] | None = None,
        out_indices: int | Sequence[int] = -1,
        use_rel_pos: bool = True,
        with_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        if window_size < 1:
            raise ValueError(
                f"window_size counts patches and is at least 1, got {window_size}; for "
                "attention across the complete map list every block in global_blocks"
            )
        super().__init__(
            arch=arch,
            img_size=pretrain_img_size,
            patch_size=patch_size,
            with_cls_token=False,
            final_norm=False,
            out_type="featmap",
            out_indices=out_indices
            if isinstance(out_indices, int)
            else list(out_indices),
            **kwargs,
        )
        if global_blocks is None:
            global_blocks = _last_of_quarters(self.num_layers)
        self.global_blocks = tuple(global_blocks)
        for name, indices in (
            ("global_blocks", self.global_blocks),
            ("out_indices", self.out_indices),
        ):
            if any(index not in range(self.num_layers) for index in indices):
                raise ValueError(
                    f"{name}={tuple(indices)} names a block that is not there: this "
                    f"ViTDet has blocks 0 to {self.num_layers - 1}"
                )
        self.window_size = window_size
        self.img_size = tuple(to_2tuple(img_size))
        full = tuple(-(-side // patch_size) for side in self.img_size)
        for index, layer in enumerate(self.layers):
            window = 0 if index in self.global_blocks else window_size
            plain, size = layer.attn, (window, window) if window else full
            layer.attn = GridAttention(
                self.embed_dims,
                plain.num_heads,
                window=window,
                table=size if use_rel_pos else None,
                attn_drop=plain.attn_drop,
            )
            for name, part in plain.named_children():
                setattr(layer.attn, name, part)
        if self.frozen_stages > 0:
            # mmpretrain froze the blocks before they had relative positions.
            self._freeze_stages()
        use_attention_dispatch(self)
        self._register_load_state_dict_pre_hook(self._adapt_loaded)
        if with_cp:
            for layer in self.layers:
                checkpoint_activations(layer)

    def init_weights(self) -> None:
        """Initialises the blocks as in pre-training, unless weights were loaded."""
        init_cfg: Any = self.init_cfg  # type: ignore[has-type]
        if isinstance(init_cfg, list) and len(init_cfg) == 1:
            # mmpretrain re-draws pos_embed unless a Pretrained init_cfg is a dict.
            self.init_cfg = init_cfg = init_cfg[0]
        super().init_weights()
        if not is_pretrained(init_cfg):
            init_transformer(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of ``out_indices``, each (N, C, rows, cols).

        Args:
            x: Images, (N, 3, H, W). Sizes that do not divide into patches are
                continued by zeros.
        """
        tokens, grid = self.patch_embed(x)
        tokens = tokens + resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            grid,
            mode=self.interpolate_mode,
            num_extra_tokens=0,
        )
        maps = self.pre_norm(self.drop_after_pos(tokens)).unflatten(1, grid)
        outs = []
        for index, layer in enumerate(self.layers):
            maps = layer(maps)  # (N, rows, cols, C)
            if index in self.out_indices:
                outs.append(maps.permute(0, 3, 1, 2).contiguous())
        return tuple(outs)

    def _prepare_pos_embed(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Called by mmpretrain before weights are loaded: fits the position embedding.

        mmpretrain takes off the class token's row only where nothing else changes.
        """
        key = prefix + "pos_embed"
        if key in state_dict and prefix + "cls_token" in state_dict:
            state_dict[key] = state_dict[key][:, 1:]
        super()._prepare_pos_embed(state_dict, prefix, *args, **kwargs)

    def _adapt_loaded(
        self, state_dict: dict[str, Tensor], prefix: str, *_: Any
    ) -> None:
        """Leaves out what a detector's encoder does not have, and resizes tables."""
        dropped = [
            name for name in _UNUSED if state_dict.pop(prefix + name, None) is not None
        ]
        if dropped:
            MMLogger.get_current_instance().info(
                f"{', '.join(dropped)} of the checkpoint left out on purpose: ViTDet "
                "has no class token and no final norm"
            )
        for name, own in self.named_parameters():
            table = state_dict.get(prefix + name)
            if ".rel_pos_" in name and table is not None and len(table) != len(own):
                side = (len(own) + 1) // 2
                state_dict[prefix + name] = _resize_table(table, 2 * side - 1)


def _resize_table(table: Tensor, length: int) -> Tensor:
    """Resizes a table of relative positions of one axis, (M, d) -> (length, d)."""
    resized = F.interpolate(
        table.float().T[None], size=length, mode="linear", align_corners=False
    )
    return resized[0].T.contiguous().to(table.dtype)


def _last_of_quarters(num_layers: int) -> list[int]:
    """The last block of each quarter of the blocks; 2, 5, 8, 11 of 12.

    Raises:
        ValueError: If there are fewer than four blocks.
    """
    if num_layers < 4:
        raise ValueError(
            f"{num_layers} blocks have no quarters: say with global_blocks which of "
            "them attend across the complete map"
        )
    return [num_layers * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
