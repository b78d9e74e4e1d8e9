"""Which blocks of an encoder are read."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.logging import MMLogger


def check_taps(taps: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Validates tap indices and returns them as a tuple.

    Raises:
        ValueError: If a tap is out of range, repeated, or out of order.
    """
    taps = tuple(taps)
    for tap in taps:
        if isinstance(tap, bool) or not isinstance(tap, int):
            raise ValueError(f"taps are zero-based block indices, got {tap!r}")
        if not 0 <= tap < num_layers:
            raise ValueError(
                f"tap {tap} is out of range: the encoder has {num_layers} blocks, "
                f"0 to {num_layers - 1} (zero-based)"
            )
    if len(set(taps)) < len(taps):
        raise ValueError(f"a level is supervised twice: taps={taps}")
    if list(taps) != sorted(taps):
        raise ValueError(f"taps must increase from shallow to deep, got {taps}")
    if num_layers - 1 in taps:
        MMLogger.get_current_instance().warning(
            f"tap {num_layers - 1} is the last block: it is supervised un-normed by "
            "the tap and again, normed, as the final level, which needs no tap"
        )
    return taps


def check_final_block(block: int | None, taps: tuple[int, ...], num_layers: int) -> int:
    """Validates the index of the block that ends the masked forward pass.

    Raises:
        ValueError: If there is no such block, or a tap lies behind it.
    """
    if block is None:
        return num_layers - 1
    if isinstance(block, bool) or block not in range(num_layers):
        raise ValueError(
            f"final_block={block!r} is out of range: the encoder has {num_layers} "
            f"blocks, 0 to {num_layers - 1} (zero-based)"
        )
    if taps and taps[-1] > block:
        raise ValueError(
            f"tap {taps[-1]} lies behind final_block={block}: the final latent is the "
            "deepest level"
        )
    return block
