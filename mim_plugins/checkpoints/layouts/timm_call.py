"""The call of ``timm.create_model`` that builds the model of a state dict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..metadata import ImageStatistics
from .key_rules import has_key


def create_model_call(
    state: Mapping[str, Tensor],
    num_heads: int | None,
    img_size: tuple[int, int] | None,
    statistics: ImageStatistics,
) -> str:
    """The call, with every size that differs between models of one family.

    Args:
        state: In timm's layout.
        num_heads: Attention heads, for models whose weights do not show them; of a
            Hiera those of the first stage.
        img_size: Height and width in pixels; without it that of a square position
            embedding, or timm's default where there is none.
        statistics: Mean and deviation of the images it was trained on.
    """
    if has_key(state, r"layers\."):
        family, options = "swin_base_patch4_window7_224", _swin(state)
    elif "head.norm.weight" in state:
        family, options = "hiera_base_224", _hiera(state)
    elif any("q_bias" in key or "relative_position" in key for key in state):
        family, options = "beit_base_patch16_224", _beit(state)
    else:
        family, options = "vit_base_patch16_224", _vit(state)
    if "num_heads" not in options and num_heads is not None:
        options["num_heads"] = num_heads
    size = img_size or options.pop("img_size", None)
    if size is not None:
        options["img_size"] = tuple(size)
    channels = state["patch_embed.proj.weight"].shape[1]
    options["in_chans"] = channels
    classes = state.get("head.weight", state.get("head.fc.weight"))
    options["num_classes"] = 0 if classes is None else len(classes)
    overlay: dict[str, Any] = dict(mean=statistics.mean, std=statistics.std)
    if size is not None:
        overlay["input_size"] = (channels, *size)
    options["pretrained_cfg_overlay"] = overlay
    listed = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"timm.create_model({family!r}, {listed}, checkpoint_path=FILE)"


def _plain(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a ViT of blocks of one width."""
    width, _, *patch = state["patch_embed.proj.weight"].shape
    blocks = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    options = dict(
        patch_size=patch[0] if patch[0] == patch[1] else tuple(patch),
        embed_dim=width,
        depth=len(blocks),
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
    )
    if "pos_embed" in state:
        positions = state["pos_embed"].shape[1] - ("cls_token" in state)
        side = math.isqrt(positions)
        if side**2 == positions:
            options["img_size"] = (side * patch[0], side * patch[1])
    return options


def _vit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    options = _plain(state)
    if "fc_norm.weight" in state:
        options["global_pool"] = "avg"
    if "blocks.0.ls1.gamma" in state:
        options["init_values"] = 1.0  # the weights replace it
    if "blocks.0.attn.qkv.bias" not in state:
        options["qkv_bias"] = False
    return options


def _beit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    options = _plain(state)
    tables = [key for key in state if key.endswith("relative_position_bias_table")]
    if tables:
        options["num_heads"] = state[tables[0]].shape[1]
        side = (math.isqrt(len(state[tables[0]]) - 3) + 1) // 2
        options.setdefault("img_size", (side * options["patch_size"],) * 2)
    shared = any(key.startswith("rel_pos_bias.") for key in state)
    options |= dict(
        use_abs_pos_emb="pos_embed" in state,
        use_rel_pos_bias=bool(tables) and not shared,
        use_shared_rel_pos_bias=shared,
        init_values=1.0 if "blocks.0.gamma_1" in state else 0,
    )
    if "fc_norm.weight" not in state:
        options["global_pool"] = "token"
    return options


def _swin(state: Mapping[str, Tensor]) -> dict[str, Any]:
    tables = {
        tuple(int(part) for part in key.split(".")[1:4:2]): table
        for key, table in state.items()
        if key.endswith("relative_position_bias_table")
    }
    stages = sorted({stage for stage, _ in tables})
    window = (math.isqrt(len(tables[0, 0])) + 1) // 2
    return dict(
        patch_size=state["patch_embed.proj.weight"].shape[-1],
        embed_dim=state["patch_embed.proj.weight"].shape[0],
        depths=tuple(sum(key[0] == stage for key in tables) for stage in stages),
        num_heads=tuple(tables[stage, 0].shape[1] for stage in stages),
        window_size=window,
    )


def _hiera(state: Mapping[str, Tensor]) -> dict[str, Any]:
    count = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    widths = [state[f"blocks.{i}.mlp.fc2.weight"].shape[0] for i in range(count)]
    width = widths[0]
    options: dict[str, Any] = dict(
        embed_dim=width,
        stages=tuple(widths.count(each) for each in sorted(set(widths))),
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
    )
    side = math.isqrt(state["pos_embed"].shape[1])
    if side**2 == state["pos_embed"].shape[1]:
        options["img_size"] = (4 * side, 4 * side)  # patches are 4 pixels apart
    return options
