"""Accounts for a checkpoint in our own layout that an encoder starts from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .detect import LAYOUTS, OURS, detect
from .fit import FRESH, UNUSED, Target, of_another_grid, other_bias, own_grid
from .report import Report, listed

# What follows the image size, and is resized by the model that loads it.
_OF_IMAGE_SIZE = re.compile(r"pos_embed|relative_position|rel_pos|attn_mask")


def account_of(
    module: nn.Module, state: Mapping[str, Any], source: str
) -> Report | None:
    """What becomes of every tensor of a checkpoint that needs no conversion.

    torch would load what fits and pass over the rest; mmengine says so in warnings.

    Args:
        module: The encoder that is to load it.
        state: The state dict under the encoder's keys.
        source: Where it is from, for messages.

    Returns:
        The account, or None if it is no checkpoint in our layout, or the module no
        encoder with our keys.

    Raises:
        ValueError: If a tensor the encoder cannot do without is missing, or of a size
            that no image size explains.
    """
    target = Target.of(module)
    tensors = {key: x for key, x in state.items() if isinstance(x, Tensor)}
    if not target.has_our_keys or detect(tensors) != OURS:
        return None
    own, name = target.of_encoder, type(target.encoder).__name__
    inside = {
        key.removeprefix(target.prefix): x.shape
        for key, x in tensors.items()
        if key.startswith(target.prefix)
    }
    report = Report(source, LAYOUTS[OURS], len(tensors), arrived="loaded")
    for key, shape in inside.items():
        if key not in own:
            report.dropped[key] = (
                f"{name} has no such part"
                if UNUSED.match(key)
                else f"{name} has no place for it"
            )
        elif own[key] == shape:
            report.converted.append(key)
        else:
            report.resized[key] = f"{tuple(shape)} to {tuple(own[key])}"
    positions = tensors.get(f"{target.prefix}pos_embed")
    if positions is not None and of_another_grid(target.encoder, positions):
        rows, cols = own_grid(target.encoder)
        report.notes.append(
            f"the positions are taken to be of {rows}x{cols} patches, as the model's; "
            "if they are of a square image, resize them with "
            "tools/convert_checkpoint.py --img-size HEIGHT WIDTH"
        )
    absent = [key for key in own if key not in inside and not key.endswith("_index")]
    if hasattr(target.encoder, "_convert_biases"):
        absent = [key for key in absent if not other_bias(key, inside)]
    report.missing = {key: "starts afresh" for key in absent}
    needed = [key for key in absent if not FRESH.match(key)]
    wrong = {
        f"{key} {report.resized[key]}"
        for key in report.resized
        if not _OF_IMAGE_SIZE.search(key) or len(own[key]) != len(inside[key])
    }
    if needed or wrong:
        problem = (
            f"the model's {len(needed)} {listed(needed, 4)} are not in it"
            if needed
            else f"{len(wrong)} tensors have other sizes: {listed(wrong, 4)}"
        )
        raise ValueError(
            f"{source} is a checkpoint of another architecture than the {name} that is "
            f"to load it: {problem}. Set arch, patch_size and the class of the "
            "backbone to what was trained"
        )
    return report
