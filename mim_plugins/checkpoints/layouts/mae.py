"""The layout of facebookresearch/mae in pre-training; its encoders are timm's."""

from __future__ import annotations

from . import Layout
from .deepmim import has_plain_decoders, num_decoders, pretrain_rules, rules_for
from .mae_lite import num_heads_of

LAYOUT = Layout(
    name="mae",
    title="the layout of facebookresearch/mae",
    marks=(r"decoder_embed\.",),
    unless=(r"blocks\.\d+\.proj\.",),
    to_native=lambda state, options: rules_for(state).convert(state),
    num_heads=num_heads_of,
    writes=lambda native, recorded: (
        num_decoders(native) == 1 and has_plain_decoders(native)
    ),
    to_official=lambda native, *_: pretrain_rules(None).convert(native, to="official"),
)
