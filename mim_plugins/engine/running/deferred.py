"""Log scalars that stay on the device until they are written."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import MessageHub


class DeferredScalars:
    """A queue of logged scalars that is copied to the host in one go.

    mmengine's message hub calls ``.item()`` on every value it is given, and each of
    these calls makes the host wait for the device. Values added here are cloned on
    their device instead (a cloned value survives CUDA graphs and in-place updates), and
    :meth:`flush` stacks all of them and copies them once.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, key: str, value: Any) -> None:
        """Queue one value without waiting for the device.

        Args:
            key: The full key in the message hub, such as ``train/loss``.
            value: A number or a tensor with one element.
        """
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.detach().reshape(()).clone()
        self._pending.append((key, value))

    def flush(self, message_hub: MessageHub) -> None:
        """Write everything queued to the message hub, in the order it was added.

        Of several processes, all do so at the same time, and what is written are the
        means over them.

        Args:
            message_hub: Where the values go.
        """
        pending, self._pending = self._pending, []
        # Values of different types cannot share a tensor without rounding; almost
        # always there is one group, so one copy.
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
        for position, (_, value) in enumerate(pending):
            if isinstance(value, torch.Tensor) and value.dim() == 0:
                groups[value.device, value.dtype].append(position)
        values = [value for _, value in pending]
        for positions in groups.values():
            on_host = torch.stack([values[i] for i in positions]).tolist()
            for position, number in zip(positions, on_host, strict=True):
                values[position] = number
        if get_world_size() > 1 and values:
            means = torch.tensor([float(x) for x in values], dtype=torch.float64)
            all_reduce(means, "mean")
            values = means.tolist()
        for (key, _), value in zip(pending, values, strict=True):
            message_hub.update_scalar(key, value)
