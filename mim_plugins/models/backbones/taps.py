"""Checks of the blocks and stages whose outputs are supervised."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.logging import MMLogger


def check_taps(
    taps: Sequence[int], num_layers: int, unit: str = "block"
) -> tuple[int, ...]:
    """Validates tap indices and returns them as a tuple.

    Args:
        taps: What was given.
        num_layers: How many blocks, or stages, there are.
        unit: What they are, ``'block'`` or ``'stage'``.

    Raises:
        ValueError: If a tap is out of range, repeated, or out of order.
    """
    taps = tuple(taps)
    for tap in taps:
        if isinstance(tap, bool) or not isinstance(tap, int):
            raise ValueError(f"taps are zero-based {unit} indices, got {tap!r}")
        if not 0 <= tap < num_layers:
            raise ValueError(
                f"tap {tap} is out of range: the encoder has {num_layers} {unit}s, "
                f"0 to {num_layers - 1} (zero-based)"
            )
    if len(set(taps)) < len(taps):
        raise ValueError(f"a level is supervised twice: taps={taps}")
    if list(taps) != sorted(taps):
        raise ValueError(f"taps must increase from shallow to deep, got {taps}")
    if num_layers - 1 in taps:
        MMLogger.get_current_instance().warning(
            f"tap {num_layers - 1} is the last {unit}: it is supervised by the tap, "
            "un-normed, and again as the final level, which needs no tap"
        )
    return taps


def check_final_block(block: int | None, taps: tuple[int, ...], num_layers: int) -> int:
    """Validates the index of the block that ends the masked forward pass.

    Raises:
        ValueError: If there is no such block, or a tap comes after it.
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
            f"tap {taps[-1]} comes after final_block={block}: the final latent is the "
            "deepest level"
        )
    return block


def check_final_stage(
    stage: int | None, num_stages: int, taps: Sequence[int] = ()
) -> int:
    """Validates the index of the stage whose output is the last latent.

    Raises:
        ValueError: If there is no such stage, or a tap does not lie before it.
    """
    if stage is None:
        return num_stages - 1
    if isinstance(stage, bool) or stage not in range(num_stages):
        raise ValueError(
            f"final_stage={stage!r} is out of range: the encoder has {num_stages} "
            f"stages, 0 to {num_stages - 1} (zero-based)"
        )
    if taps and taps[-1] >= stage:
        raise ValueError(
            f"tap {taps[-1]} does not lie before final_stage={stage}, which is a level "
            "by itself, the deepest"
        )
    return stage
