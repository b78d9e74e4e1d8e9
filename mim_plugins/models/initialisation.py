"""Initialisation of layers, as in the official MAE."""

from __future__ import annotations

from torch import nn


def init_transformer(module: nn.Module) -> None:
    """Initialises linear layers and norms as the official MAE does."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)


def is_pretrained(init_cfg: dict | list | None) -> bool:
    """Whether mmengine has just loaded weights that must not be overwritten."""
    cfgs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    return any(cfg and cfg.get("type") == "Pretrained" for cfg in cfgs)
