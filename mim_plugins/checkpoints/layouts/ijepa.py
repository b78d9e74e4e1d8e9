"""The layout of I-JEPA (facebookresearch/ijepa).

Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture,
2023, https://arxiv.org/abs/2301.08243
"""

from __future__ import annotations

from . import Layout
from .key_rules import ENCODER_RULES, KeyRules

# As in MAE, but for the class token, which it has not.
RULES = KeyRules(rule for rule in ENCODER_RULES if rule[0] != "cls_token")

# Attention heads by width.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}

# A training file holds the encoder, its moving average (the target encoder, which is
# evaluated and taken here) and the predictor.
LAYOUT = Layout(
    name="ijepa",
    title="I-JEPA's official layout",
    wrappers=("target_encoder",),
    to_native=lambda state, options: RULES.convert(state),
    num_heads=lambda state: _HEADS.get(state["pos_embed"].shape[-1]),
    writes=lambda native, recorded: recorded.get("layout") == "ijepa",
    to_official=lambda native, *_: RULES.convert(native, to="official"),
)
