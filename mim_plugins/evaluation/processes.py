"""Several processes that share the images of a folder among them."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import get_comm_device, get_dist_info
from torch import Tensor, distributed

from ..engine.environment import connect_over_gloo, leave_processes


class Processes:
    """The processes of a run, which exchange small objects.

    What is exchanged stays in memory until :meth:`leave`: torch 2.1 waits for gloo's
    threads with the GIL held when it frees the process group, and a thread that drops
    the last reference to a tensor of Python needs the GIL. Both wait forever then.

    Args:
        launcher: Who started them: ``none``, ``pytorch``, ``slurm``, ``mpi``.

    Raises:
        ValueError: If this process was not started by that launcher.
    """

    def __init__(self, launcher: str) -> None:
        self.launched = launcher != "none"
        self.local_rank = 0
        if self.launched:
            # Only who has failed and where to write is exchanged: no matter for NCCL.
            self.local_rank = connect_over_gloo(launcher, timedelta(days=1))
        self.rank, self.size = get_dist_info()
        self._exchanged: list[Tensor] = []

    def gather(self, value: Any) -> list[Any]:
        """Collects an object of each process, in the order of their ranks.

        Args:
            value: This process's object, which can be pickled.
        """
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(size) for size in self._all_gather(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        found = self._all_gather(padded)
        return [
            pickle.loads(part[:size].cpu().numpy().tobytes())
            for part, size in zip(found, sizes, strict=True)
        ]

    def wait(self) -> None:
        """Waits until every process has come this far."""
        self.gather(None)

    def leave(self) -> None:
        """Disconnects this process, if :meth:`__init__` has connected it."""
        if self.launched:
            leave_processes()
        self._exchanged.clear()

    def _all_gather(self, mine: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape."""
        mine = mine.to(get_comm_device())
        found = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(found, mine)
        self._exchanged += [mine, *found]
        return found
